"""What one metric of two results is found to be: a difference with its error. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.compare.statistics import RESAMPLES, intervals

# first words of names: of distances between sets, and of what a clip should not do
LOWER_IS_BETTER = (
    *("fid", "fd", "kid", "kd", "cmmd", "clip_fid", "fvd"),
    *("warping_error", "static_flicker"),
)
NEITHER_IS_BETTER = ("flow_magnitude",)  # how much moves is what was asked for, or not


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One metric of two results, paired. difference: candidate - baseline.

    stderr: of the difference.   differences: one a prompt; None for a set metric.   None where unknown: a
    single prompt, or a set metric whose features were not kept.   identical: every picture is the same file,
    and every score the same.
    """

    metric: str
    higher_is_better: bool
    baseline: float
    candidate: float
    difference: float
    stderr: float | None
    sd: float | None
    p: float | None
    num_prompts: int
    num_images: int
    num_differ: int
    identical: bool
    note: str
    differences: np.ndarray | None
    freedom: int | None = None
    """Of stderr, where it is a jackknife's."""
    resamples: int = RESAMPLES

    def intervals(self, levels: Sequence[float], *, seed: int = 0) -> list[tuple[float, float]] | None:
        """Of the difference at these levels; None where it is not known."""
        if self.identical:
            return [(0.0, 0.0)] * len(levels)
        if self.differences is not None:
            if len(self.differences) < 2:
                return None
            return intervals(self.differences, levels, resamples=self.resamples, seed=seed)
        if self.stderr is None or self.freedom is None:
            return None
        reaches = [float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.stderr for level in levels]
        return [(self.difference - reach, self.difference + reach) for reach in reaches]


def higher_is_better(metric: str) -> bool:
    """Distances between sets of images are better small; everything else is a score."""
    return not _begins(metric, LOWER_IS_BETTER)


def neither_is_better(metric: str) -> bool:
    """A number without a direction: two results differ in it, and none is the better one."""
    return _begins(metric, NEITHER_IS_BETTER)


def _begins(metric: str, words: Sequence[str]) -> bool:
    return any(metric == word or metric.startswith(f"{word}_") for word in words)
