"""`gentron-bench motion`: does what was asked to move move, and where; over the shapes world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import (
    AllowMissing,
    Limit,
    MotionGuidanceScale,
    Out,
    Work,
    check_numbers,
    takes_system_options,
)
from bench.systems import SystemOptions
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.prompts.protocol import MotionConfig, Protocol
    from bench.results.record import Result

MOTION = "motion-shapes_v1"


@takes_system_options()
def motion(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="mini-t2v, a checkpoint folder of a video model, or folder:DIR (clips made elsewhere, each a"
            " folder of frames)."
        ),
    ] = "mini-t2v",
    protocol: Annotated[str, typer.Option(help="Which prompts and which judge.")] = MOTION,
    suite: Annotated[str, typer.Option(help="all, one-object, binding, or one category.")] = "all",
    clips_per_prompt: Annotated[
        int | None, typer.Option(max=1000, help="Default: the protocol's.", show_default=False)
    ] = None,
    limit: Limit = None,
    seed: Annotated[int | None, typer.Option(help="Default: the protocol's.", show_default=False)] = None,
    out: Out = Path("results"),
    work: Work = Path("runs/bench"),
    motion_guidance_scale: MotionGuidanceScale = None,
    system: SystemOptions,
    allow_missing: AllowMissing = False,
) -> None:
    """Score the motion of clips: direction, binding, speed, and every frame's appearance.

    The lossless frames are judged. The same command goes on where a killed run stopped. Under torchrun every
    process does its share.
    """
    from bench.prompts.protocol import load_protocol
    from bench.systems import check_system

    check_system(model)
    check_numbers(seed=(seed, 0), clips_per_prompt=(clips_per_prompt, 1))
    chosen = load_protocol(protocol)
    config = _motion_config(chosen)
    # cheap inputs first: a wrong suite should not wait for a model to load
    chosen.select(suite, limit=limit)

    from bench.jobs.compbench import RunSettings
    from bench.jobs.motion import run
    from bench.sharding import Shard
    from bench.systems import ClipShape, parse_system
    from gentron.device import usable_device

    shard = Shard.from_environment()
    options = replace(
        system,
        device=str(usable_device(system.device)),
        motion_guidance_scale=motion_guidance_scale,
        clip=ClipShape(num_frames=config.clip.num_frames, fps=config.clip.fps),
    )
    settings = RunSettings(
        suite=suite,
        seed=config.seed if seed is None else seed,
        images_per_prompt=clips_per_prompt or config.images_per_prompt,
        limit=limit,
        allow_missing=allow_missing,
    )

    from bench.commands.progress import stage

    measured = parse_system(model, options)
    done = run(chosen, measured, settings, work=work, out=out, stage=stage, shard=shard)
    shard.leave()
    if done is not None:
        _show(chosen, *done)


def _motion_config(protocol: Protocol) -> MotionConfig:
    from bench.prompts.protocol import MotionConfig

    if not isinstance(protocol.config, MotionConfig):
        raise UserError(f"protocol '{protocol.name}' is about pictures: use gentron-bench compbench")
    return protocol.config


def _show(protocol: Protocol, result: Result, folder: Path) -> None:
    from bench.commands.progress import wide_console
    from bench.report.summary import notes, reference, result_table

    console = wide_console()
    console.print(result_table(result, reference(protocol.name, protocol.sha256)))
    for line in notes(result):
        console.print(line, style="dim", markup=False)
    console.print(f"result: {folder / 'result.json'}", markup=False, soft_wrap=True)
