"""The job of `gentron-bench fid`: both sides looked at, measured, and the result written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.jobs.fid_sources import FLOOR_SEED, IMAGE_SET, Measured, shapes_side
from bench.results.record import Counts, Result, SetMetric, provenance, write_result
from bench.scorers.score import Missing
from bench.set_metrics.features.extract import Bad
from bench.set_metrics.fid import small_n_warning
from bench.set_metrics.measure import (
    Job,
    Looked,
    Options,
    Plan,
    Side,
    check_sizes,
    describe_bad,
    labels_kept_whole,
    look,
    make_plan,
    measure,
)
from bench.set_metrics.reference import write_image_set
from bench.sharding import Shard
from bench.stages import Stage
from bench.weights.files import RANDOM_NOTE
from gentron.atomic import check_writable
from gentron.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things go and computing is done.

    cache: features by image hash.   keep: file for the images' features; save: for the reference's.
    """

    out: Path
    cache: Path
    device: str
    models: Path | None = None
    keep: Path | None = None
    save: Path | None = None


@dataclass(frozen=True)
class Done:
    """floor: what a second drawing of the shapes world is from the first, by metric."""

    result: Result
    folder: Path
    notes: list[str] = field(default_factory=list)
    floor: dict[str, float] = field(default_factory=dict)


def run(
    measured: Measured,
    reference: Side,
    jobs: Sequence[Job],
    options: Options,
    *,
    places: Places,
    stage: Stage,
    shard: Shard,
) -> Done | None:
    """Measure a set against a reference; None in all processes but the first.

    Whatever can be known to fail is said before the first picture is made or read.
    """
    check_sizes(jobs, measured.side.num_images, reference.num_images, options)
    _check_places(places)
    plan = make_plan(jobs, (measured.side, reference), device=places.device, models=places.models)
    floor = None
    if reference.id.startswith("shapes world"):
        floor = shapes_side(measured, seed=FLOOR_SEED)

    def see(side: Side, name: str) -> Looked | None:
        return look(side, plan, cache=places.cache, device=places.device, stage=stage, shard=shard, name=name)

    against, seen = see(reference, "reference"), see(measured.side, "images")
    again = None if floor is None else see(floor, "floor")
    if against is None or seen is None:
        return None
    for bad, what, count in (
        (against.bad, "reference images", reference.num_images),
        (seen.bad, "images", measured.side.num_images),
    ):
        if bad and not options.allow_missing:
            raise UserError(describe_bad(bad, count, what=what))
    check_sizes(plan.jobs, seen.image_set.num_images, against.image_set.num_images, options)
    with stage("metrics", len(plan.jobs) * (1 if again is None else 2)) as advance:
        metrics = measure(plan, seen.image_set, against.image_set, options, advance=advance)
        quick = replace(options, intervals=False)
        below = (
            measure(plan, again.image_set, against.image_set, quick, advance=advance)
            if again is not None
            else []
        )
    _keep(plan, seen, against, places)
    if places.keep is not None:
        metrics = [replace(m, settings={**m.settings, "features": places.keep.as_posix()}) for m in metrics]
    result = _result(measured, plan, seen, metrics)
    notes = _notes(plan, against, reference, metrics)
    folder = write_result(places.out, result, [], [])
    return Done(result, folder, notes, {metric.name: metric.value for metric in below})


def save_reference(
    reference: Side,
    jobs: Sequence[Job],
    options: Options,
    *,
    places: Places,
    stage: Stage,
    shard: Shard,
) -> Looked | None:
    """Only look at the reference and write its file; None in all processes but the first."""
    assert places.save is not None
    _check_places(places)
    plan = make_plan(jobs, (reference,), device=places.device, models=places.models)
    seen = look(
        reference, plan, cache=places.cache, device=places.device, stage=stage, shard=shard, name="reference"
    )
    if seen is not None:
        if seen.bad and not options.allow_missing:
            raise UserError(describe_bad(seen.bad, reference.num_images, what="reference images"))
        write_image_set(places.save, seen.image_set, whole=labels_kept_whole(plan.jobs))
    return seen


def _check_places(places: Places) -> None:
    """Before an hour of work, not after it."""
    for path in (places.keep, places.save):
        if path is not None:
            if path.suffix != ".npz":
                raise ValueError(f"'{path}' must end in .npz")
            check_writable(path)
    for folder in (places.out, places.cache):
        check_writable(folder / "any")


def _keep(plan: Plan, seen: Looked, against: Looked, places: Places) -> None:
    if places.keep is not None:
        write_image_set(places.keep, seen.image_set, whole=seen.image_set.sets)
    if places.save is not None:
        write_image_set(places.save, against.image_set, whole=labels_kept_whole(plan.jobs))


def _result(measured: Measured, plan: Plan, seen: Looked, metrics: list[SetMetric]) -> Result:
    system = measured.system
    if measured.protocol == IMAGE_SET:  # elsewhere prompts and seeds say which images
        digest = {"images_sha256": seen.image_set.images_sha256}
        system = replace(system, settings={**system.settings, **digest})
    return Result(
        protocol=measured.protocol,
        protocol_sha256=measured.protocol_sha256,
        editions=measured.editions,
        suite=measured.suite,
        seed=measured.seed,
        images_per_prompt=measured.images_per_prompt,
        limit=None,
        system=system,
        counts=Counts(
            expected=measured.side.num_images,
            scored=seen.image_set.num_images,
            missing=len(seen.bad),
        ),
        missing=[_missing(bad) for bad in seen.bad],
        skipped=plan.skipped,
        metrics=[],
        set_metrics=metrics,
        provenance=provenance(device=measured.device, images=measured.folder),
    )


def _missing(bad: Bad) -> Missing:
    picture = bad.picture
    return Missing(prompt_id=picture.prompt_id, sample=picture.sample, file=picture.name, reason=bad.reason)


def _notes(plan: Plan, against: Looked, reference: Side, metrics: Sequence[SetMetric]) -> list[str]:
    notes = []
    if any(record.random_weights for record in plan.records.values()):
        notes.append(RANDOM_NOTE)
    if metrics:
        warning = small_n_warning(metrics[0].num_images, against.image_set.num_images)
        notes += [warning] if warning else []
    if against.bad:
        notes.append(f"{len(against.bad)} of {reference.num_images} reference images cannot be used")
        notes += [f"  {bad.picture.name}: {bad.reason}" for bad in against.bad]
    return notes
