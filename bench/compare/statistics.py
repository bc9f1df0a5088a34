"""Statistics of paired differences over prompts: intervals, permutation p, Holm, power. numpy and scipy only.

Everything here takes one number a prompt: the mean over the prompt's images of candidate minus baseline, each
image against the one of the same prompt, seed and sample index. The prompt is the cluster: images of one
prompt are not independent, so they are averaged before anything is resampled.
Why these methods and not others, with the figures: docs/simulations.md.
"""

# N prompts, R resamples

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

ALPHA, POWER = 0.05, 0.8
RESAMPLES = 10_000
FEW = 20
"""Below this many prompts that differ at all, the spread seen is no guide to the spread there is."""
PSEUDO = 1.5
"""Prompts added on either side, as Agresti and Min add to the cells of a paired table, where few differ."""
CHUNK = 2_000_000  # numbers in memory at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Differences in four numbers. stderr and sd are None for a single prompt."""

    mean: float
    sd: float | None
    stderr: float | None
    num_prompts: int
    num_differ: int
    """Prompts whose difference is not zero."""


def _checked(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"differences must be a list of one number a prompt, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")


def spread(differences: Sequence[float] | np.ndarray) -> Spread:
    values = _checked(differences)
    count = len(values)
    mean = math.fsum(values) / count
    sd = math.sqrt(math.fsum((values - mean) ** 2) / (count - 1)) if count > 1 else None
    return Spread(
        mean=mean,
        sd=sd,
        stderr=None if sd is None else sd / math.sqrt(count),
        num_prompts=count,
        num_differ=int(np.count_nonzero(values)),
    )


# ---- intervals -------------------------------------------------------------------------------------------


