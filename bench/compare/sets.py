"""Set metrics of two results: their difference, by resampling where both kept their features.

A jackknife over groups of images, left out of both sides at once: image k of the candidate is of the prompt
and seed of image k of the baseline, so what they share cancels. A bootstrap would repeat images, which
shrinks covariances and biases every Fréchet distance upwards.
"""

# N images of a set, G groups

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from bench.compare.effects import Effect, higher_is_better
from bench.results.evidence import Evidence
from bench.results.record import SetMetric
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.set_metrics.reference import FeatureSet, ImageSet

GROUPS = 20  # refused 3 to 5 % of differences that are none, at N = 100 and 200 in 16 and 64 numbers
LARGEST_KERNEL = 5000  # images of which every pair is looked at
KERNEL_DISTANCES = ("kid_", "kd_")
RELATIVE = 1e-5  # between the value in a result and the one of its features

OfRows = Callable[[np.ndarray], float]


@dataclass(frozen=True, slots=True)
class Jackknife:
    stderr: float
    p: float
    groups: int


class Unjudged(Exception):
    """Why a set metric has no interval."""


def set_effect(metric: str, baseline: Evidence, candidate: Evidence, references: Sequence[Path]) -> Effect:
    """The effect of a metric that both have; without p and interval, and with the reason, if unknown."""
    before, after = _metric(baseline, metric), _metric(candidate, metric)
    digests = [e.result.system.settings.get("images_sha256") for e in (baseline, candidate)]
    identical = digests[0] is not None and digests[0] == digests[1] and before.value == after.value
    found, note = None, ""
    if not identical:
        try:
            found = _jackknife(baseline, candidate, before, after, references)
        except Unjudged as reason:
            note = f"{reason}: only the difference of the two values is known, it cannot be judged"
    return Effect(
        metric=metric,
        higher_is_better=higher_is_better(metric),
        baseline=before.value,
        candidate=after.value,
        difference=after.value - before.value,
        stderr=found.stderr if found else None,
        sd=None,
        p=1.0 if identical else found.p if found else None,
        num_prompts=0,
        num_images=after.num_images,
        num_differ=0,
        identical=identical,
        note=note,
        differences=None,
        freedom=found.groups - 1 if found else None,
    )


def _metric(evidence: Evidence, name: str) -> SetMetric:
    return next(m for m in evidence.result.set_metrics if m.name == name)


def jackknife(difference: float, of_rows: OfRows, num_images: int, *, block: int = 1) -> Jackknife:
    """stderr² = (G - 1) / G sum (v_g - mean)²; p of Student's t on G - 1 degrees of freedom.

    of_rows: sorted indices -> candidate minus baseline on these images alone.
    block: images of one prompt, which stand side by side and are left out together.
    """
    from bench.set_metrics.resampling import groups

    prompts = num_images // block
    count = min(GROUPS, prompts)
    if count < 5:
        raise Unjudged(f"{prompts} prompts are too few to resample")
    everything = np.arange(num_images)
    values = []
    for part in groups(prompts, count):
        out = (part[:, None] * block + np.arange(block)).ravel()
        values.append(of_rows(np.setdiff1d(everything, out, assume_unique=True)))
    spread = np.array(values) - math.fsum(values) / count
    stderr = math.sqrt((count - 1) / count * float((spread**2).sum()))
    if not stderr:
        raise Unjudged("the difference is the same whatever images are left out")
    p = 2 * float(special.stdtr(count - 1, -abs(difference) / stderr))
    return Jackknife(stderr, p, count)


# ---- features --------------------------------------------------------------------------------------------


