"""Metrics of sets of images, from pictures or stored features to a written result.

A metric is a statistic of an extractor's features; a job is a metric under one of Inception's conventions.
Under torchrun each process makes the features of its share of the pictures; the first gathers and measures.
"""

# N images of the set measured, M of the reference, D numbers of a feature

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.results.record import SetMetric, Skipped
from bench.set_metrics.cmmd import cmmd
from bench.set_metrics.features import Extractor, ExtractorRecord, build_extractor
from bench.set_metrics.features.cache import FeatureCache
from bench.set_metrics.features.extract import Bad, CachedExtractor, Extracted, Picture, Prepare, extract
from bench.set_metrics.fid import POINTS as INFINITY_POINTS
from bench.set_metrics.fid import SEED as INFINITY_SEED
from bench.set_metrics.fid import frechet_infinity
from bench.set_metrics.frechet import Moments, frechet_distance
from bench.set_metrics.kid import SEED as KID_SEED
from bench.set_metrics.kid import SUBSET_SIZE, SUBSETS, kid
from bench.set_metrics.precision_recall import NEIGHBOURS, precision_recall
from bench.set_metrics.reference import FeatureSet, ImageSet, hash_of_set, read_image_set
from bench.set_metrics.resampling import GROUPS, jackknife_interval
from bench.sharding import Shard
from bench.stages import Stage
from bench.weights import MissingWeights
from gentron.errors import UserError

DECIMALS = 8  # of a value in a result: what lies beyond depends on the number of threads of the algebra
LEAST_FOR_INTERVAL = 2 * GROUPS  # images


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to measure; seeds are fixed in the statistics' own modules."""

    kid_subset_size: int = SUBSET_SIZE
    intervals: bool = True
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    value: float
    interval: tuple[float, float] | None = None


