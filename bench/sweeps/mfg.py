"""The sweep of `gentron-bench mfg-sweep`: the same prompts and seeds under every lambda_M, and what changes.

lambda_M is motion_guidance_scale and lambda_T guidance_scale of gentron/guidance.py. A cell of the grid is
drawn and scored like any set of clips, into the folder where `gentron-bench motion` with these settings looks
too, so a killed sweep goes on and a wider one draws only what is new. Under torchrun every process does its
share.
"""

# F frames of a clip

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.jobs.clip_source import ClipSource, draw_clips
from bench.jobs.video import Asked, ClipSets, Places
from bench.results.record import Skipped, provenance, system_record
from bench.scorers import Context
from bench.scorers.score import SCORES, ScoreRow
from bench.scorers.video import MEASURES, Built, build_clip_scorers
from bench.scorers.video.score import gather_clips, keep_rows, score_clips
from bench.set_metrics.measure import Job
from bench.sharding import Shard
from bench.stages import Stage
from bench.sweeps.grid import BASE, Cell
from bench.sweeps.table import CellRecord, Column, SweepRecord, cell_values, sweep_folder, write_table
from bench.systems import System, SystemInfo
from bench.systems.clips import Clip, Reading
from gentron.atomic import check_writable

SystemAt = Callable[[Cell], System]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """flow: of the measures.   reference, frame_jobs: for distances of frames as pictures, where given."""

    flow: str
    reference: Sequence[Clip] | None = None
    frame_jobs: Sequence[Job] = ()


# ---- what is told of a cell ------------------------------------------------------------------------------


def columns(*, judged: bool, flow: str) -> list[Column]:
    """Frame quality, text alignment, motion, consistency and flicker: by the judge, or by CLIP and flow."""
    if judged:
        first = [
            _column("frame_quality", "judge_appearance"),
            _column("text_alignment", "judge_caption"),
            _column("motion_correctness", "judge_motion"),
            _column("direction", "judge_motion", "direction", "share whose movers go the right way"),
            _column(
                "motion_magnitude", "judge_motion", "step px", "way of what is asked to move", "px a frame"
            ),
            _column("unevenness", "judge_motion", "unevenness px", "deviation of these ways", "px a frame"),
            _column("consistency", "judge_persistence"),
        ]
    else:
        first = [
            _column("text_alignment", "clip_frames"),
            _column("motion_magnitude", f"flow_magnitude_{flow}"),
            _column("dynamic_degree", f"flow_magnitude_{flow}", "dynamic", "share that VBench calls moving"),
            _column("consistency", "clip_consistency"),
            _column("consistency_first", "clip_consistency_first"),
        ]
    return [
        *first,
        _column("flicker", "temporal_flickering"),
        _column("static_flicker", f"static_flicker_{flow}"),
        _column("warping_error", f"warping_error_{flow}"),
        _column("neighbour_ssim", "neighbour_ssim"),
        *([_column("flow_magnitude", f"flow_magnitude_{flow}")] if judged else []),
    ]


UNDIRECTED = ("motion_magnitude", "flow_magnitude", "dynamic_degree")
LOWER = ("unevenness",)


def _column(
    name: str, measure: str, part: str | None = None, words: str | None = None, unit: str | None = None
) -> Column:
    about = MEASURES[measure]
    better = None if name in UNDIRECTED else False if name in LOWER else about.higher_is_better
    return Column(
        name=name,
        measure=measure,
        part=part,
        words=words or about.words,
        unit=unit or about.unit,
        higher_is_better=better,
    )


def quality_column(record: SweepRecord) -> str | None:
    """What stands for the quality of frames: the judge's appearance, else the CLIP score of frames."""
    return next((name for name in ("frame_quality", "text_alignment") if _measured(record, name)), None)


def motion_columns(record: SweepRecord) -> list[str]:
    """What quality is plotted against."""
    return [name for name in ("motion_magnitude", "motion_correctness") if _measured(record, name)]


def _measured(record: SweepRecord, name: str) -> bool:
    return any(name in cell.values for cell in record.cells)


# ---- running ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swept:
    """clips: of every cell, in the order of the record's."""

    record: SweepRecord
    folder: Path
    clips: list[list[Clip]]


