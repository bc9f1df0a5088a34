"""The command `gentron`. torch and the models are imported once a command runs, so that --help is instant."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gentron.console import make_app, run_app
from gentron.errors import UserError
from gentron.export_cli import export, push
from gentron.plan_cli import plan
from gentron.train.cli import app as train_app

app = make_app("GenTron: text-to-image and text-to-video transformers, their training and sampling.")
data_app = typer.Typer(no_args_is_help=True, help="Write data sets.")
app.add_typer(train_app, name="train")
app.add_typer(data_app, name="data")
app.command()(plan)
app.command()(export)
app.command()(push)


class Dtype(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class DataFormat(StrEnum):
    FOLDER = "folder"
    WEBDATASET = "webdataset"


class ClipFormat(StrEnum):
    MP4 = "mp4"
    FRAMES = "frames"


# ---- sample ------------------------------------------------------------------------------------------------


@app.command()
def sample(
    prompts: Annotated[list[str] | None, typer.Argument(help="What to draw.", show_default=False)] = None,
    model: Annotated[
        str, typer.Option(help="A preset of `gentron models`, or the folder of a checkpoint.")
    ] = "mini",
    checkpoint: Annotated[Path | None, typer.Option(help="Where the weights of a named model are.")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Run it untrained.")] = False,
    prompt_file: Annotated[Path | None, typer.Option(help="More prompts, one a line.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What guidance leads away from.")] = "",
    seed: Annotated[int, typer.Option(help="Image or clip i of every prompt has seed SEED + i.")] = 0,
    num_images: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images or clips per prompt.")] = 1,
    guidance_scale: Annotated[
        float | None, typer.Option(help="The paper's lambda_T; 1 is no guidance.")
    ] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddpm, ddim, dpmpp_2m, heun, unipc.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    num_frames: Annotated[
        int | None, typer.Option(help="Of a clip; 1 is a picture, by a video model too.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="How fast a clip is shown.")] = None,
    motion_guidance_scale: Annotated[
        float | None, typer.Option(help="The paper's lambda_M, of clips; 1 is text guidance alone.")
    ] = None,
    first_frame: Annotated[
        Path | None, typer.Option(help="A picture that every clip begins with.", show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images or clips per pass on a GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Of the denoiser.")] = Dtype.AUTO,
    grid: Annotated[bool, typer.Option("--grid", help="One picture of them all; a row a clip.")] = False,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Store prompt and seed in the PNG of a picture.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png for one picture or a grid; .mp4, .webm, .gif, .webp or .png (a sheet of frames) for"
            " one clip, or a folder of its frames; a folder for more.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw pictures or clips of prompts; settings left out are the checkpoint's own."""
    wanted = [*(prompts or []), *read_prompts(prompt_file)]
    if not wanted:
        raise UserError("no prompt: give one as an argument, or a file with --prompt-file")
    rows = [(prompt, seed + i) for prompt in wanted for i in range(num_images)]

    from gentron.pictures import read_picture
    from gentron.pipeline import find_config, open_pipeline
    from gentron.request import check_prompts, check_scales, check_seeds, resolve_motion
    from gentron.sample_output import choose_target, make_grid, write_manifest, write_picture, write_samples

    check_prompts([*wanted, negative_prompt])  # all this before a model is loaded
    check_seeds([seed, seed + num_images - 1])
    config = find_config(model, checkpoint=checkpoint, random_weights=random_weights)
    first_frames = None if first_frame is None else [read_picture(first_frame)] * len(rows)
    motion = resolve_motion(
        config.model.temporal,
        config.sampling,
        num_frames=num_frames,
        fps=fps,
        motion_guidance_scale=motion_guidance_scale,
        first_frames=first_frames,
    )
    check_scales(config.sampling.guidance_scale if guidance_scale is None else guidance_scale, motion)
    target = choose_target(out, count=len(rows), grid=grid, clips=motion is not None)
    if metadata and motion is not None:
        raise UserError("--metadata is of PNG pictures: these are clips")
    logging.basicConfig(format="note: %(message)s", level=logging.WARNING)
    pipeline = open_pipeline(
        model,
        checkpoint=checkpoint,
        random_weights=random_weights,
        device=device,
        dtype=None if dtype is Dtype.AUTO else dtype.value,
    )
    with progress("drawing", len(rows)) as update:
        samples = pipeline.stream(
            [prompt for prompt, _ in rows],
            seeds=[row_seed for _, row_seed in rows],
            negative_prompts=[negative_prompt] * len(rows),
            guidance_scale=guidance_scale,
            motion_guidance_scale=motion_guidance_scale,
            num_inference_steps=num_inference_steps,
            sampler=sampler,
            height=height,
            width=width,
            num_frames=num_frames,
            fps=fps,
            first_frames=first_frames,
            batch_size=batch_size,
            callback=update,
        )
        if grid:
            columns = num_images if num_images > 1 else None
            write_picture(make_grid(list(samples), columns=columns), target.path)
        else:
            texts = [{"prompt": prompt, "seed": str(row_seed)} for prompt, row_seed in rows]
            paths = write_samples(samples, target, texts if metadata else None)
            if target.is_folder:
                write_manifest(target, paths, rows, model=model, untrained=pipeline.is_untrained)
    weights = " by an untrained model" if pipeline.is_untrained else ""
    noun = "picture" if motion is None else "clip"
    number = f"1 {noun}" if len(rows) == 1 else f"{len(rows)} {noun}s"
    typer.echo(f"{target.path}: {number}{weights}")


