"""`gentron plan`: what a training run needs, before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentron.errors import UserError
from gentron.plan import (
    AUTOENCODER_DOWNSCALE,
    GIB,
    GPUS,
    KINDS,
    PAPER_STAGES,
    PAPER_VIDEO_STAGE,
    RESERVED_SHARE,
    Machine,
    Option,
    Plan,
    SampleShape,
    Stage,
    make_plan,
)

if TYPE_CHECKING:
    from rich.table import Table

    from gentron.model import GenTronConfig

MAX_RESOLUTION = 4096
FPS = 4.0
"""Frames a second of the paper's clips, for an image preset that is planned as a video model."""


class Precision(StrEnum):
    BF16 = "bf16"
    FP32 = "fp32"


def plan(
    model: Annotated[str, typer.Option(help="A preset of `gentron models`, or a checkpoint folder.")] = "xl2",
    resolution: Annotated[int | None, typer.Option(help="Pixels along a side.", show_default=False)] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, max=1024, help="Of a clip: text-to-video.", show_default=False)
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=1_000_000, help="On any number of machines.")] = 8,
    gpu: Annotated[str, typer.Option(help=f"{', '.join(GPUS)}: its peak and memory.")] = "h100",
    memory: Annotated[float | None, typer.Option(help="GiB of one GPU.", show_default="the GPU's")] = None,
    mfu: Annotated[
        float, typer.Option(help="Share of the peak that is reached, recomputation included.")
    ] = 0.25,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples of a step over all GPUs.", show_default="the paper's")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the run.", show_default="the paper's")] = None,
    precision: Annotated[Precision, typer.Option(help="Of the products.")] = Precision.BF16,
    precomputed: Annotated[
        bool, typer.Option("--precomputed", help="Latents and text embeddings are ready; no encoder runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Parameters, FLOPs, memory by kind, the micro-batch that fits, images a second, days and GPU-hours."""
    if gpu not in GPUS:
        raise UserError(f"unknown GPU '{gpu}'; known: {', '.join(GPUS)}")
    machine = Machine(
        gpus=gpus,
        memory=GPUS[gpu].memory if memory is None else memory,
        peak=GPUS[gpu].peak,
        utilization=mfu,
    )
    config, shape, side = planned_model(model, resolution=resolution, frames=frames)
    paper = PAPER_VIDEO_STAGE if shape.num_frames > 1 else PAPER_STAGES.get(side)
    if batch is None and paper is None:
        raise UserError(f"the paper has no stage at {side} px: give --batch, and --steps for days")
    stage = Stage(
        batch if batch is not None else paper.batch if paper is not None else 1,
        steps if steps is not None else paper.steps if paper is not None else None,
    )
    made = make_plan(config, shape, machine, stage=stage, precision=precision.value, encodes=not precomputed)
    if as_json:
        typer.echo(json.dumps(to_json(made, machine, model=model, resolution=side, shape=shape), indent=2))
    else:
        show(made, machine, title=f"{model}, {side} px", gpu=gpu, shape=shape)


def planned_model(
    model: str, *, resolution: int | None, frames: int | None
) -> tuple[GenTronConfig, SampleShape, int]:
    """Its config, what it is trained on, and the pixels along a side."""
    from gentron.presets import PRESETS

    if model in PRESETS:
        config, downscale = PRESETS[model](), 4 if model.startswith("mini") else AUTOENCODER_DOWNSCALE
    elif model and Path(model).is_dir():
        from gentron.checkpoint import read_config

        stored = read_config(Path(model))
        config = stored.model
        downscale = max(1, stored.sampling.image_size // config.sample_size)
    else:
        raise UserError(f"unknown model '{model}'; known: {', '.join(PRESETS)}, or a checkpoint folder")
    side = config.sample_size * downscale if resolution is None else resolution
    patch = downscale * config.patch_size
    if not 0 < side <= MAX_RESOLUTION or side % patch:
        raise UserError(
            f"resolution must be a positive multiple of {patch} up to {MAX_RESOLUTION}, got {side}"
        )
    if frames is not None and config.temporal is None:
        from gentron.model import TemporalConfig

        config = replace(config, temporal=TemporalConfig(num_frames=frames, fps=FPS))
    elif frames is None and config.temporal is not None:
        frames = config.temporal.num_frames
    return config, SampleShape(latent_side=side // downscale, num_frames=frames or 1), side


# ---- for people --------------------------------------------------------------------------------------------


def show(made: Plan, machine: Machine, *, title: str, gpu: str, shape: SampleShape) -> None:
    from rich.console import Console

    sample = "image" if shape.num_frames == 1 else "clip"
    if shape.num_frames > 1:
        title += f", {shape.num_frames} frames"
    console = Console(highlight=False, soft_wrap=True)
    steps = "steps not stated" if made.steps is None else f"{made.steps:,} steps"
    console.print(
        f"{title}: {made.parameters / 1e6:,.1f}M parameters; {made.batch} {sample}s a step, {steps}"
    )
    console.print(
        f"{machine.gpus} x {gpu}: {machine.memory:g} GiB, {machine.peak / 1e12:g} TFLOP/s in bf16,"
        f" {machine.utilization:.0%} of it reached (an assumption)"
    )
    encoding = f", encoding {made.encoding_flops / 1e12:.3f}" if made.encoding_flops else ""
    console.print(
        f"TFLOPs: {made.flops.forward / 1e12:.3f} forward and {made.flops.backward / 1e12:.3f} backward a"
        f" {sample}{encoding}; {made.flops_per_step / 1e12:,.0f} a step"
    )
    console.print(_table(made, sample))
    console.print(advice(made, sample))


def _table(made: Plan, sample: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("GiB a GPU, at the peak", box=box.SIMPLE_HEAD, padding=(0, 1))
    for option in made.options:
        name = f"{option.policy} *" if option.policy == made.advice else option.policy
        table.add_column(name, justify="right")

    def add(name: str, cells: list[str], *, end: bool = False) -> None:
        table.add_row(name, *cells, end_section=end)

    for kind in KINDS:
        sizes = [option.memory[kind] for option in made.options]
        if any(sizes):
            add(kind, [f"{size / GIB:.1f}" for size in sizes], end=kind == KINDS[-1])
    used = [sum(option.memory.values()) / GIB for option in made.options]
    add("in all", [f"{size:.1f}" for size in used])
    add("may be used", [f"{made.budget / GIB:.1f}"] * len(used), end=True)
    kept = [option.activations_per_sample / GIB for option in made.options]
    add(f"activations {'an' if sample == 'image' else 'a'} {sample}", [f"{size:.2f}" for size in kept])
    add("micro-batch", [_or_none(option, str(option.micro_batch)) for option in made.options])
    add("passes a step", [_or_none(option, str(option.passes)) for option in made.options])
    add(
        f"{sample}s a second",
        [_or_none(option, f"{option.samples_per_second:,.0f}") for option in made.options],
    )
    add("MFU", [_or_none(option, f"{option.mfu:.0%}") for option in made.options])
    if made.steps is not None:
        add("days", [_or_none(option, f"{option.days or 0:,.1f}") for option in made.options])
        add("GPU-hours", [_or_none(option, f"{option.gpu_hours or 0:,.0f}") for option in made.options])
    return table


def _or_none(option: Option, text: str) -> str:
    return text if option.micro_batch else "too large"


def advice(made: Plan, sample: str) -> str:
    """What to take, in a sentence, and what the figures rest on."""
    basis = (
        f"activations none | selective | full: what is kept (gentron/checkpointing.py); "
        f"{RESERVED_SHARE:.0%} of the memory is left to CUDA, NCCL and fragmentation"
    )
    if made.advice is None:
        return (
            f"not one {sample} fits: take more GPUs (weights, gradients, optimizer and EMA are shared out),"
            f" larger ones, or --precomputed\n{basis}"
        )
    chosen = next(option for option in made.options if option.policy == made.advice)
    time = "" if chosen.days is None else f", {chosen.days:,.1f} days"
    return (
        f"* take {chosen.policy}: micro-batch {chosen.micro_batch} x {chosen.passes},"
        f" {chosen.samples_per_second:,.0f} {sample}s a second{time}\n{basis}"
    )


# ---- for programs ------------------------------------------------------------------------------------------


def to_json(made: Plan, machine: Machine, *, model: str, resolution: int, shape: SampleShape) -> dict:
    """Bytes, FLOPs, seconds; one entry a policy."""
    return {
        "model": model,
        "resolution": resolution,
        "shape": asdict(shape),
        "machine": asdict(machine),
        "reserved_share": RESERVED_SHARE,
        **{name: getattr(made, name) for name in ("parameters", "batch", "steps", "advice", "budget")},
        "flops_per_sample": {
            "forward": made.flops.forward,
            "backward": made.flops.backward,
            "encoding": made.encoding_flops,
        },
        "flops_per_step": made.flops_per_step,
        "policies": {option.policy: asdict(option) for option in made.options},
    }
