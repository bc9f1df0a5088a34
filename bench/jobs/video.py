"""The job of `gentron-bench video`: clips made or found, a number a clip by every measure, distances of sets.

Under torchrun each process makes and scores its share of the clips; the first one gathers and writes. The
files are the same, byte for byte, for any number of processes and wherever a run was killed and gone on with.
"""

# F frames of a clip

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.jobs.clip_source import ClipSource, draw_clips
from bench.prompts import Prompt
from bench.results.aggregate import CategoryMetrics, clustered_mean
from bench.results.record import (
    Counts,
    Result,
    SetMetric,
    Skipped,
    SystemRecord,
    measures_csv,
    provenance,
    system_record,
    write_with_scores,
)
from bench.scorers import Context
from bench.scorers.score import SCORES, Missing, ScoreRow
from bench.scorers.video import Built, build_clip_scorers
from bench.scorers.video.score import gather_clips, keep_rows, score_clips
from bench.set_metrics import fid, fvd
from bench.set_metrics.clip_sets import all_frames, clips_digest, fewest_frames, whole_clips
from bench.set_metrics.features.i3d import NUM_FRAMES
from bench.set_metrics.measure import Job, Looked, Options, Plan, Side, describe_bad, look, make_plan, measure
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import System, safe_name
from bench.systems.clips import Clip, Reading, find_clips
from bench.weights.files import RANDOM_NOTE
from gentron.atomic import check_writable
from gentron.config import to_dict
from gentron.errors import UserError
from gentron.hashing import sha256

