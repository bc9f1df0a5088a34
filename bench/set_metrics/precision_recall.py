"""Improved precision and recall (1904.06991): how many images lie among the reference's neighbours, and back.

A set's manifold is the union of balls around its points, each as wide as the distance to the point's k-th
nearest neighbour, itself not counted. Precision: the share of images in the reference's manifold. Recall: the
share of the reference in the images'. The paper takes k = 3 and VGG-16 features; here the features are those
of the extractor that the metric's name carries, so its figures are not the paper's.
"""

# N images of a set, M of the reference, D numbers of a feature

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.set_metrics import check_pair

NEIGHBOURS = 3
BLOCK = 2048  # rows of the distances at a time


class PrecisionRecall(NamedTuple):
    """Shares, 0 to 1."""

    precision: float
    recall: float


def precision_recall(
    features: np.ndarray, reference: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> PrecisionRecall:
    """features: (N, D).   reference: (M, D).   UserError unless both hold more than `neighbours` images."""
    if neighbours < 1:
        raise ValueError(f"neighbours must be >= 1, got {neighbours}")
    check_pair(features, reference, least=neighbours + 1)
    # distances do not change with the origin, and are most precise near it
    origin = reference.mean(axis=0, dtype=np.float64)
    x, y = features - origin, reference - origin
    return PrecisionRecall(
        precision=_share_within(x, y, _squared_radii(y, neighbours)),
        recall=_share_within(y, x, _squared_radii(x, neighbours)),
    )


def _squared_distances(rows: np.ndarray, all_rows: np.ndarray) -> np.ndarray:
    squares = (rows * rows).sum(axis=1)[:, None] + (all_rows * all_rows).sum(axis=1)[None]
    return np.maximum(squares - 2 * (rows @ all_rows.T), 0.0)


def _squared_radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    """(N,) squared distances to the k-th neighbour; the point itself is the 0-th."""
    radii = []
    for start in range(0, len(points), BLOCK):
        distances = _squared_distances(points[start : start + BLOCK], points)
        here = np.arange(len(distances))
        distances[here, start + here] = 0.0  # exactly, whatever was rounded
        radii.append(np.partition(distances, neighbours, axis=1)[:, neighbours])
    return np.concatenate(radii)


def _share_within(points: np.ndarray, centres: np.ndarray, squared_radii: np.ndarray) -> float:
    inside = 0
    for start in range(0, len(points), BLOCK):
        distances = _squared_distances(points[start : start + BLOCK], centres)
        inside += int((distances <= squared_radii[None]).any(axis=1).sum())
    return inside / len(points)
