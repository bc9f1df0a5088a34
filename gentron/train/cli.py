"""`gentron train ...`; torch is imported only once a command runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gentron.console import make_app

app = make_app("Train models: t2i, t2v, and the mini model's autoencoder and text encoders.")


class Resume(StrEnum):
    AUTO = "auto"
    NEVER = "never"


Out = Annotated[Path, typer.Option("--out", help="Run folder.")]
ResumeOption = Annotated[Resume, typer.Option(help="auto: go on if the folder holds a run.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Decides weights, data order, noise.")]
AutoencoderFolder = Annotated[Path | None, typer.Option("--autoencoder", help="Folder; else the recipe's.")]
Text = Annotated[Path | None, typer.Option(help="Folder with clip/ and t5/; else the recipe's.")]
Cache = Annotated[Path, typer.Option(help="Where encoded latents are kept.")]
CACHE = Path("~/.cache/gentron/latents")


@app.command()
def t2i(
    recipe: Annotated[
        str, typer.Option(help="mini, mini_stage2, mini_stage3, xl2_256, xl2_512, g2_256, g2_512.")
    ] = "mini",
    data: Annotated[
        str,
        typer.Option(help="shapes, or captioned pictures: a folder, shards, Parquet, a listing, hf:NAME."),
    ] = "shapes",
    out: Out = Path("runs/mini"),
    resume: ResumeOption = Resume.NEVER,
    device: Device = "auto",
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many images; the learning-rate schedule stays.")
    ] = None,
    seed: Seed = 0,
    autoencoder: AutoencoderFolder = None,
    text: Text = None,
    initial: Annotated[Path | None, typer.Option(help="Model folder whose weights to start from.")] = None,
    cache: Cache = CACHE,
) -> None:
    """Train a text-to-image model; ends with a model folder at OUT/model."""
    from rich.console import Console

    from gentron.allocator import keep_freed_memory
    from gentron.device import usable_device
    from gentron.train import parts
    from gentron.train import t2i as training

    keep_freed_memory()
    chosen = parts.resolve_recipe(recipe, autoencoder=autoencoder, text=text)
    where = usable_device(device)
    console = Console(stderr=True)
    folder = training.run(
        chosen,
        data=data,
        out=out,
        seed=seed,
        device=where,
        resume=resume is Resume.AUTO,
        max_images=max_images,
        initial=initial,
        cache_dir=cache.expanduser(),
        console=console,
    )
    console.print(f"model: {folder}", highlight=False)


@app.command()
def t2v(
    recipe: Annotated[str, typer.Option(help="mini_t2v, xl2_t2v, g2_t2v.")] = "mini_t2v",
    data: Annotated[
        str,
        typer.Option(help="shapes, or captioned clips: a folder, shards, Parquet, a listing, hf:NAME."),
    ] = "shapes",
    joint: Annotated[
        str | None,
        typer.Option(
            help="Pictures of the motion-free steps: shapes, or files as for t2i. Left out: shapes with "
            "--data shapes, else clips frame by frame."
        ),
    ] = None,
    out: Out = Path("runs/mini-t2v"),
    resume: ResumeOption = Resume.NEVER,
    device: Device = "auto",
    total_samples: Annotated[
        int | None, typer.Option(min=1, help="Length of the training and its schedules; else the recipe's.")
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many samples; the learning-rate schedule stays.")
    ] = None,
    seed: Seed = 0,
    autoencoder: AutoencoderFolder = None,
    text: Text = None,
    initial: Annotated[
        Path | None,
        typer.Option(help="Model folder, of pictures or clips, whose weights to start from; mini_t2v: mini."),
    ] = None,
    temporal_only: Annotated[
        bool, typer.Option("--temporal-only", help="Train the temporal attention alone.")
    ] = False,
    cache: Cache = CACHE,
) -> None:
    """Train a text-to-video model from a text-to-image one; ends with a model folder at OUT/model."""
    from rich.console import Console

    from gentron.allocator import keep_freed_memory
    from gentron.device import usable_device
    from gentron.train import t2v as training

    keep_freed_memory()
    chosen = training.resolve_recipe(
        recipe,
        autoencoder=autoencoder,
        text=text,
        temporal_only=temporal_only,
        total_samples=total_samples,
    )
    where = usable_device(device)
    console = Console(stderr=True)
    folder = training.run(
        chosen,
        data=data,
        joint=joint or ("shapes" if data == "shapes" else None),
        out=out,
        seed=seed,
        device=where,
        resume=resume is Resume.AUTO,
        max_samples=max_samples,
        initial=initial or training.default_initial(recipe),
        cache_dir=cache.expanduser(),
        console=console,
    )
    console.print(f"model: {folder}", highlight=False)


@app.command()
def autoencoder(
    out: Out = Path("runs/autoencoder"),
    resume: ResumeOption = Resume.NEVER,
) -> None:
    """Train the mini model's autoencoder on the shapes world; writes OUT/autoencoder."""
    from gentron.train.autoencoder import train

    typer.echo(f"autoencoder: {train(out, resume=resume is Resume.AUTO)}")


@app.command()
def text(
    out: Out = Path("runs/text"),
    resume: ResumeOption = Resume.NEVER,
) -> None:
    """Train the mini model's text encoders on captions of the shapes world; writes OUT/clip and OUT/t5."""
    from gentron.train.text import train

    typer.echo(f"text encoders: {train(out, resume=resume is Resume.AUTO)}")


@app.command("text-motion")
def text_motion(
    out: Out = Path("runs/text-motion"),
    initial: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the clip/ and t5/ to teach; else the bundled mini.", show_default=False
        ),
    ] = None,
    resume: Annotated[Resume, typer.Option(help="auto: go on if the folder holds a run.")] = Resume.NEVER,
) -> None:
    """Teach mini's text encoders the words of motion, leaving all else; writes OUT/clip and OUT/t5."""
    from gentron.bundled import bundled_mini
    from gentron.train.motion_text import train

    train(out, initial=initial or bundled_mini(), resume=resume is Resume.AUTO)
    typer.echo(f"text encoders: {out}")
