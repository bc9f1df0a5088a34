"""The Fréchet distance of two sets of features, as between Gaussians, in float64.

d² = |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), S unbiased (divided by N - 1); 1706.08500, Eq. 6.

The last trace is a nuclear norm. With any F such that S = F F^T it is |F1^T F2|_*, the sum of the singular
values, because (S1 S2) and (F1^T F2)(F1^T F2)^T share their eigenvalues. So no square root of a matrix is
ever taken, nothing is complex, and F may be what is cheap:
    N < D    F = centred features^T / sqrt(N - 1): the matrix is as small as N x N
    N >= D   F = the Cholesky factor of S, kept with the reference, which many sets are compared with
Libraries take the square root or the eigenvalues of S1 S2, unsymmetric and D x D, at many times the work.
"""

# N images of a set, D numbers of a feature, R columns of a factor (D, or fewer for a singular covariance)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg.blas import get_blas_funcs

from bench.set_metrics import check_features
from gentron.errors import UserError

BLOCK = 4096  # rows in float64 at a time
EPS = float(np.finfo(np.float64).eps)
_DTRMM: Any = get_blas_funcs("trmm", dtype=np.float64)  # triangular times general
TOLERANCE = 1e-8  # of a nuclear norm, relative, as a bound that is far above the error itself


