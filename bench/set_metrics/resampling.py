"""How far a metric of a set would move with other images: a jackknife over groups of images.

A plain bootstrap misleads here: an image drawn twice shrinks the covariance, so every draw of a Fréchet
distance lies above the value itself. Leaving a tenth of the images out repeats none.
"""

# N images of a set, G groups

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

GROUPS = 10
COVERAGE = 0.95


def groups(num_images: int, count: int = GROUPS, *, seed: int = 0) -> list[np.ndarray]:
    """Indices 0..N-1 dealt into `count` groups at random, sizes differing by 1 at most."""
    if not 2 <= count <= num_images:
        raise ValueError(f"groups must be from 2 to the number of images ({num_images}), got {count}")
    return [
        np.sort(part) for part in np.array_split(np.random.RandomState(seed).permutation(num_images), count)
    ]


def jackknife_interval(
    value: float,
    of_rows: Callable[[np.ndarray], float],
    num_images: int,
    *,
    count: int = GROUPS,
    seed: int = 0,
    coverage: float = COVERAGE,
) -> tuple[float, float]:
    """value -+ t stderr, t on G - 1 degrees of freedom; stderr² = (G - 1) / G sum (v_g - mean)².

    of_rows: sorted indices of images -> the metric of these alone.
    The interval is of the metric at this N, with its bias: not of what an endless set would give.
    """
    parts = groups(num_images, count, seed=seed)
    everything = np.arange(num_images)
    values = np.array([of_rows(np.setdiff1d(everything, part, assume_unique=True)) for part in parts])
    stderr = math.sqrt((count - 1) / count * float(((values - values.mean()) ** 2).sum()))
    reach = float(special.stdtrit(count - 1, (1 + coverage) / 2)) * stderr
    return value - reach, value + reach
