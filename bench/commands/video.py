"""`gentron-bench video`: motion, flicker and consistency of clips, and distances between sets of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.options import AllowMissing, Limit, Models, Out, Work, takes_system_options
from bench.systems import SystemOptions
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.jobs.clip_source import Choice, ClipSource
    from bench.jobs.video import Done
    from bench.systems import ClipShape
    from bench.systems.gentron import GenTronSystem
    from gentron.checkpoint import CheckpointConfig

MINI, MOTION = "mini-t2v", "motion-shapes_v1"
FLOWS = ("auto", "raft", "dis")
FVD_MODES = ("tf", "stylegan-v")
PLAIN = ("temporal_flickering", "neighbour_ssim", "neighbour_psnr")
OF_FLOW = ("flow_magnitude", "warping_error", "static_flicker")
OF_CLIP = ("clip_frames", "clip_consistency", "clip_consistency_first")


@takes_system_options(without=("image_size",))
def video(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="mini-t2v, xl2-t2v, g2-t2v or the checkpoint folder of a video model. Default: mini-t2v.",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a model: a folder of video files or folders of frames, with prompts in .txt"
            " files or a manifest.",
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
    protocol: Annotated[
        str | None,
        typer.Option(help=f"Prompts of a model. Default: {MOTION} for its world.", show_default=False),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Or a file: a prompt a line, or .jsonl with text and id.", show_default=False),
    ] = None,
    suite: Annotated[str, typer.Option(help="all, or a suite or category of the protocol.")] = "all",
    limit: Limit = None,
    clips_per_prompt: Annotated[
        int | None, typer.Option(max=1000, help="Default: the protocol's, or 1.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Default: the protocol's, or 0.", show_default=False)
    ] = None,
    models: Models = None,
    out: Out = Path("results"),
    work: Work = Path("runs/bench"),
    system: SystemOptions,
    allow_missing: AllowMissing = False,
) -> None:
    """Measure clips: temporal flickering, SSIM and PSNR of neighbouring frames, optical flow, warping error,
    CLIP scores and consistency, FVD.

    The same command goes on where a killed run stopped. Under torchrun every process does its share.
    """
    if model is not None and videos is not None:
        raise ValueError("--model and --videos exclude each other")
    if flow not in FLOWS:
        raise ValueError(f"unknown flow '{flow}'; known: {', '.join(FLOWS)}")
    if fvd_mode not in FVD_MODES:
        raise ValueError(f"unknown fvd_mode '{fvd_mode}'; known: {', '.join(FVD_MODES)}")

    from bench.jobs.video import Asked, Places, folder_set, run, system_set
    from bench.set_metrics.measure import CLIP_METRICS, METRICS, jobs
    from bench.sharding import Shard
    from bench.systems.clips import Reading, find_clips
    from gentron.device import usable_device

    shard = Shard.from_environment()
    place = str(usable_device(system.device))
    system = replace(system, device=place)
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

    from bench.commands.progress import stage
    from bench.jobs.clip_source import Choice

    if videos is not None:
        given: dict[str, object] = {"protocol": protocol, "prompts": prompts, "limit": limit, "seed": seed}
        given |= {"clips_per_prompt": clips_per_prompt, "suite": None if suite == "all" else suite}
        _refuse(system, given)
        measured = folder_set(videos, work=work)
    else:
        choice = Choice(suite=suite, limit=limit, clips_per_prompt=clips_per_prompt, seed=seed)
        drawn_by, source = open_system(model or MINI, system, protocol, prompts, choice, work=work)
        measured = system_set(drawn_by, source, stage=stage, shard=shard)
    places = Places(out=out, work=work, device=place, models=models)
    done = run(measured, against, asked, places=places, stage=stage, shard=shard)
    shard.leave()
    if done is not None:
        _show(done)


def _refuse(options: SystemOptions, given: dict[str, object]) -> None:
    """A setting without effect would mislead."""
    options.refuse(
        "--videos",
        *("num_inference_steps", "guidance_scale", "motion_guidance_scale", "sampler", "batch_size"),
        *("random_weights", "checkpoint"),
    )
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} has no effect on --videos")


# ---- a system that draws clips ---------------------------------------------------------------------------


def default_protocol(model: str, config: CheckpointConfig) -> str | None:
    """motion-shapes_v1 for models that know nothing but the shapes world; None: prompts must be given."""
    is_of_shapes = model == MINI or str(config.training.get("data", "")).startswith("shapes")
    return MOTION if is_of_shapes else None


def video_config(model: str, options: SystemOptions) -> CheckpointConfig:
    """Of a video model, before its weights are read; UserError for another kind."""
    from bench.systems import check_system
    from gentron.pipeline import find_config

    check_system(model)
    config = find_config(model, checkpoint=options.checkpoint, random_weights=options.random_weights)
    if config.model.temporal is None:
        raise UserError(f"'{model}' is a text-to-image model and draws no clips: give a video model")
    return config


def own_shape(config: CheckpointConfig) -> ClipShape:
    """What a video model draws where nothing else is asked."""
    from bench.systems import ClipShape

    assert config.model.temporal is not None
    temporal, sampling = config.model.temporal, config.sampling
    num_frames = sampling.num_frames if sampling.num_frames > 1 else temporal.num_frames
    return ClipShape(num_frames=num_frames, fps=sampling.fps or temporal.fps)


def open_system(
    model: str,
    options: SystemOptions,
    protocol: str | None,
    prompts: Path | None,
    choice: Choice,
    *,
    work: Path,
) -> tuple[GenTronSystem, ClipSource]:
    """The system, opened for clips, and what it is asked; cheap input is checked before weights are read."""
    from dataclasses import replace

    from bench.jobs.clip_source import clip_prompts

    for name in ("num_inference_steps", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    config = video_config(model, options)
    asked = clip_prompts(protocol, prompts, default=default_protocol(model, config))
    source = asked.source(choice, work=work)

    from bench.systems.gentron import GenTronSystem

    return GenTronSystem(model, replace(options, clip=asked.shape or own_shape(config))), source


# ---- what is measured ------------------------------------------------------------------------------------


def chosen_flow(flow: str, models: Path | None) -> str:
    """raft or dis; `auto` is RAFT where its weights are."""
    from bench.weights import MissingWeights, locate

    if flow != "auto":
        return flow
    try:
        locate("raft-large", models)
    except MissingWeights:
        return "dis"
    return "raft"


def chosen_measures(metrics: str | None, flow: str, models: Path | None) -> list[str]:
    """Names of scorers: those of optical flow with the flow behind.

    `auto` is RAFT where its weights are. Where they are not, it is DIS, and RAFT's are listed as skipped.
    """
    found = chosen_flow(flow, models)
    flows = ["dis", "raft"] if (flow, found) == ("auto", "dis") else [found]
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
