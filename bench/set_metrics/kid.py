"""KID: the squared maximum mean discrepancy under a cubic kernel (1801.01401), in float64.

Unbiased, so it may be below 0; the mean over random subsets of both sets, times 1000. The subsets are those
of torch-fidelity for the same seed: RandomState's stream is frozen, so they stay what they are.
"""

# N images of a set, M of the reference, D numbers of a feature, S images of a subset

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.set_metrics import check_pair
from gentron.errors import UserError

SUBSETS, SUBSET_SIZE = 100, 1000
SEED = 2020  # torch-fidelity's default
SCALE = 1000.0


class Kid(NamedTuple):
    """Both times 1000. spread: standard deviation over subsets, which says how S images scatter, not N."""

    mean: float
    spread: float


def kid(
    features: np.ndarray,
    reference: np.ndarray,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> Kid:
    """features: (N, D).   reference: (M, D).   UserError if N or M is below the subset size."""
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"subsets must be >= 1 of >= 2 images, got {subsets} of {subset_size}")
    check_pair(features, reference)
    for what, count in (("images", len(features)), ("reference images", len(reference))):
        if count < subset_size:
            raise UserError(
                f"KID draws subsets of {subset_size} and there are {count} {what}: more of them,"
                " or a smaller --kid-subset-size, which is another metric"
            )
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = features[rng.choice(len(features), subset_size, replace=False)].astype(np.float64)
        y = reference[rng.choice(len(reference), subset_size, replace=False)].astype(np.float64)
        values.append(unbiased_mmd2(x, y))
    return Kid(SCALE * float(np.mean(values)), SCALE * float(np.std(values)))


def unbiased_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """x, y: (S, D). Pairs of a point with itself are left out within a set, not across."""
    count = len(x)
    within = _off_diagonal_sum(cubic_kernel(x, x)) + _off_diagonal_sum(cubic_kernel(y, y))
    return within / (count * (count - 1)) - 2 * float(cubic_kernel(x, y).mean())


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 of every pair."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _off_diagonal_sum(kernel: np.ndarray) -> float:
    return float(kernel.sum() - np.trace(kernel))
