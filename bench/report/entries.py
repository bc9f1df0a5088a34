"""A result as one line of a report: read and checked, with its values, warnings and label. No torch here."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.results.aggregate import MetricValue, interval
from bench.results.evidence import RESULT, SCORES, check_agreement
from bench.results.record import Result, ScoreLine, read_result, read_scores
from bench.results.warnings import ResultWarning
from gentron.errors import UserError

T = TypeVar("T")

# ---- reading ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A result with its rows; scores is None where no scores.csv lies beside it."""

    path: Path
    result: Result
    scores: list[ScoreLine] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """left_out: a line for every result that could not be read."""

    found: list[Found]
    left_out: list[str]


def result_paths(places: Sequence[Path]) -> list[Path]:
    """The result.json files that `places` name: files, their folders, or folders of results at any depth."""
    paths: dict[Path, Path] = {}
    for place in places:
        if place.is_dir():
            inside = [place / RESULT] if (place / RESULT).is_file() else sorted(place.rglob(RESULT))
            if not inside:
                raise UserError(f"no results in '{place}': expected <protocol>/<system>/<run>/{RESULT}")
        elif place.is_file():
            inside = [place]
        else:
            raise UserError(f"no file or folder '{place}': expected a {RESULT} or a folder of results")
        for path in inside:
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def load(places: Sequence[Path], *, keep_going: bool) -> Loaded:
    """Read all results of `places`.

    One that is damaged, newer or at odds with its scores.csv is a UserError that names the file, or, with
    keep_going, a line in left_out.
    """
    found, left_out = [], []
    for path in result_paths(places):
        try:
            found.append(read(path))
        except (UserError, OSError) as error:
            if not keep_going:
                raise
            left_out.append(" ".join(str(error).split()))
    if not found:
        raise UserError(f"no result can be read: {'; '.join(left_out)}")
    return Loaded(found=found, left_out=left_out)


def read(path: Path) -> Found:
    """A result and its rows; UserError if they disagree.

    A result.json of its own, such as a committed baseline, is shown as well: without pictures.
    """
    result = read_result(path)
    beside = path.name == RESULT and (path.parent / SCORES).is_file()
    scores = read_scores(path.parent) if beside else None
    if scores is not None:
        check_agreement(path, result, scores)
    return Found(path=path, result=result, scores=scores)


# ---- entries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A mean, its 95 % interval where one is known, and what it was taken over."""

    mean: float
    low: float | None = None
    high: float | None = None
    num_images: int
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A result as one line of a table.

    label: names it among the others; system and detail are its two parts.   anchor: unique in a report.
    mean: over the categories of its table, None unless it has them all.
    """

    found: Found
    anchor: str
    system: str
    detail: str
    values: dict[str, Value]
    mean: Value | None
    flags: tuple[ResultWarning, ...]
    hue: int
    """Number of the system in its section: entries of one system share a colour."""

    @property
    def result(self) -> Result:
        return self.found.result

    @property
    def label(self) -> str:
        return f"{self.system} · {self.detail}" if self.detail else self.system

    @property
    def is_result(self) -> bool:
        return all(flag.kind != "bad" for flag in self.flags)


def value_of(metric: MetricValue) -> Value | None:
    """None where nothing was averaged.

    Scores lie in [0, 1], and so does what is shown of an interval. Where all prompts score alike there is no
    spread to take one from, and none is given: its length would be zero, which nobody should believe.
    """
    if metric.mean is None:
        return None
    low, high = metric.interval or (None, None)
    if low == high:
        low = high = None
    elif low is not None and high is not None and 0 <= metric.mean <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return Value(
        mean=metric.mean,
        low=low,
        high=high,
        num_images=metric.num_images,
        num_prompts=metric.num_prompts,
    )


def mean_value(metrics: Sequence[MetricValue]) -> Value | None:
    """The mean of category means. Categories share no prompt, so their errors add as independent ones.

    The interval takes Student's t on Satterthwaite's degrees of freedom.
    """
    means = [m.mean for m in metrics if m.mean is not None]
    if not means or len(means) < len(metrics):
        return None
    mean = math.fsum(means) / len(means)
    images, prompts = sum(m.num_images for m in metrics), sum(m.num_prompts for m in metrics)
    variances = [m.stderr**2 for m in metrics if m.stderr is not None]
    if len(variances) < len(metrics):
        return Value(mean=mean, num_images=images, num_prompts=prompts)
    total = math.fsum(variances)
    low = high = None
    if total > 0:
        parts = math.fsum(v**2 / (m.num_prompts - 1) for v, m in zip(variances, metrics, strict=True))
        low, high = interval(mean, math.sqrt(total) / len(means), int(total**2 / parts) + 1)
    return Value(mean=mean, low=low, high=high, num_images=images, num_prompts=prompts)


# ---- labels ----------------------------------------------------------------------------------------------

SHORT = {
    "guidance_scale": "guidance {}",
    "num_inference_steps": "{} steps",
    "sampler": "{}",
    "height": "{} px high",
    "width": "{} px wide",
}


def show(value: Any) -> str:
    """A setting's value in few characters."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def setting_text(name: str, value: Any) -> str:
    return SHORT.get(name, f"{name} {{}}").format(show(value))


def key_of(value: Any) -> str:
    """A value that may be a list or a mapping as something that can be compared and hashed."""
    return json.dumps(value, sort_keys=True)


def order(value: Any) -> tuple[Any, ...]:
    """Sorts settings: numbers by size, before texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value, "")
    return (1, 0, key_of(value))


def varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The names whose values are not the same in all."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [n for n in names if len({key_of(each.get(n)) for each in settings}) > 1]


def details(results: Sequence[Found]) -> list[str]:
    """What tells each from others of the same system: settings that vary; if none do, its run."""
    texts = [""] * len(results)
    for group in grouped(range(len(results)), lambda k: results[k].result.system.name):
        if len(group) == 1:
            continue
        names = varied([results[k].result.system.settings for k in group])
        for k in group:
            settings = results[k].result.system.settings
            texts[k] = " · ".join(setting_text(n, settings[n]) for n in names if n in settings)
        for same in grouped(group, lambda k: texts[k]):
            if len(same) > 1:
                for k, run in zip(same, _run_names([results[k].path for k in same]), strict=True):
                    texts[k] = " · ".join(filter(None, [texts[k], run]))
    return texts


def _run_names(paths: Sequence[Path]) -> list[str]:
    """The ends of their folders' paths, as long as it takes to tell them apart."""
    whole = [
        (path.parent if path.name == RESULT else path.with_suffix("")).absolute().parts for path in paths
    ]
    length = 1
    while len({parts[-length:] for parts in whole}) < len(whole) and length < max(map(len, whole)):
        length += 1
    return ["/".join(parts[-length:]) for parts in whole]


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Items with equal keys together, in the order of their first."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
