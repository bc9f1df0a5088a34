"""Options that several commands have, said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.systems import SystemOptions

Limit = Annotated[int | None, typer.Option(help="N prompts of each category only, splits by their share.")]
Models = Annotated[Path | None, typer.Option(help="Folder of the scorers' networks.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where results go.")]
Work = Annotated[Path, typer.Option(help="Where images and features are kept for resuming.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Where the weights of a named model are.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Run the model untrained, as a smoke test.")
]
NumInferenceSteps = Annotated[int | None, typer.Option(help="Denoising steps.")]
GuidanceScale = Annotated[float | None, typer.Option(help="1 is no guidance.")]
MotionGuidanceScale = Annotated[
    float | None, typer.Option(help="1 is no guidance by motion; 0 goes without motion in its direction.")
]
Sampler = Annotated[str | None, typer.Option(help="ddpm, ddim, dpmpp_2m, heun, unipc.")]
ImageSize = Annotated[int | None, typer.Option(help="Pixels along a side.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per pass on a GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Measure what is there; the result says so.")
]


def system_options(
    *,
    checkpoint: Checkpoint = None,
    random_weights: RandomWeights = False,
    num_inference_steps: NumInferenceSteps = None,
    guidance_scale: GuidanceScale = None,
    motion_guidance_scale: MotionGuidanceScale = None,
    sampler: Sampler = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> SystemOptions:
    """How the command line says to run a system; ValueError for a number that no system takes."""
    check_numbers(num_inference_steps=(num_inference_steps, 1), batch_size=(batch_size, 1))
    return SystemOptions(
        device=device,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        motion_guidance_scale=motion_guidance_scale,
        sampler=sampler,
        batch_size=batch_size,
        random_weights=random_weights,
        checkpoint=checkpoint,
        image_size=image_size,
    )


OF_CLIPS = ("motion_guidance_scale",)  # what a system of pictures has not
Command = Callable[..., None]


def takes_system_options(*, without: Collection[str] = OF_CLIPS) -> Callable[[Command], Command]:
    """The command's parameter `system` stands for the options of `system_options`, in its place.

    without: those that the command does not offer, or sets itself.
    """
    every = inspect.signature(system_options, eval_str=True).parameters
    expanded = {name: parameter for name, parameter in every.items() if name not in without}

    def expand(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in own.parameters.values():
            parameters += expanded.values() if parameter.name == "system" else [parameter]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in expanded}
            command(**values, system=system_options(**given))

        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
        return run

    return expand


def check_numbers(**given: tuple[int | None, int]) -> None:
    """Each option's value and the least it may be."""
    for option, (value, least) in given.items():
        if value is not None and value < least:
            raise ValueError(f"{option} must be >= {least}, got {value}")
