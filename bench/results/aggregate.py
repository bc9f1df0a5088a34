"""Rows -> metrics per category. Prompts are the clusters: images of one prompt are not independent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.prompts import Prompt
from bench.scorers.score import ScoreRow

COVERAGE = 0.95  # of every interval in a result


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricValue:
    """A mean with its standard error over prompts. None where there is nothing, or too little, to average.

    interval: 95 %, mean -+ t stderr with Student's t on one degree of freedom less than there are prompts.
    """

    mean: float | None
    stderr: float | None
    interval: tuple[float, float] | None = None
    num_images: int
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryMetrics:
    """What is reported of one category.

    scorer: its name.   views: the same mean over parts of the list, chance levels, and means of the scorer's
    own parts (such as `extra objects`, the share of images with more objects than asked).
    """

    category: str
    scorer: str
    score: MetricValue
    views: dict[str, MetricValue] = field(default_factory=dict)


def interval(mean: float, stderr: float, num_prompts: int) -> tuple[float, float]:
    """The 95 % interval of a mean over prompts."""
    from scipy.special import stdtrit

    reach = float(stdtrit(num_prompts - 1, (1 + COVERAGE) / 2)) * stderr
    return mean - reach, mean + reach


def clustered_mean(values: Iterable[tuple[str, float]]) -> MetricValue:
    """The mean of prompt means and its standard error, from (prompt id, value) pairs.

    With P prompts the error is sd(prompt means, P - 1) / sqrt(P); None for a single prompt.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for prompt_id, value in values:
        groups[prompt_id].append(value)
    count = sum(map(len, groups.values()))
    if not groups:
        return MetricValue(mean=None, stderr=None, num_images=0, num_prompts=0)
    means = [math.fsum(group) / len(group) for group in groups.values()]
    mean = math.fsum(means) / len(means)
    if len(means) == 1:
        return MetricValue(mean=mean, stderr=None, num_images=count, num_prompts=1)
    spread = math.fsum((m - mean) ** 2 for m in means) / (len(means) - 1)
    stderr = math.sqrt(spread / len(means))
    return MetricValue(
        mean=mean,
        stderr=stderr,
        interval=interval(mean, stderr, len(means)),
        num_images=count,
        num_prompts=len(means),
    )


def aggregate(
    prompts: Sequence[Prompt], rows: Sequence[ScoreRow], scorers: dict[str, str]
) -> list[CategoryMetrics]:
    """Metrics of each category in `scorers`, which gives the name of its scorer, in their order."""
    by_id = {prompt.id: prompt for prompt in prompts}
    return [
        _category(name, scorer, [row for row in rows if by_id[row.prompt_id].category == name], by_id)
        for name, scorer in scorers.items()
    ]


def _category(name: str, scorer: str, rows: list[ScoreRow], by_id: dict[str, Prompt]) -> CategoryMetrics:
    views: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for split in dict.fromkeys(p.split for p in by_id.values() if p.category == name and p.split):
        views[split] = [(r.prompt_id, r.score) for r in rows if by_id[r.prompt_id].split == split]
    for row in rows:
        levels = {"chance": row.chance, "shuffled": row.shuffled}
        for part, value in {**levels, **row.parts}.items():
            if value is not None:
                views[part].append((row.prompt_id, value))
    return CategoryMetrics(
        category=name,
        scorer=scorer,
        score=clustered_mean((r.prompt_id, r.score) for r in rows),
        views={view: clustered_mean(values) for view, values in views.items()},
    )