def run(
    grid: Sequence[Cell],
    system_at: SystemAt,
    source: ClipSource,
    options: SweepOptions,
    *,
    places: Places,
    stage: Stage,
    shard: Shard,
) -> Swept | None:
    """Draw and score every cell, lambda_M = 1 first, and write the table; None in all processes but the
    first."""
    for folder in (places.out, places.work):
        check_writable(folder / "any")
    told = columns(judged=source.judged, flow=options.flow)
    names = list(dict.fromkeys(column.measure for column in told))
    context = Context(device=places.device, models=places.models, prompts=tuple(source.prompts))
    built = build_clip_scorers(names, context)
    sets = ClipSets(
        Asked(measures=names, frame_jobs=options.frame_jobs if options.reference else ()),
        places,
        options.reference,
    )
    bases: dict[float, Mapping[str, Sequence[ScoreRow]]] = {}
    records, drawn, info = [], [], None
    for cell in grid:
        system = system_at(cell)
        info = info or system.info
        folder, clips = source.folder(system.info), draw_clips(system, source, _named(stage, cell), shard)
        rows = _score(built, clips, folder, _named(stage, cell), shard)
        distances = sets.measure(clips, system.info.name, stage=_named(stage, cell), shard=shard)
        if rows is None:
            continue
        base = bases.setdefault(cell.guidance_scale, rows)
        assert cell.motion_guidance_scale == BASE or base is not rows, "lambda_M = 1 comes first"
        records.append(
            CellRecord(
                guidance_scale=cell.guidance_scale,
                motion_guidance_scale=cell.motion_guidance_scale,
                branches=num_branches(cell),
                values=cell_values(told, rows, None if base is rows else base),
                set_metrics=distances,
                clips=folder.as_posix(),
            )
        )
        drawn.append(clips)
    if not shard.is_first:
        return None
    assert info is not None, "a grid has a cell"
    by_value = sorted(range(len(records)), key=lambda k: records[k].cell)
    record = _record([records[k] for k in by_value], told, built, sets, source, info)
    folder = sweep_folder(places.out, record)
    write_table(folder, record)
    return Swept(record, folder, [drawn[k] for k in by_value])


def _named(stage: Stage, cell: Cell) -> Stage:
    return lambda name, total: stage(f"{cell.label}: {name}", total)


def _score(
    built: Built, clips: Sequence[Clip], folder: Path, stage: Stage, shard: Shard
) -> dict[str, list[ScoreRow]] | None:
    """Rows by measure; None in all processes but the first."""
    mine = shard.mine(clips)
    with stage("scores", len(mine)) as advance:
        score_clips(
            built.scorers,
            mine,
            folder,
            reading=Reading(),
            advance=advance,
            file_name=shard.file_name(SCORES),
        )
    shard.barrier()
    rows = None
    if shard.is_first:
        found = gather_clips(built.scorers, clips, folder, reading=Reading())
        assert not found.missing, f"clips that were just made: {found.missing[0]}"
        keep_rows(folder, found.rows)
        rows = found.rows
    shard.barrier()
    return rows


def num_branches(cell: Cell) -> int:
    """Evaluations of the model in a denoising step: a branch of weight 0 is not run."""
    from gentron.guidance import motion_free_branches

    return len(motion_free_branches(cell.guidance_scale, cell.motion_guidance_scale))


def _record(
    cells: list[CellRecord],
    told: Sequence[Column],
    built: Built,
    sets: ClipSets,
    source: ClipSource,
    info: SystemInfo,
) -> SweepRecord:
    varied = ("guidance_scale", "motion_guidance_scale")
    kept = {name: value for name, value in info.settings.items() if name not in varied}
    there = {name for cell in cells for name in cell.values}
    skipped = [
        Skipped(metric=column.name, reason=built.skipped[column.measure])
        for column in told
        if column.measure in built.skipped
    ]
    return SweepRecord(
        protocol=source.protocol,
        protocol_sha256=source.protocol_sha256,
        suite=source.suite,
        seed=source.seed,
        clips_per_prompt=source.clips_per_prompt,
        limit=source.limit,
        num_prompts=len(source.prompts),
        system=replace(system_record(info), settings=kept),
        columns=[column for column in told if column.name in there],
        scorers={name: scorer.record for name, scorer in built.scorers.items()},
        cells=cells,
        skipped=[*skipped, *sets.skipped],
        provenance=replace(provenance(device=info.device), images=None),
    )