@dataclass(frozen=True, eq=False)
class Factor:
    """F (D, R) with covariance = F F^T; is_triangular: lower, so that products cost half."""

    matrix: np.ndarray
    is_triangular: bool

    def after(self, left: np.ndarray) -> np.ndarray:
        """left (K, D) @ F."""
        if not self.is_triangular:
            return left @ self.matrix
        return _DTRMM(1.0, self.matrix, np.asfortranarray(left), side=1, lower=1)

    def transposed_before(self, right: np.ndarray) -> np.ndarray:
        """F^T @ right (D, K)."""
        if not self.is_triangular:
            return self.matrix.T @ right
        return _DTRMM(1.0, self.matrix, np.asfortranarray(right), side=0, lower=1, trans_a=1)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) and unbiased covariance (D, D) of N features, float64."""

    mean: np.ndarray
    covariance: np.ndarray
    num_images: int

    @cached_property
    def factor(self) -> Factor:
        """Made once and kept: a reference is compared with many sets."""
        try:
            return Factor(scipy.linalg.cholesky(self.covariance, lower=True, check_finite=False), True)
        except scipy.linalg.LinAlgError:  # singular: N <= D, or a feature that never changes
            values, vectors = scipy.linalg.eigh(self.covariance, check_finite=False)
            kept = values > len(values) * EPS * max(values[-1], 0.0)
            return Factor(vectors[:, kept] * np.sqrt(values[kept]), False)


def moments(features: np.ndarray, *, what: str = "the images") -> Moments:
    """features: (N, D), N >= 2, any float. Summed in float64, block by block, in a fixed order."""
    check_features(features, what=what)
    mean = features.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((len(mean), len(mean)))
    for start in range(0, len(features), BLOCK):
        centred = features[start : start + BLOCK] - mean
        scatter += centred.T @ centred
    return Moments(mean, scatter / (len(features) - 1), len(features))


def checked_moments(mean: np.ndarray, covariance: np.ndarray, num_images: int, *, what: str) -> Moments:
    """Moments from elsewhere; UserError unless they are finite, symmetric and could be some set's."""
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{what}: mean and covariance must be (D,) and (D, D), got {mean.shape} {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{what}: mean and covariance must be finite, got NaN or infinity")
    if num_images < 2:
        raise UserError(f"{what}: must be of at least 2 images, got {num_images}")
    scale = float(np.abs(covariance).max(initial=0.0))
    if (
        float(np.abs(covariance - covariance.T).max(initial=0.0)) > 1e-6 * scale
        or (np.diag(covariance) < 0).any()
    ):
        raise UserError(f"{what}: the covariance must be symmetric with a diagonal >= 0")
    return Moments(mean.astype(np.float64), covariance.astype(np.float64), num_images)


def frechet_distance(features: np.ndarray | Moments, reference: np.ndarray | Moments) -> float:
    """d², >= 0, of two sets given by their features (N, D) or by their moments.

    A set of fewer images than numbers is best given by its features. UserError for features that are not
    finite, naming the rows, for fewer than 2 images, and where D differs.
    """
    sides = _side(features, what="the images"), _side(reference, what="the reference")
    if sides[0].mean.shape != sides[1].mean.shape:
        wanted, got = len(sides[1].mean), len(sides[0].mean)
        raise UserError(f"features must have as many numbers as the reference's ({wanted}), got {got}")
    difference = sides[0].mean - sides[1].mean
    traces = sides[0].trace + sides[1].trace
    return max(float(difference @ difference + traces - 2 * _root_trace(*sides)), 0.0)


# ---- the trace of the root -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Wide:
    """A set with N <= D, by rows: covariance = rows^T rows, rows (N - 1, D)."""

    mean: np.ndarray
    rows: np.ndarray

    @property
    def trace(self) -> float:
        return float(np.vdot(self.rows, self.rows))


@dataclass(frozen=True, eq=False)
class _Tall:
    """A set with N > D, or one that is known by its moments alone."""

    moments: Moments

    @property
    def mean(self) -> np.ndarray:
        return self.moments.mean

    @property
    def trace(self) -> float:
        return float(np.trace(self.moments.covariance))


def _side(given: np.ndarray | Moments, *, what: str) -> _Wide | _Tall:
    if isinstance(given, Moments):
        return _Tall(given)
    check_features(given, what=what)
    if len(given) > given.shape[1]:
        return _Tall(moments(given, what=what))
    mean = given.mean(axis=0, dtype=np.float64)
    return _Wide(mean, _scatter_rows(given, mean))


def _scatter_rows(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(N - 1, D) rows whose Gram matrix is the covariance: one row less than the centred features have.

    The reflection that takes (1, ..., 1) / sqrt(N) to the first axis, applied from the left, centres and
    turns one row to zero. Without it the matrix has full rank in general, which the fast way below needs.
    """
    root = np.sqrt(len(features))
    shift = (root * mean - features[0].astype(np.float64)) / (root - 1)
    return (features[1:] - shift) / np.sqrt(len(features) - 1)


def _root_trace(a: _Wide | _Tall, b: _Wide | _Tall) -> float:
    """tr (S1 S2)^(1/2)."""
    if isinstance(a, _Wide) and isinstance(b, _Wide):
        return nuclear_norm(a.rows @ b.rows.T)
    if isinstance(a, _Wide):
        assert isinstance(b, _Tall)
        return nuclear_norm(b.moments.factor.after(a.rows))
    if isinstance(b, _Wide):
        return nuclear_norm(a.moments.factor.after(b.rows))
    # F^T S F needs one factor only: the reference's, which is kept from one set to the next. More digits
    # than its eigenvalues have are not to be had: the covariances lost them when they were summed
    factor = b.moments.factor
    return _sum_of_roots(factor.transposed_before(factor.after(a.moments.covariance.T)))[0]


def nuclear_norm(matrix: np.ndarray) -> float:
    """The sum of singular values, to about 1e-10 of itself."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    norm, error = _sum_of_roots(wide @ wide.T)
    if error > TOLERANCE * norm:
        # squaring has cost too many digits; the singular values themselves have them, at three times the work
        return float(np.linalg.svd(matrix, compute_uv=False).sum())
    return norm


def _sum_of_roots(gram: np.ndarray) -> tuple[float, float]:
    """The sum of the roots of a positive semidefinite matrix's eigenvalues, and a bound of its error.

    Of the matrix only the lower triangle is read.

    An eigenvalue is known to about eps times the largest one, so its root to that over twice the root:
    nothing for the large ones, all digits for those below 1e-8 of the largest root.
    """
    values = scipy.linalg.eigvalsh(gram, driver="evd", check_finite=False)
    roots = np.sqrt(np.maximum(values, 0.0))
    total, unsure = roots.sum(), EPS * max(float(values[-1]), 0.0) if len(values) else 0.0
    if total == 0.0:
        return 0.0, 0.0
    with np.errstate(divide="ignore"):
        error = np.minimum(unsure / (2 * roots), np.sqrt(unsure)).sum()
    return float(total), float(error)
