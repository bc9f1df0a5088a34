"""What is peculiar to FID: its bias at small N, and the extrapolation that takes it away."""

# N images of a set, D numbers of a feature

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.set_metrics import check_features
from bench.set_metrics.frechet import Moments, frechet_distance
from gentron.errors import UserError

USUAL_N = 10_000  # below it the bias is larger than most differences that people report
POINTS = 15
LEAST_POINT = 5000
SEED = 0


def label(name: str, num_images: int) -> str:
    """FID-30000 and the like: the number is meaningless without N."""
    return f"{name}-{num_images}"


def small_n_warning(num_images: int, num_reference: int) -> str | None:
    """A sentence for a reader if the value is mostly bias; None if N is usual."""
    least = min(num_images, num_reference)
    if least >= USUAL_N:
        return None
    return (
        f"only {least} images: the bias at small N is larger than most differences between models;"
        f" compare at equal N and reference only, or use {USUAL_N} and more"
    )


class Extrapolation(NamedTuple):
    """value: at 1/N = 0.   slope: of the line over 1/N.   points: (N, distance) it was drawn through."""

    value: float
    slope: float
    points: tuple[tuple[int, float], ...]


def infinity_sizes(num_images: int, *, points: int = POINTS) -> np.ndarray:
    """N of the points: evenly from 5000, or from a tenth of a set below 50 000, to all (2306.04675)."""
    least = min(LEAST_POINT, max(num_images // 10, 2))
    sizes = np.linspace(least, num_images, points).astype(int)
    if len(set(sizes.tolist())) < points:
        raise UserError(f"FID-infinity needs {points} different sizes: {num_images} images are too few")
    return sizes


def frechet_infinity(
    features: np.ndarray, reference: Moments, *, points: int = POINTS, seed: int = SEED
) -> Extrapolation:
    """FID-infinity (1911.07023): the intercept of a line through the distance at several N, over 1/N.

    features: (N, D); each point takes a random part of them, without repetition, drawn from `seed`.
    The bias that goes is that of the images; the reference's stays, so it must be large, and the same.
    """
    check_features(features, what="the images")
    rng = np.random.RandomState(seed)
    sizes = infinity_sizes(len(features), points=points)
    # sorted: sums over the same rows come out the same, to the bit
    parts = [features[np.sort(rng.permutation(len(features))[:size])] for size in sizes]
    distances = np.array([frechet_distance(part, reference) for part in parts])
    slope, value = np.polyfit(1 / sizes, distances, 1)
    found = tuple((int(n), float(d)) for n, d in zip(sizes, distances, strict=True))
    return Extrapolation(float(value), float(slope), found)