def _jackknife(
    baseline: Evidence,
    candidate: Evidence,
    before: SetMetric,
    after: SetMetric,
    references: Sequence[Path],
) -> Jackknife:
    from bench.set_metrics.reference import read_image_set

    sides = [_features(baseline, before), _features(candidate, after)]
    assert after.reference is not None
    against = None
    for path in references:
        found = read_image_set(path)
        if found.reference == after.reference:
            against = found
    if against is None:
        raise Unjudged(f"the reference '{after.reference.id}' was not given with --reference")
    of_features = _statistic(after, sides[0], against)
    arrays = [_whole(side, after) for side in sides]
    if not after.name.startswith(KERNEL_DISTANCES):  # whose value is one of random subsets
        for evidence, array, metric in ((baseline, arrays[0], before), (candidate, arrays[1], after)):
            _check_value(evidence, metric, of_features(array))
    count = after.num_images
    per_prompt = candidate.result.images_per_prompt
    whole = candidate.result.suite == "all" and count % per_prompt == 0
    return jackknife(
        after.value - before.value,
        lambda rows: of_features(arrays[1][rows]) - of_features(arrays[0][rows]),
        count,
        block=per_prompt if whole else 1,
    )


def _features(evidence: Evidence, metric: SetMetric) -> ImageSet:
    """The features that this very result was measured on."""
    from bench.set_metrics.reference import read_image_set

    where = metric.settings.get("features")
    if not where:
        raise Unjudged("the features were not kept (--features FILE)")
    places = [Path(str(where)), evidence.path.parent / Path(str(where)).name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise Unjudged(f"the features in {where} are not on this machine")
    found = read_image_set(path)
    digest = evidence.result.system.settings.get("images_sha256", found.images_sha256)
    if found.num_images != metric.num_images or found.images_sha256 != digest:
        raise Unjudged(f"{path} holds the features of other images")
    return found


def _whole(images: ImageSet, metric: SetMetric) -> np.ndarray:
    features = _set(images, metric).features
    if features is None:
        raise Unjudged(f"'{images.id}' keeps mean and covariance only")
    return features


def _set(images: ImageSet, metric: SetMetric) -> FeatureSet:
    """Of the metric's extractor."""
    for found in images.sets.values():
        record = found.record
        if record.name == metric.settings.get("extractor") and record.mode == metric.settings.get("mode"):
            return found
    raise Unjudged(f"'{images.id}' has no features of {metric.settings.get('extractor')}")


def _statistic(metric: SetMetric, images: ImageSet, reference: ImageSet) -> Callable[[np.ndarray], float]:
    """features (N, D) -> the metric's value against the reference."""
    name = metric.name
    if "infinity" in name:
        raise Unjudged("a value that is extrapolated from random parts of the images cannot be resampled")
    if name.startswith(("fid_", "fd_", "clip_fid")):
        from bench.set_metrics.frechet import frechet_distance

        moments = _set(reference, metric).for_frechet
        return lambda features: frechet_distance(features, moments)
    rows = _whole(reference, metric)
    if max(len(rows), images.num_images) > LARGEST_KERNEL:
        raise Unjudged(f"more than {LARGEST_KERNEL} images are too many to resample pairs of them")
    if name.startswith("cmmd"):
        from bench.set_metrics.cmmd import cmmd

        return lambda features: cmmd(features, rows)
    if name.startswith(("precision_", "recall_")):
        from bench.set_metrics.precision_recall import precision_recall

        which = name.split("_")[0]
        return lambda features: float(getattr(precision_recall(features, rows), which))
    if name.startswith(KERNEL_DISTANCES):
        return lambda features: _kernel_distance(features, rows)
    raise Unjudged(f"nothing here can resample '{name}'")


def _kernel_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """KID of all images at once, without the term of the reference alone, which cancels in a difference."""
    from bench.set_metrics.kid import SCALE, cubic_kernel

    x = features.astype(np.float64)
    kernel = cubic_kernel(x, x)
    within = float(kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))
    return SCALE * (within - 2 * float(cubic_kernel(x, reference.astype(np.float64)).mean()))


def _check_value(evidence: Evidence, metric: SetMetric, found: float) -> None:
    if abs(found - metric.value) > RELATIVE * max(1.0, abs(metric.value)):
        raise UserError(
            f"{evidence.path} gives {metric.name} as {metric.value:.6g}, its features give {found:.6g}: one"
            " of them was changed by hand or is of another run; restore both or measure again"
        )
