"""`gentron-bench video`: motion, flicker and consistency of clips, and distances between sets of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.options import AllowMissing, Device, Models, Out, Work
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.jobs.video import Done

FLOWS = ("auto", "raft", "dis")
FVD_MODES = ("tf", "stylegan-v")
PLAIN = ("temporal_flickering", "neighbour_ssim", "neighbour_psnr")
OF_FLOW = ("flow_magnitude", "warping_error", "static_flicker")
OF_CLIP = ("clip_frames", "clip_consistency", "clip_consistency_first")


def video(
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clips: video files or folders of frames, prompts in .txt files or a manifest.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"From {', '.join((*PLAIN, *OF_FLOW, *OF_CLIP))}. Default: all.", show_default=False
        ),
    ] = None,
    flow: Annotated[
        str,
        typer.Option(
            help="Optical flow, a part of the names of what is measured with it: raft, dis (OpenCV's, without"
            " weights), or auto: RAFT where its weights are, else DIS."
        ),
    ] = "auto",
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of clips to compare the set with.", show_default=False),
    ] = None,
    set_metrics: Annotated[
        str,
        typer.Option(
            help="With a reference: fvd, and of all frames as pictures what `fid` knows: fid, kid, clip-fid,"
            " fd-dinov2, cmmd, fd-mini, ..."
        ),
    ] = "fvd,fd-mini",
    fvd_mode: Annotated[
        str, typer.Option(help=f"Resize before I3D, a part of FVD's name: {', '.join(FVD_MODES)}.")
    ] = "tf",
    fps: Annotated[
        float | None, typer.Option(help="Take frames at this rate. Default: each file's own.")
    ] = None,
    num_frames: Annotated[int | None, typer.Option(help="The first so many frames. Default: all.")] = None,
    models: Models = None,
    out: Out = Path("results"),
    work: Work = Path("runs/bench"),
    device: Device = "auto",
    allow_missing: AllowMissing = False,
) -> None:
    """Measure clips: temporal flickering, SSIM and PSNR of neighbouring frames, optical flow, warping error,
    CLIP scores and consistency, FVD.

    The same command goes on where a killed run stopped. Under torchrun every process does its share.
    """
    if flow not in FLOWS:
        raise ValueError(f"unknown flow '{flow}'; known: {', '.join(FLOWS)}")
    if fvd_mode not in FVD_MODES:
        raise ValueError(f"unknown fvd_mode '{fvd_mode}'; known: {', '.join(FVD_MODES)}")
    if videos is None:
        raise UserError("give clips with --videos DIR")

    from bench.jobs.video import Asked, Places, folder_set, run
    from bench.set_metrics.measure import CLIP_METRICS, METRICS, jobs
    from bench.sharding import Shard
    from bench.systems.clips import Reading, find_clips

    reading = Reading(fps=fps, num_frames=num_frames)
    measures = chosen_measures(metrics, flow, models)
    words = [word.strip() for word in set_metrics.split(",") if word.strip()]
    jobs(words, ("clean",), known=METRICS | CLIP_METRICS)  # an unknown name is said before anything is read
    asked = Asked(
        measures=measures,
        frame_jobs=jobs([word for word in words if word not in CLIP_METRICS], ("clean",)),
        clip_jobs=jobs([word for word in words if word in CLIP_METRICS], (fvd_mode,), known=CLIP_METRICS),
        reading=reading,
        allow_missing=allow_missing,
    )
    against = None if reference is None else find_clips(reference)
    measured = folder_set(videos, work=work)

    from bench.commands.compbench import scoring_device
    from bench.commands.progress import stage

    shard = Shard.from_environment()
    places = Places(out=out, work=work, device=scoring_device(shard.device(device)), models=models)
    done = run(measured, against, asked, places=places, stage=stage, shard=shard)
    shard.leave()
    if done is not None:
        _show(done)


def chosen_measures(metrics: str | None, flow: str, models: Path | None) -> list[str]:
    """Names of scorers: those of optical flow with the flow behind.

    `auto` is RAFT where its weights are. Where they are not, it is DIS, and RAFT's are listed as skipped.
    """
    from bench.weights import MissingWeights, locate

    flows = [flow]
    if flow == "auto":
        try:
            locate("raft-large", models)
            flows = ["raft"]
        except MissingWeights:
            flows = ["dis", "raft"]
    known = (*PLAIN, *OF_FLOW, *OF_CLIP)
    words = [word.strip() for word in metrics.split(",")] if metrics else list(known)
    chosen = []
    for word in words:
        if word not in known:
            raise ValueError(f"unknown metric '{word}'; known: {', '.join(known)}")
        chosen += [f"{word}_{each}" for each in flows] if word in OF_FLOW else [word]
    return chosen


def _show(done: Done) -> None:
    from rich.markup import escape
    from rich.table import Table

    from bench.commands.progress import wide_console
    from bench.scorers.video import measure

    result = done.result
    console = wide_console()
    table = Table(title=escape(f"{result.system.name} · {result.protocol}"), title_justify="left")
    columns: tuple[tuple[str, dict[str, Any]], ...] = (
        ("metric", {"no_wrap": True}),
        ("mean", {"justify": "right"}),
        ("95 %", {"justify": "right", "no_wrap": True}),
        ("clips", {"justify": "right"}),
        ("better", {}),
        ("what", {"overflow": "fold"}),
    )
    for name, options in columns:
        table.add_column(name, **options)
    arrows = {True: "high", False: "low", None: "-"}
    for each in result.metrics:
        about, value = measure(each.category), each.score
        between = "" if value.interval is None else " to ".join(map(_number, value.interval))
        better = arrows[about.higher_is_better]
        table.add_row(
            each.category,
            _number(value.mean),
            between,
            str(value.num_images),
            better,
            f"{about.words}, {about.unit}",
        )
    for metric in result.set_metrics:
        between = "" if metric.interval is None else " to ".join(map(_number, metric.interval))
        against = metric.reference
        where = "" if against is None else f"against {against.num_images} of {against.id}"
        table.add_row(metric.name, _number(metric.value), between, str(metric.num_images), "low", where)
    console.print(table)
    skipped: dict[str, list[str]] = {}
    for each in result.skipped:
        skipped.setdefault(each.reason, []).append(each.metric)
    lines = [f"skipped: {', '.join(names)}: {reason}" for reason, names in skipped.items()]
    if result.missing:
        lines.append(
            f"{result.counts.missing} of {result.counts.expected} clips missing: over survivors only"
        )
        lines += [f"  {each.file}: {each.reason}" for each in result.missing]
    for line in [*done.notes, *lines]:
        console.print(line, style="dim", markup=False, soft_wrap=True)
    console.print(f"result: {done.folder / 'result.json'}", markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