Statistic = Callable[[FeatureSet, FeatureSet, Options], tuple[Value, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A statistic of an extractor's features.

    names: of its values; {mode} is the convention of Inception or I3D.   words: the statistic, for a reader.
    of_moments: mean and covariance are enough, for the images and for the reference.
    """

    extractor: str
    names: tuple[str, ...]
    words: str
    measure: Statistic
    of_moments: tuple[bool, bool] = (False, False)
    settings: Callable[[Options], dict[str, Any]] = lambda options: {}
    least: Callable[[Options], int] = lambda options: 2
    """Images that either side must hold."""

    @property
    def has_modes(self) -> bool:
        return self.extractor in ("inception", "i3d")


@dataclass(frozen=True, slots=True)
class Job:
    """A metric by its name on the command line; mode is None for extractors that have none."""

    metric: str
    mode: str | None

    @property
    def spec(self) -> Metric:
        return (METRICS | CLIP_METRICS)[self.metric]

    @property
    def label(self) -> str:
        """Of the extractor, as in ExtractorRecord."""
        return self.spec.extractor if self.mode is None else f"{self.spec.extractor}-{self.mode}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name.format(mode=self.mode) for name in self.spec.names)


# ---- the statistics --------------------------------------------------------------------------------------


def _all_features(images: FeatureSet) -> np.ndarray:
    assert images.features is not None
    return images.features


def _interval(
    value: float, images: FeatureSet, of_features: Callable[[np.ndarray], float], options: Options
) -> tuple[float, float] | None:
    features = images.features
    if not options.intervals or features is None or len(features) < LEAST_FOR_INTERVAL:
        return None
    low, high = jackknife_interval(value, lambda rows: of_features(features[rows]), len(features))
    return max(round(low, DECIMALS), 0.0), round(high, DECIMALS)  # of a distance


def _frechet(images: FeatureSet, reference: FeatureSet, options: Options) -> tuple[Value, ...]:
    against: np.ndarray | Moments = reference.for_frechet
    value = frechet_distance(images.for_frechet, against)
    return (Value(value, _interval(value, images, lambda x: frechet_distance(x, against), options)),)


def _frechet_infinity(images: FeatureSet, reference: FeatureSet, options: Options) -> tuple[Value, ...]:
    return (Value(frechet_infinity(_all_features(images), reference.moments).value),)


def _kid(images: FeatureSet, reference: FeatureSet, options: Options) -> tuple[Value, ...]:
    found = kid(
        _all_features(images),
        _all_features(reference),
        subset_size=options.kid_subset_size,
    )
    return (Value(found.mean),)


def _cmmd(images: FeatureSet, reference: FeatureSet, options: Options) -> tuple[Value, ...]:
    features = _all_features(reference)
    value = cmmd(_all_features(images), features)
    return (Value(value, _interval(value, images, lambda x: cmmd(x, features), options)),)


def _precision_recall(images: FeatureSet, reference: FeatureSet, options: Options) -> tuple[Value, ...]:
    found = precision_recall(_all_features(images), _all_features(reference))
    return Value(found.precision), Value(found.recall)


def _kid_settings(options: Options) -> dict[str, Any]:
    return {"subsets": SUBSETS, "subset_size": options.kid_subset_size, "seed": KID_SEED}


FRECHET: dict[str, Any] = {
    "words": "Fréchet distance, float64, unbiased covariances",
    "measure": _frechet,
    "of_moments": (True, True),
}
INFINITY: dict[str, Any] = {
    "words": "Fréchet distance extrapolated to 1/N = 0 through 15 sizes, float64",
    "measure": _frechet_infinity,
    "of_moments": (False, True),
    "settings": lambda options: {"seed": INFINITY_SEED},
    "least": lambda options: 2 * INFINITY_POINTS,
}
KERNEL: dict[str, Any] = {
    "words": "1000 x unbiased MMD², kernel (x.y / D + 1)³, mean of random subsets, float64",
    "measure": _kid,
    "settings": _kid_settings,
    "least": lambda options: options.kid_subset_size,
}
NEIGHBOURHOODS: dict[str, Any] = {
    "words": f"improved precision and recall, k = {NEIGHBOURS}, float64",
    "measure": _precision_recall,
    "least": lambda options: NEIGHBOURS + 1,
}

# name on the command line -> metric. Substitute extractors never make a FID or a KID.
METRICS = {
    "fid": Metric(extractor="inception", names=("fid_{mode}",), **FRECHET),
    "fid-infinity": Metric(extractor="inception", names=("fid_infinity_{mode}",), **INFINITY),
    "kid": Metric(extractor="inception", names=("kid_{mode}",), **KERNEL),
    "pr": Metric(
        extractor="inception",
        names=("precision_inception-{mode}", "recall_inception-{mode}"),
        **NEIGHBOURHOODS,
    ),
    "clip-fid": Metric(extractor="clip-vit-b-32", names=("clip_fid",), **FRECHET),
    "fd-dinov2": Metric(extractor="dinov2-vit-l-14", names=("fd_dinov2",), **FRECHET),
    "cmmd": Metric(
        extractor="clip-vit-l-14-336",
        names=("cmmd",),
        words="1000 x biased MMD², Gaussian kernel of sigma 10 on embeddings of length 1, float64",
        measure=_cmmd,
    ),
    "fd-mini": Metric(extractor="mini-autoencoder", names=("fd_mini-autoencoder",), **FRECHET),
    "fd-infinity-mini": Metric(
        extractor="mini-autoencoder", names=("fd_infinity_mini-autoencoder",), **INFINITY
    ),
    "kd-mini": Metric(extractor="mini-autoencoder", names=("kd_mini-autoencoder",), **KERNEL),
    "pr-mini": Metric(
        extractor="mini-autoencoder",
        names=("precision_mini-autoencoder", "recall_mini-autoencoder"),
        **NEIGHBOURHOODS,
    ),
}

# of sets of clips: a vector a clip
CLIP_METRICS = {"fvd": Metric(extractor="i3d", names=("fvd_{mode}",), **FRECHET)}


def jobs(metrics: Sequence[str], modes: Sequence[str], *, known: Mapping[str, Metric] = METRICS) -> list[Job]:
    """Each metric once, or once a mode where its extractor has modes; ValueError for an unknown name."""
    found = []
    for metric in dict.fromkeys(metrics):
        if metric not in known:
            raise ValueError(f"unknown metric '{metric}'; known: {', '.join(known)}")
        found += [Job(metric, mode) for mode in (modes if known[metric].has_modes else (None,))]
    return found


def check_sizes(jobs: Sequence[Job], num_images: int, num_reference: int, options: Options) -> None:
    """UserError if a set is too small for a metric that was asked for: cheap, before any picture is read."""
    least = min(num_images, num_reference)
    for job in jobs:
        needed = job.spec.least(options)
        if least < needed:
            advice = (
                ": more images, or --kid-subset-size, which makes another metric"
                if job.spec.measure is _kid
                else ""
            )
            raise UserError(
                f"{job.names[0]} needs at least {needed} images on either side, got {num_images} and"
                f" {num_reference} in the reference{advice}"
            )


# ---- the two sides ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Side:
    """Images or reference: pictures to look at, or features that were kept.

    pictures: gives them when it is time, for some are yet to be made; in every process.
    prepared: name of what `prepare` does to every picture before any extractor sees it.
    """

    id: str
    num_images: int
    pictures: Callable[[], Sequence[Picture]] = list
    stored: ImageSet | None = None
    prepared: str = ""
    prepare: Prepare | None = None


def stored_side(path: Path) -> Side:
    """The features in a file."""
    found = read_image_set(path)
    return Side(id=found.id, num_images=found.num_images, stored=found, prepared=found.prepared)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What can be measured here: jobs with their extractors by label, and what is skipped."""

    jobs: list[Job]
    records: dict[str, ExtractorRecord]
    extractors: dict[str, Extractor]
    skipped: list[Skipped] = field(default_factory=list)


def make_plan(
    jobs: Sequence[Job],
    sides: Sequence[Side],
    *,
    device: str,
    models: Path | None,
    may_be_empty: bool = False,
) -> Plan:
    """Build the extractors, but none that only stored features need; UserError if nothing can be measured.

    Stored features of another extractor, mode, weights or preparation are refused here, before any work.
    may_be_empty: there is something else to measure.
    """
    reads_pictures = any(side.stored is None for side in sides)
    possible, skipped = [], []
    records: dict[str, ExtractorRecord] = {}
    extractors: dict[str, Extractor] = {}
    missing: dict[str, MissingWeights] = {}
    for job in jobs:
        if job.label not in records and job.spec.extractor not in missing:
            try:
                if reads_pictures:
                    extractors[job.label] = _build(job, extractors, device=device, models=models)
                    records[job.label] = extractors[job.label].record
                else:
                    records[job.label] = _stored_record(job, sides)
            except MissingWeights as error:
                missing[job.spec.extractor] = error
        if job.spec.extractor in missing:
            reason = str(missing[job.spec.extractor])
            skipped += [Skipped(metric=name, reason=reason) for name in job.names]
        else:
            possible.append(job)
    if not possible and not may_be_empty:
        reasons = "; ".join(dict.fromkeys(each.reason for each in skipped))
        raise UserError(f"nothing can be measured: {reasons}")
    plan = Plan(jobs=possible, records=records, extractors=extractors, skipped=skipped)
    for job in possible:
        for place, side in enumerate(sides):
            if side.stored is not None:
                _of(side.stored, job, plan, prepared=sides[0].prepared, place=place)
    return plan


def _build(job: Job, built: Mapping[str, Extractor], *, device: str, models: Path | None) -> Extractor:
    from bench.set_metrics.features.inception import InceptionExtractor

    for other in built.values():
        if isinstance(other, InceptionExtractor) and other.record.name == job.spec.extractor:
            assert job.mode is not None
            return other.under(job.mode)  # one network in memory, however many conventions
    return build_extractor(job.spec.extractor, mode=job.mode, device=device, models=models)


def _stored_record(job: Job, sides: Sequence[Side]) -> ExtractorRecord:
    for side in sides:
        assert side.stored is not None
        if job.label in side.stored.sets:
            return side.stored.sets[job.label].record
    held = ", ".join(dict.fromkeys(label for s in sides if s.stored for label in s.stored.sets))
    raise UserError(f"the stored features are of {held}; {job.names[0]} needs {job.label}")


def _of(image_set: ImageSet, job: Job, plan: Plan, *, prepared: str, place: int) -> FeatureSet:
    """place: 0 for the images, 1 for the reference."""
    needs_features = not job.spec.of_moments[place]
    return image_set.get(plan.records[job.label], prepared=prepared, needs_features=needs_features)


@dataclass(frozen=True, slots=True)
class Looked:
    """A side once its pictures are features. bad: pictures without; digests: of the files of the others."""

    image_set: ImageSet
    pictures: list[Picture]
    digests: list[str]
    bad: list[Bad]


def look(
    side: Side, plan: Plan, *, cache: Path, device: str, stage: Stage, shard: Shard, name: str
) -> Looked | None:
    """Features of a side, made or found; None in all processes but the first.

    cache: folder of features by image hash.   name: of the stage of progress.
    """
    if side.stored is not None:
        return Looked(side.stored, [], [], []) if shard.is_first else None
    labels = list(plan.extractors)
    cached = [
        CachedExtractor(
            plan.extractors[label],
            FeatureCache(cache, plan.records[label], device=device, prepared=side.prepared, rank=shard.rank),
        )
        for label in labels
    ]

    def make(pictures: Sequence[Picture]) -> Extracted:
        with stage(name, len(pictures)) as advance:
            return extract(pictures, cached, device=device, prepare=side.prepare, advance=advance)

    pictures = side.pictures()
    found = make(shard.mine(pictures))
    shard.barrier()
    if not shard.is_first:
        return None
    if shard.world_size > 1:
        for each in cached:
            each.cache.reload()
        found = make(pictures)  # all there now: this gathers them, and names the bad ones
    sets = {
        label: FeatureSet(plan.records[label], features=each.matrix(found.digests))
        for label, each in zip(labels, cached, strict=True)
    }
    image_set = ImageSet(side.id, len(found.digests), hash_of_set(found.digests), side.prepared, sets)
    return Looked(image_set, found.pictures, found.digests, found.bad)


# ---- measuring -------------------------------------------------------------------------------------------


def measure(
    plan: Plan, images: ImageSet, reference: ImageSet, options: Options, *, advance: Callable[[int], None]
) -> list[SetMetric]:
    """All jobs of a plan."""
    found = []
    for job in plan.jobs:
        x = _of(images, job, plan, prepared=images.prepared, place=0)
        y = _of(reference, job, plan, prepared=images.prepared, place=1)
        values = job.spec.measure(x, y, options)
        for name, value in zip(job.names, values, strict=True):
            found.append(
                SetMetric(
                    name=name,
                    value=round(value.value, DECIMALS),
                    interval=value.interval,
                    num_images=images.num_images,
                    reference=reference.reference,
                    settings=_settings(job, plan.records[job.label], images.prepared, options),
                )
            )
        advance(1)
    return found


def _settings(job: Job, record: ExtractorRecord, prepared: str, options: Options) -> dict[str, Any]:
    return {
        "extractor": record.name,
        "mode": record.mode,
        "layer": record.layer,
        "resize": record.resize,
        "prepared": prepared,
        "dtype": record.dtype,
        "weights": record.weights,
        "random_weights": record.random_weights,
        "version": record.version,
        "statistic": job.spec.words,
        **job.spec.settings(options),
    }


def describe_bad(bad: Sequence[Bad], expected: int, *, what: str, shown: int = 5) -> str:
    """One line with the first few names."""
    names = ", ".join(f"{each.picture.name} ({each.reason})" for each in bad[:shown])
    more = f" and {len(bad) - shown} more" if len(bad) > shown else ""
    return (
        f"{len(bad)} of {expected} {what} cannot be used: {names}{more};"
        " repair them, or measure the rest with --allow-missing"
    )


def labels_kept_whole(jobs: Iterable[Job]) -> set[str]:
    """Extractors whose features some job needs of a reference one by one."""
    return {job.label for job in jobs if not job.spec.of_moments[1]}
