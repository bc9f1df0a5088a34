"""Statistics of a pairwise study: intervals, sign test, agreement. Plain numpy and scipy, no study in sight.

The votes of one prompt are alike and so are those of one rater; an interval that forgets either is too short.
How often each interval holds the truth is in docs/humaneval.md, by benchmarks/simulate_humaneval.py.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
NUM_RESAMPLES = 10_000


class Interval(NamedTuple):
    low: float
    high: float


class SignTest(NamedTuple):
    """Prompts by the majority of their votes; p is two-sided, of the exact binomial test without the ties."""

    for_a: int
    tied: int
    for_b: int
    p: float


def cluster_variance(values: np.ndarray, clusters: np.ndarray) -> tuple[float, int]:
    """Variance of the mean of `values` (N,), clusters (N,) taken as independent, and their number G.

    sum over clusters of (sum of residuals)^2, times G / (G - 1) / N^2; 0 for a single cluster.
    """
    _, index = np.unique(clusters, return_inverse=True)
    count = int(index.max()) + 1
    if count < 2:
        return 0.0, count
    sums = np.bincount(index, weights=values - values.mean(), minlength=count)
    return float((sums**2).sum()) * count / (count - 1) / len(values) ** 2, count


def overlaps(prompts: np.ndarray, raters: np.ndarray) -> bool:
    """Whether raters can be told from prompts: two or more raters, one of whom judged two or more prompts."""
    pairs = set(zip(prompts.tolist(), raters.tolist(), strict=True))
    judged = Counter(rater for _, rater in pairs)
    return len(judged) > 1 and max(judged.values()) > 1


def two_way_interval(
    values: np.ndarray, prompts: np.ndarray, raters: np.ndarray, *, low: float = 0.0, high: float = 1.0
) -> Interval | None:
    """The 95 % interval of the mean of `values` (N,) in [low, high], for new prompts and new raters.

    Variance clustered by prompt plus variance clustered by rater. Each holds the noise of single votes, so
    their sum counts it twice: a little long where votes are independent, never too short by it. Degrees of
    freedom after Satterthwaite; Wilson's form keeps the interval in the range and gives it a length when all
    votes agree.
    By prompt alone where raters do not overlap. None for fewer than two prompts.
    """
    by_prompt, num_prompts = cluster_variance(values, prompts)
    if num_prompts < 2:
        return None
    variance, freedom = by_prompt, float(num_prompts - 1)
    if overlaps(prompts, raters):
        by_rater, num_raters = cluster_variance(values, raters)
        variance = by_prompt + by_rater
        parts = by_prompt**2 / (num_prompts - 1) + by_rater**2 / (num_raters - 1)
        fewest = min(num_prompts, num_raters) - 1
        freedom = max(variance**2 / parts, fewest) if parts > 0 else float(fewest)
    t = float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
    mean = (float(values.mean()) - low) / (high - low)
    scaled = variance / (high - low) ** 2
    # votes that all agree have no variance: each prompt then counts as one vote
    size = min(mean * (1 - mean) / scaled, len(values)) if scaled > 0 and 0 < mean < 1 else num_prompts
    centre = (mean + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * math.sqrt(mean * (1 - mean) / size + t**2 / (4 * size**2))
    ends = (max(centre - half, 0.0), min(centre + half, 1.0))
    return Interval(*(low + (high - low) * end for end in ends))


def prompt_bootstrap(
    columns: np.ndarray, prompts: np.ndarray, *, seed: int = 0, resamples: int = NUM_RESAMPLES
) -> list[Interval]:
    """95 % percentile intervals of the means of columns (N, K), whole prompts drawn with replacement.

    They hold for new prompts before the same raters.
    """
    _, index = np.unique(prompts, return_inverse=True)
    count = int(index.max()) + 1
    sums = np.stack([np.bincount(index, weights=column, minlength=count) for column in columns.T], axis=1)
    sizes = np.bincount(index, minlength=count).astype(np.float64)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    means = (weights @ sums) / (weights @ sizes)[:, None]
    tail = 100 * (1 - LEVEL) / 2
    lows, highs = np.percentile(means, [tail, 100 - tail], axis=0)
    return [Interval(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]


def sign_test(net: np.ndarray, prompts: np.ndarray) -> SignTest:
    """net: (N,) 1 for A, 0 for a tie, -1 for B."""
    _, index = np.unique(prompts, return_inverse=True)
    sums = np.bincount(index, weights=net)
    for_a, for_b = int((sums > 0).sum()), int((sums < 0).sum())
    p = float(stats.binomtest(for_a, for_a + for_b).pvalue) if for_a + for_b else 1.0
    return SignTest(for_a=for_a, tied=len(sums) - for_a - for_b, for_b=for_b, p=p)


def krippendorff_alpha(
    ratings: Sequence[tuple[Hashable, Hashable]], *, order: Sequence[Hashable] | None = None
) -> float | None:
    """Krippendorff's alpha of (unit, value) pairs: 1 is agreement, 0 what chance gives.

    order: the values from low to high for the ordinal metric; None is the nominal one. Units with a single
    value say nothing of agreement. None where nothing can be said: no such unit, or one value only.
    K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
    """
    units: dict[Hashable, list[Hashable]] = defaultdict(list)
    for unit, value in ratings:
        units[unit].append(value)
    pairable = [values for values in units.values() if len(values) > 1]
    present = {value for values in pairable for value in values}
    names = list(present) if order is None else [value for value in order if value in present]
    if len(names) < 2:
        return None
    place = {name: k for k, name in enumerate(names)}
    coincidences = np.zeros((len(names), len(names)))
    for values in pairable:
        counts = np.bincount([place[value] for value in values], minlength=len(names)).astype(np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)
    totals = coincidences.sum(axis=0)
    n = totals.sum()
    distance = _nominal(len(names)) if order is None else _ordinal(totals)
    expected = float((np.outer(totals, totals) * distance).sum())
    return 1.0 - float((n - 1) * (coincidences * distance).sum()) / expected


def _nominal(size: int) -> np.ndarray:
    return 1.0 - np.eye(size)


def _ordinal(totals: np.ndarray) -> np.ndarray:
    """Squared number of values between two ranks, half of those at the ends."""
    upto = np.cumsum(totals)
    middle = upto - totals / 2
    return (middle[:, None] - middle[None, :]) ** 2
