"""CMMD (2401.09603): the squared mean discrepancy of CLIP embeddings under a Gaussian kernel, in float64.

sigma 10, the biased estimate (a point counts as its own pair), times 1000: all as in the authors' code. The
kernel is made block by block, so that the memory does not grow with the square of the sets.
"""

# N images of a set, M of the reference, D numbers of an embedding of length 1

from __future__ import annotations

import numpy as np

from bench.set_metrics import check_pair
from gentron.errors import UserError

SIGMA = 10.0
SCALE = 1000.0
BLOCK = 2048  # rows and columns of the kernel at a time


def unit_length(embeddings: np.ndarray, *, what: str = "the images") -> np.ndarray:
    """(N, D) -> the same directions with length 1, float64; UserError for one of length 0."""
    wide = embeddings.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not lengths.all():
        raise UserError(f"embeddings of {what} must not be 0: row {int(np.argmin(lengths))} is")
    return wide / lengths


def cmmd(embeddings: np.ndarray, reference: np.ndarray) -> float:
    """embeddings: (N, D).   reference: (M, D).   Both of any length; they are normalised here."""
    check_pair(embeddings, reference, least=1)
    x, y = unit_length(embeddings), unit_length(reference, what="the reference")
    return SCALE * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


def mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of exp(-|a - b|² / (2 sigma²)) over all pairs, summed in a fixed order."""
    x_squares, y_squares = (x * x).sum(axis=1), (y * y).sum(axis=1)
    total = 0.0
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            rows, columns = slice(i, i + BLOCK), slice(j, j + BLOCK)
            distances = x_squares[rows, None] + y_squares[None, columns] - 2 * (x[rows] @ y[columns].T)
            total += float(np.exp(distances / (-2 * SIGMA**2)).sum())
    return total / (len(x) * len(y))
