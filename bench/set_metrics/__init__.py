"""Metrics of sets of images, from their features: one family a file. numpy and scipy only; nothing here knows
what an image is, which network made the features, or how they were resized."""

# N images of a set, M of the reference, D numbers of a feature

from __future__ import annotations

import numpy as np

from gentron.errors import UserError

SHOWN = 5  # rows named in an error


def check_features(features: np.ndarray, *, what: str, least: int = 2) -> np.ndarray:
    """The features as they are, once they are known to be (N, D), N >= least, and all finite.

    what: the set, in words.   Raises UserError that names the first bad rows.
    """
    array = np.asarray(features)
    if array.ndim != 2 or not array.shape[1] or not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"features of {what} must be floats of shape (images, numbers), got {array.dtype} {array.shape}"
        )
    if len(array) < least:
        raise UserError(f"{what} must hold at least {least} images, got {len(array)}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        rows = ", ".join(map(str, bad[:SHOWN])) + (
            f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        )
        raise UserError(f"features of {what} are NaN or infinite in {len(bad)} of {len(array)} rows: {rows}")
    return array


def check_pair(features: np.ndarray, reference: np.ndarray, *, least: int = 2) -> None:
    """Both sets as `check_features` wants them, and of the same D."""
    check_features(features, what="the images", least=least)
    check_features(reference, what="the reference", least=least)
    if features.shape[1] != reference.shape[1]:
        raise UserError(
            f"features must have as many numbers as the reference's ({reference.shape[1]}),"
            f" got {features.shape[1]}"
        )