def _chunks(total: int, width: int) -> Iterator[int]:
    """Row counts that add up to `total`, each of at most CHUNK / width rows."""
    rows = max(1, CHUNK // max(1, width))
    for start in range(0, total, rows):
        yield min(rows, total - start)


def studentised_pivots(values: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """(R,) sorted: (resampled mean - mean) / resampled standard error, prompts drawn with replacement.

    A resample of equal values has no error of its own: its pivot is infinite, or 0 where the mean agrees.
    """
    rng = np.random.default_rng(seed)
    count, mean = len(values), values.mean()
    found = []
    for rows in _chunks(resamples, count):
        drawn = values[rng.integers(0, count, (rows, count), dtype=np.int32)]
        shift = drawn.mean(axis=1) - mean
        error = drawn.std(axis=1, ddof=1) / math.sqrt(count)
        shift[np.abs(shift) < 1e-12 * (1 + abs(mean))] = 0
        flat = error < 1e-12 * (1 + np.abs(values).max())
        pivot = np.divide(shift, error, out=np.zeros(rows), where=~flat)
        pivot[flat] = np.copysign(np.inf, shift[flat])
        pivot[flat & (shift == 0)] = 0
        found.append(pivot)
    return np.sort(np.concatenate(found))


def _quantile(pivots: np.ndarray, share: float) -> float:
    """Of sorted values, the outer one where the share falls between two."""
    position = share * (len(pivots) - 1)
    return float(pivots[math.floor(position) if share < 0.5 else math.ceil(position)])


def _student(values: np.ndarray, tail: float) -> tuple[float, float]:
    """Student's t; where fewer than FEW prompts differ, after adding PSEUDO prompts on either side.

    The added ones stand at plus and minus the largest difference seen (1, the range of a score, if there is
    none) and as many again at zero: with nothing, or next to nothing, seen to differ, the interval keeps the
    width that so few prompts can bear witness to, as the rule of three does for a share.
    """
    count = len(values)
    reach = float(special.stdtrit(count - 1, 1 - tail))
    total, squares = math.fsum(values), math.fsum(values**2)
    if np.count_nonzero(values) < FEW:
        largest = float(np.abs(values).max()) or 1.0
        count += 4 * PSEUDO
        squares += 2 * PSEUDO * largest**2
        mean = total / count
        error = math.sqrt(max(0.0, squares / count - mean**2) / count)
    else:
        mean = total / count
        error = float(values.std(ddof=1)) / math.sqrt(count)
    return mean - reach * error, mean + reach * error


def intervals(
    differences: Sequence[float] | np.ndarray,
    levels: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Intervals of the mean difference at these levels: the wider end of Student's t and bootstrap-t.

    The studentised bootstrap follows skew, which t misses (93 % and less for one-sided losses); t keeps its
    width where few prompts or few values make the resamples too alike, which the bootstrap misses. On either
    side the end that reaches further counts. Needs two prompts.
    """
    values = _checked(differences)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 prompts, got {len(values)}")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    pivots = studentised_pivots(values, resamples=resamples, seed=seed) if error > 0 else None
    found = []
    for level in levels:
        _check_share("level", level)
        tail = (1 - level) / 2
        low, high = _student(values, tail)
        if pivots is not None:
            ends = mean - _quantile(pivots, 1 - tail) * error, mean - _quantile(pivots, tail) * error
            low = min(low, ends[0]) if math.isfinite(ends[0]) else low
            high = max(high, ends[1]) if math.isfinite(ends[1]) else high
        found.append((low, high))
    return found


def interval(
    differences: Sequence[float] | np.ndarray,
    *,
    level: float = 1 - ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """`intervals` at one level."""
    return intervals(differences, [level], resamples=resamples, seed=seed)[0]


# ---- tests -----------------------------------------------------------------------------------------------


def sign_flip_p(
    differences: Sequence[float] | np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p of the paired permutation test: baseline and candidate swapped, prompt by prompt.

    Exact, over all swaps, while there are no more of them than resamples (13 prompts that differ at 10,000);
    else from that many drawn ones, with the observed one among them. 1 if no prompt differs.
    """
    values = _checked(differences)
    values = values[values != 0]
    if not len(values):
        return 1.0
    observed = abs(math.fsum(values))
    bar = observed - 1e-9 * float(np.abs(values).sum())  # sums in another order differ in the last bits
    if 2 ** len(values) <= resamples:
        swapped = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float(np.mean(np.abs((1 - 2.0 * swapped) @ values) >= bar))
    rng = np.random.default_rng(seed)
    reached = 0
    for rows in _chunks(resamples, len(values)):
        swapped = rng.integers(0, 2, (rows, len(values)), dtype=np.int8)
        reached += int(np.count_nonzero(np.abs((1 - 2.0 * swapped) @ values) >= bar))
    return (1 + reached) / (1 + resamples)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p of each member of a family: at most alpha just where Holm's step-down test rejects."""
    adjusted: dict[str, float] = {}
    reached = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        reached = max(reached, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = reached
    return {name: adjusted[name] for name in p_values}


def holm_levels(p_values: Mapping[str, float], alpha: float = ALPHA) -> dict[str, float]:
    """The level at which Holm's test looks at each member: 1 - alpha / (members left when its turn comes).

    Members whose turn never comes are held to the level of the first one that is not rejected.
    """
    _check_share("alpha", alpha)
    levels: dict[str, float] = {}
    left = len(p_values)
    for name, p in sorted(p_values.items(), key=lambda item: item[1]):
        levels[name] = 1 - alpha / left
        if p <= alpha / left and left > 1:
            left -= 1
        else:
            alpha, left = alpha / left, 1  # the rest stay at this level
    return {name: levels[name] for name in p_values}


# ---- power -----------------------------------------------------------------------------------------------


def minimum_detectable_effect(
    sd: float, num_prompts: int, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The true difference that a two-sided test at alpha finds with this power: (z + z) sd / sqrt(N).

    sd: of the differences over prompts.
    """
    _check_share("alpha", alpha)
    _check_share("power", power)
    if num_prompts < 1 or not sd >= 0:
        raise ValueError(f"needs num_prompts >= 1 and sd >= 0, got {num_prompts} and {sd}")
    reach = float(special.ndtri(1 - alpha / 2) + special.ndtri(power))
    return reach * sd / math.sqrt(num_prompts)


def power_of(effect: float, sd: float, num_prompts: int, *, alpha: float = ALPHA) -> float:
    """The share of runs in which a true difference of this size is found on its own side."""
    _check_share("alpha", alpha)
    if num_prompts < 1 or not sd > 0:
        raise ValueError(f"needs num_prompts >= 1 and sd > 0, got {num_prompts} and {sd}")
    return float(special.ndtr(abs(effect) * math.sqrt(num_prompts) / sd - special.ndtri(1 - alpha / 2)))


def prompts_needed(effect: float, sd: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """The fewest prompts with which a true difference of this size is found with this power."""
    if not abs(effect) > 0:
        raise ValueError(f"effect must not be 0, got {effect}")
    return max(1, math.ceil((minimum_detectable_effect(sd, 1, alpha=alpha, power=power) / effect) ** 2))


def detectable_drop(
    differences: Sequence[float] | np.ndarray, reach: float, *, tolerance: float, power: float = POWER
) -> float | None:
    """The true drop that a gate calls a regression with this power, from the differences of this run.

    reach: from their mean to the far end of the interval that decides. A drop x must take the mean beyond
    that reach and beyond the tolerance, plus what chance gives back. It also adds spread of its own: it comes
    as prompts that now fail, at worst each by the largest difference seen, L, which adds x (L - x) to the
    variance. Without this term drops that the gate claims to find in 80 % of runs are found in 60 to 70 %.
    None where nothing differs.
    """
    values = _checked(differences)
    seen = spread(values)
    if not seen.stderr or not seen.sd:
        return None
    chance = float(special.stdtrit(max(1, seen.num_prompts - 1), power))
    largest, drop = float(np.abs(values).max()), tolerance
    for _ in range(100):  # grows more slowly than the drop itself: settles
        error = math.sqrt((seen.sd**2 + max(0.0, drop * (largest - drop))) / seen.num_prompts)
        drop = max(reach / seen.stderr * error, tolerance) + chance * error
    return drop
