"""The command `gentron`. torch and the models are imported once a command runs, so that --help is instant."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentron.atomic import atomic_file, check_writable
from gentron.console import make_app, run_app
from gentron.errors import UserError
from gentron.plan_cli import plan
from gentron.train.cli import app as train_app

if TYPE_CHECKING:
    from PIL.Image import Image

    from gentron.pipeline import GenTronPipeline

MANIFEST = "manifest.json"

app = make_app("GenTron: text-to-image diffusion transformers, their training and sampling.")
data_app = typer.Typer(no_args_is_help=True, help="Write data sets.")
app.add_typer(train_app, name="train")
app.add_typer(data_app, name="data")
app.command()(plan)

GRID_LINE = 2  # pixels between the pictures of a grid


class Dtype(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class DataFormat(StrEnum):
    FOLDER = "folder"
    WEBDATASET = "webdataset"


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
    seed: Annotated[int, typer.Option(help="Image i of every prompt has seed SEED + i.")] = 0,
    num_images: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images per prompt.")] = 1,
    guidance_scale: Annotated[float | None, typer.Option(help="1 is no guidance.")] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddpm, ddim, dpmpp_2m, heun, unipc.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per pass on a GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Of the denoiser.")] = Dtype.AUTO,
    grid: Annotated[bool, typer.Option("--grid", help="One picture of them all.")] = False,
    metadata: Annotated[bool, typer.Option("--metadata", help="Store prompt and seed in the PNG.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="A .png for one picture or a grid, else a folder.", show_default=False)
    ] = None,
) -> None:
    """Draw pictures of prompts; settings left out are the checkpoint's own."""
    wanted = [*(prompts or []), *read_prompts(prompt_file)]
    if not wanted:
        raise UserError("no prompt: give one as an argument, or a file with --prompt-file")
    rows = [(prompt, seed + i) for prompt in wanted for i in range(num_images)]
    target, is_folder = choose_target(out, count=len(rows), grid=grid)

    from gentron.guidance import check_guidance
    from gentron.pipeline import check_prompts, check_seeds, open_pipeline

    check_prompts([*wanted, negative_prompt])  # before a model is loaded
    check_seeds([seed, seed + num_images - 1])
    check_guidance(1.0 if guidance_scale is None else guidance_scale, None)
    logging.basicConfig(format="note: %(message)s", level=logging.WARNING)
    pipeline = open_pipeline(
        model,
        checkpoint=checkpoint,
        random_weights=random_weights,
        device=device,
        dtype=None if dtype is Dtype.AUTO else dtype.value,
    )
    with progress("drawing", len(rows)) as update:
        images = pipeline.stream(
            [prompt for prompt, _ in rows],
            seeds=[row_seed for _, row_seed in rows],
            negative_prompts=[negative_prompt] * len(rows),
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            sampler=sampler,
            height=height,
            width=width,
            batch_size=batch_size,
            callback=update,
        )
        if is_folder:
            (target / MANIFEST).unlink(missing_ok=True)  # of earlier pictures; the new one comes last
        if grid:
            columns = num_images if num_images > 1 else None
            write_pictures([make_grid(list(images), columns=columns)], [target], [{}])
        else:
            texts = [{"prompt": prompt, "seed": str(row_seed)} for prompt, row_seed in rows]
            paths = [target / f"{k:06d}.png" for k in range(len(rows))] if is_folder else [target]
            write_pictures(images, paths, texts if metadata else [{}] * len(rows))
    if is_folder:
        write_manifest(target, pipeline, model, rows)
    weights = " by an untrained model" if pipeline.is_untrained else ""
    number = "1 picture" if len(rows) == 1 else f"{len(rows)} pictures"
    typer.echo(f"{target}: {number}{weights}")


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


def choose_target(out: Path | None, *, count: int, grid: bool) -> tuple[Path, bool]:
    """Where the pictures go, and whether that is a folder: one picture or a grid may be a .png file."""
    single = grid or count == 1
    if out is None:
        out = Path("out.png" if single else "samples")
    is_folder = out.is_dir() or not out.suffix
    if grid and is_folder:
        raise UserError(f"--out must be a .png file for a grid, got '{out}'")
    if not is_folder and out.suffix.lower() != ".png":
        raise UserError(f"--out must be a .png file or a folder, got '{out}'")
    if out.exists() and not out.is_dir() and (is_folder or not out.is_file()):
        raise UserError(f"--out '{out}' is a file already; choose another name")
    if not is_folder and not single:
        raise UserError(f"--out '{out}' is one file for {count} pictures: give a folder, or --grid")
    try:
        check_writable(out)
    except OSError as error:
        raise UserError(f"--out '{out}' cannot be written: {error.strerror} in '{error.filename}'") from None
    return out, is_folder


def make_grid(images: Sequence[Image], *, columns: int | None = None) -> Image:
    """Pictures of one size in reading order, lines between them; about as many rows as columns by default."""
    from PIL import Image as Pictures

    columns = columns or round(len(images) ** 0.5 + 0.49)
    width, height = (side + GRID_LINE for side in images[0].size)
    size = (columns * width - GRID_LINE, -(-len(images) // columns) * height - GRID_LINE)
    grid = Pictures.new("RGB", size, (128, 128, 128))
    for k, image in enumerate(images):
        grid.paste(image, (k % columns * width, k // columns * height))
    return grid


def write_pictures(images: Iterable[Image], paths: Sequence[Path], texts: Sequence[dict[str, str]]) -> None:
    """Each picture to its path as PNG, whole or not at all; `texts` become PNG text chunks."""
    from PIL.PngImagePlugin import PngInfo

    for image, path, text in zip(images, paths, texts, strict=True):
        info = PngInfo()
        for key, value in text.items():
            info.add_itxt(key, value)
        with atomic_file(path) as temporary:
            image.save(temporary, format="PNG", pnginfo=info if text else None)


def write_manifest(
    folder: Path, pipeline: GenTronPipeline, model: str, rows: Sequence[tuple[str, int]]
) -> None:
    """folder/manifest.json: which file shows which prompt with which seed; a folder with one is complete."""
    manifest = {
        "model": model,
        "weights": "untrained" if pipeline.is_untrained else "trained",
        "images": [
            {"file": f"{k:06d}.png", "prompt": prompt, "seed": seed} for k, (prompt, seed) in enumerate(rows)
        ],
    }
    with atomic_file(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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


@data_app.callback()
def _data() -> None:
    """Write data sets."""  # a callback keeps `shapes` a word of the command line while it is the only one


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