VIDEO_SET = "video-set"  # the protocol's name where there are no prompts
VIDEO_SET_WORDS = "video-set: the clips of a folder, all of them, each with its prompt where one is known"


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Clips to measure and what a result says about them.

    clips: gives them when it is time, for some are yet to be made; in every process.   folder: of their rows.
    """

    clips: Callable[[], Sequence[Clip]]
    num_clips: int
    folder: Path
    protocol: str
    protocol_sha256: str
    editions: dict[str, str] = field(default_factory=dict)
    suite: str = "all"
    seed: int = 0
    clips_per_prompt: int = 1
    limit: int | None = None
    system: SystemRecord
    device: str = "none"
    made_in: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured.

    measures: names of clip scorers.   frame_jobs, clip_jobs: set metrics over all frames, and over clips.
    """

    measures: Sequence[str]
    frame_jobs: Sequence[Job] = ()
    clip_jobs: Sequence[Job] = ()
    reading: Reading = Reading()
    allow_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things go and computing is done.   work: rows and features."""

    out: Path
    work: Path
    device: str
    models: Path | None = None


@dataclass(frozen=True)
class Done:
    result: Result
    folder: Path
    notes: list[str] = field(default_factory=list)


def folder_set(folder: Path, *, work: Path) -> VideoSet:
    """Clips made elsewhere."""
    clips = find_clips(folder)
    name = safe_name(folder.resolve().name)
    return VideoSet(
        clips=lambda: clips,
        num_clips=len(clips),
        folder=work / VIDEO_SET / f"{name}-{clips_digest(clips)}",
        protocol=VIDEO_SET,
        protocol_sha256=sha256(VIDEO_SET_WORDS),
        clips_per_prompt=max(clip.sample for clip in clips) + 1,
        system=SystemRecord(
            kind="folder", name=name, weights_sha256=None, untrained=False, settings={"folder": name}
        ),
    )


def system_set(system: System, source: ClipSource, *, stage: Stage, shard: Shard) -> VideoSet:
    """Clips that a system draws, or drew before with the same settings."""
    folder = source.folder(system.info)
    return VideoSet(
        clips=lambda: draw_clips(system, source, stage, shard),
        num_clips=len(source.wanted),
        folder=folder,
        protocol=source.protocol,
        protocol_sha256=source.protocol_sha256,
        suite=source.suite,
        seed=source.seed,
        clips_per_prompt=source.clips_per_prompt,
        limit=source.limit,
        system=system_record(system.info),
        device=system.info.device,
        made_in=folder,
    )


def run(
    measured: VideoSet,
    reference: Sequence[Clip] | None,
    asked: Asked,
    *,
    places: Places,
    stage: Stage,
    shard: Shard,
) -> Done | None:
    """Measure clips and write the result; None in all processes but the first.

    reference: clips that sets are compared with.
    Whatever can be known to fail is said before the first clip is made or read.
    """
    for folder in (places.out, places.work):
        check_writable(folder / "any")
    built = build_clip_scorers(asked.measures, Context(device=places.device, models=places.models))
    sets = ClipSets(asked, places, reference)
    if not built.scorers and not sets.can_measure:
        raise UserError(f"nothing can be measured: {'; '.join(_reasons(built, sets))}")
    clips = measured.clips()
    with stage("scores", len(shard.mine(clips))) as advance:
        score_clips(
            built.scorers,
            shard.mine(clips),
            measured.folder,
            reading=asked.reading,
            advance=advance,
            file_name=shard.file_name(SCORES),
        )
    shard.barrier()
    set_metrics = sets.measure(clips, measured.system.name, stage=stage, shard=shard)
    if not shard.is_first:
        return None
    found = gather_clips(built.scorers, clips, measured.folder, reading=asked.reading)
    keep_rows(measured.folder, found.rows)
    if found.missing and not asked.allow_missing:
        raise UserError(_describe_missing(found.missing, len(clips)))
    if len(found.missing) == len(clips):
        raise UserError(f"nothing to measure: all {len(clips)} clips are missing or cannot be read")
    result = _result(measured, asked, clips, built, found.rows, found.missing, set_metrics, sets.skipped)
    prompts = {clip.prompt_id: _prompt(clip) for clip in clips}
    scores = measures_csv(list(prompts.values()), {name: rows for name, rows in found.rows.items() if rows})
    notes = [RANDOM_NOTE] if result.is_rehearsal else []
    return Done(result, write_with_scores(places.out, result, scores), notes + sets.notes)


def _reasons(built: Built, sets: ClipSets) -> list[str]:
    return list(dict.fromkeys([*built.skipped.values(), *(each.reason for each in sets.skipped)]))


def _prompt(clip: Clip) -> Prompt:
    return Prompt(id=clip.prompt_id, category="", text=clip.text or "")


def _describe_missing(missing: Sequence[Missing], expected: int, *, shown: int = 5) -> str:
    names = ", ".join(f"{each.file} ({each.reason})" for each in missing[:shown])
    more = f" and {len(missing) - shown} more" if len(missing) > shown else ""
    return (
        f"{len(missing)} of {expected} clips cannot be measured: {names}{more};"
        " repair them, or measure the rest with --allow-missing"
    )


def _result(
    measured: VideoSet,
    asked: Asked,
    clips: Sequence[Clip],
    built: Built,
    rows: dict[str, list[ScoreRow]],
    missing: list[Missing],
    set_metrics: list[SetMetric],
    skipped: list[Skipped],
) -> Result:
    texts = [
        Skipped(metric=name, reason="no clip has a prompt: put a .txt beside each, or a manifest.jsonl")
        for name, group in rows.items()
        if not group and len(missing) < len(clips)
    ]
    reading = {key: value for key, value in to_dict(asked.reading).items() if value is not None}
    system = replace(measured.system, settings={**measured.system.settings, **reading})
    if measured.protocol == VIDEO_SET:  # elsewhere prompts and seeds say which clips
        seen = sorted({row.sha256 for group in rows.values() for row in group})
        digest = sha256("".join(seen))
        system = replace(system, settings={**system.settings, "clips_sha256": digest})
    scored = {name: group for name, group in rows.items() if group}
    return Result(
        protocol=measured.protocol,
        protocol_sha256=measured.protocol_sha256,
        editions=measured.editions,
        suite=measured.suite,
        seed=measured.seed,
        images_per_prompt=measured.clips_per_prompt,
        limit=measured.limit,
        system=system,
        scorers={name: built.scorers[name].record for name in scored},
        counts=Counts(
            expected=len(clips), scored=len(clips) - len(missing) if scored else 0, missing=len(missing)
        ),
        missing=missing,
        skipped=[*(Skipped(metric=n, reason=r) for n, r in built.skipped.items()), *texts, *skipped],
        metrics=[measure_metrics(name, group) for name, group in scored.items()],
        set_metrics=set_metrics,
        provenance=provenance(device=measured.device, images=measured.made_in),
    )


def measure_metrics(name: str, rows: Sequence[ScoreRow]) -> CategoryMetrics:
    """A measure over its clips, with the means of its parts; prompts are the clusters."""
    parts: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        for part, value in row.parts.items():
            if math.isfinite(value):
                parts[part].append((row.prompt_id, value))
    return CategoryMetrics(
        category=name,
        scorer=name,
        score=clustered_mean((row.prompt_id, row.score) for row in rows),
        views={part: clustered_mean(values) for part, values in parts.items()},
    )


# ---- distances of sets -----------------------------------------------------------------------------------


class ClipSets:
    """The set metrics that were asked for: of frames as pictures, and of clips as a whole."""

    def __init__(self, asked: Asked, places: Places, reference: Sequence[Clip] | None) -> None:
        self._asked, self._places, self._reference = asked, places, reference
        self.skipped: list[Skipped] = []
        self.notes: list[str] = []
        self._plans: dict[str, Plan] = {}
        for kind, jobs in (("frames", asked.frame_jobs), ("clips", asked.clip_jobs)):
            if jobs and reference is None:
                self._skip(kind, jobs, "no reference: give a folder of clips with --reference")
            elif jobs:
                unread = [Side(id="", num_images=0)]
                plan = make_plan(jobs, unread, device=places.device, models=places.models, may_be_empty=True)
                named = [replace(s, metric=_name(kind, s.metric)) for s in plan.skipped]
                self.skipped += named
                if plan.jobs:
                    self._plans[kind] = plan

    @property
    def can_measure(self) -> bool:
        return bool(self._plans)

    def _skip(self, kind: str, jobs: Sequence[Job], reason: str) -> None:
        self.skipped += [Skipped(metric=_name(kind, n), reason=reason) for job in jobs for n in job.names]

    def measure(self, clips: Sequence[Clip], name: str, *, stage: Stage, shard: Shard) -> list[SetMetric]:
        """Both kinds; empty in all processes but the first."""
        found = []
        for kind, plan in self._plans.items():
            assert self._reference is not None
            if kind == "clips" and (reason := self._too_short(clips)):
                self._skip(kind, plan.jobs, reason)
                continue
            looked = [
                self._look(kind, plan, side, f"{what}, {kind}", stage=stage, shard=shard)
                for what, side in (("reference", ("reference", self._reference)), ("clips", (name, clips)))
            ]
            against, seen = looked
            if against is None or seen is None:
                continue
            found += self._measure(kind, plan, seen, against, stage)
        return found

    def _too_short(self, clips: Sequence[Clip]) -> str | None:
        assert self._reference is not None
        for what, side in (("clips", clips), ("reference clips", self._reference)):
            fewest = fewest_frames(side, self._asked.reading)
            if fewest is not None and fewest < NUM_FRAMES:
                return f"FVD takes {NUM_FRAMES} frames of a clip, and the {what} hold {fewest}"
        return None

    def _look(
        self,
        kind: str,
        plan: Plan,
        named: tuple[str, Sequence[Clip]],
        label: str,
        *,
        stage: Stage,
        shard: Shard,
    ) -> Looked | None:
        id, clips = named
        reading = self._asked.reading
        pictures = (all_frames if kind == "frames" else whole_clips)(clips, reading)
        side = Side(id=id, num_images=len(pictures), pictures=lambda: pictures)
        seen = look(
            side,
            plan,
            cache=self._places.work / "features",
            device=self._places.device,
            stage=stage,
            shard=shard,
            name=label,
        )
        if seen is not None and seen.bad and not self._asked.allow_missing:
            raise UserError(describe_bad(seen.bad, len(pictures), what=f"{kind} of the {id}"))
        return seen

    def _measure(self, kind: str, plan: Plan, seen: Looked, against: Looked, stage: Stage) -> list[SetMetric]:
        # frames of a clip are alike: an interval from leaving a tenth of all frames out would be too narrow
        options = Options(intervals=kind == "clips", allow_missing=self._asked.allow_missing)
        with stage(f"metrics, {kind}", len(plan.jobs)) as advance:
            metrics = measure(plan, seen.image_set, against.image_set, options, advance=advance)
        counts = seen.image_set.num_images, against.image_set.num_images
        warning = (fid if kind == "frames" else fvd).small_n_warning(*counts)
        self.notes += [warning] if warning else []
        of = {"of": "every frame of every clip" if kind == "frames" else "clips"}
        return [
            replace(
                m, name=_name(kind, m.name), settings={**m.settings, **of, **to_dict(self._asked.reading)}
            )
            for m in metrics
        ]


def _name(kind: str, metric: str) -> str:
    """A distance of frames is that of pictures, and says so."""
    return f"{metric}_frames" if kind == "frames" else metric