def read_prompts(path: Path | None) -> list[str]:
    """The lines of a prompt file that hold something; none at all is an error."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"the prompt file '{path}' is not UTF-8 text ({error.reason} at byte {error.start}); save it so"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read the prompt file '{path}': {error.strerror}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"the prompt file '{path}' holds no prompt; expected one a line")
    return prompts


@contextmanager
def progress(title: str, total: int) -> Iterator[Any]:
    """A bar on stderr with images done, time spent and left; yields its update(done)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


# ---- models ------------------------------------------------------------------------------------------------


@app.command()
def models() -> None:
    """Print every preset's configuration beside the paper's, and its parameters per component."""
    from rich.console import Console

    from gentron.model_table import components_tables, configurations_table

    console = Console()
    for table in (configurations_table(), *components_tables()):
        console.print(table)


# ---- data --------------------------------------------------------------------------------------------------


@data_app.command()
def shapes(
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder, new or of an earlier call, which is continued.")],
    data_format: Annotated[
        DataFormat, typer.Option("--format", help="Files with captions.jsonl, or .tar shards.")
    ] = DataFormat.FOLDER,
    seed: Annotated[
        int, typer.Option(min=0, max=2**64 - 1, help="Picture i depends on (SEED, i) alone.")
    ] = 0,
) -> None:
    """Write pictures and captions of the built-in world."""
    from gentron.shapes.write import write_folder, write_webdataset

    write = write_folder if data_format is DataFormat.FOLDER else write_webdataset
    with progress("rendering", count) as update:
        write(out, count=count, seed=seed, callback=update)
    typer.echo(f"{out}: {count} pictures")


@data_app.command("shapes-video")
def shapes_video(
    count: Annotated[int, typer.Option(min=1, help="Number of clips.")],
    out: Annotated[Path, typer.Option(help="Folder, new or of an earlier call, which is continued.")],
    clip_format: Annotated[
        ClipFormat, typer.Option("--format", help="mp4 files, or folders of lossless frames.")
    ] = ClipFormat.MP4,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Clip i depends on (SEED, i) alone.")] = 0,
) -> None:
    """Write clips of the built-in world, in which things move, and their captions."""
    from gentron.shapes.write_clips import write_clips

    with progress("rendering", count) as update:
        write_clips(out, count=count, seed=seed, clip_format=clip_format.value, callback=update)
    typer.echo(f"{out}: {count} clips")


@data_app.callback()
def _data() -> None:
    """Write data sets."""


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
