"""Rows -> metrics per category. Prompts are the clusters: images of one prompt are not independent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.prompts import HELD_OUT, SEEN, Prompt
from bench.score import ScoreRow


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricValue:
    """A mean with its standard error over prompts. None where there is nothing, or too little, to average."""

    mean: float | None
    stderr: float | None
    num_images: int
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryMetrics:
    """What is reported of one category.

    objects: the score without the relation.   relation: its grade where both objects were found.
    extra_objects, missing_objects: share of images with more or fewer objects than asked.
    """

    category: str
    score: MetricValue
    seen: MetricValue
    heldout: MetricValue
    chance: MetricValue
    shuffled: MetricValue
    objects: MetricValue
    relation: MetricValue
    extra_objects: MetricValue
    missing_objects: MetricValue


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
    stderr = None
    if len(means) > 1:
        spread = math.fsum((m - mean) ** 2 for m in means) / (len(means) - 1)
        stderr = math.sqrt(spread / len(means))
    return MetricValue(mean=mean, stderr=stderr, num_images=count, num_prompts=len(means))


def aggregate(prompts: Sequence[Prompt], rows: Sequence[ScoreRow]) -> list[CategoryMetrics]:
    """Metrics of each category that has prompts, in their order."""
    splits = {prompt.id: prompt.split for prompt in prompts}
    categories = {prompt.id: prompt.category for prompt in prompts}
    return [
        _category(name, [row for row in rows if categories[row.prompt_id] == name], splits)
        for name in dict.fromkeys(prompt.category for prompt in prompts)
    ]


def _category(name: str, rows: list[ScoreRow], splits: dict[str, str]) -> CategoryMetrics:
    def of_split(split: str) -> MetricValue:
        return clustered_mean((r.prompt_id, r.score) for r in rows if splits[r.prompt_id] == split)

    graded = [r for r in rows if "relation" in r.parts and r.parts["both_found"]]
    return CategoryMetrics(
        category=name,
        score=clustered_mean((r.prompt_id, r.score) for r in rows),
        seen=of_split(SEEN),
        heldout=of_split(HELD_OUT),
        chance=clustered_mean((r.prompt_id, r.chance) for r in rows),
        shuffled=clustered_mean((r.prompt_id, r.shuffled) for r in rows),
        objects=clustered_mean((r.prompt_id, r.parts["objects_score"]) for r in rows),
        relation=clustered_mean((r.prompt_id, r.parts["relation"]) for r in graded),
        extra_objects=clustered_mean(
            (r.prompt_id, float(r.parts["detected"] > r.parts["asked"])) for r in rows
        ),
        missing_objects=clustered_mean(
            (r.prompt_id, float(r.parts["detected"] < r.parts["asked"])) for r in rows
        ),
    )
