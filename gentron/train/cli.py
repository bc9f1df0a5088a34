"""`gentron train ...`; torch is imported only once a command runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gentron.console import make_app

app = make_app("Train models: t2i, and the mini model's autoencoder and text encoders.")


class Resume(StrEnum):
    AUTO = "auto"
    NEVER = "never"


Out = Annotated[Path, typer.Option("--out", help="Run folder.")]


@app.command()
def t2i(
    recipe: Annotated[
        str,
        typer.Option(help="mini, mini_stage2, mini_stage3, xl2_stage1, xl2_stage2, g2_stage1, g2_stage2."),
    ] = "mini",
    data: Annotated[
        str, typer.Option(help="shapes, or a folder of captioned pictures or WebDataset shards.")
    ] = "shapes",
    out: Out = Path("runs/mini"),
    resume: Annotated[Resume, typer.Option(help="auto: go on if the folder holds a run.")] = Resume.NEVER,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")
    ] = "auto",
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many images; the learning-rate schedule stays.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Decides weights, data order, noise.")] = 0,
    autoencoder: Annotated[Path | None, typer.Option(help="Folder; else the recipe's.")] = None,
    text: Annotated[Path | None, typer.Option(help="Folder with clip/ and t5/; else the recipe's.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Model folder whose weights to start from.")] = None,
    cache: Annotated[Path, typer.Option(help="Where encoded latents are kept.")] = Path(
        "~/.cache/gentron/latents"
    ),
) -> None:
    """Train a text-to-image model; ends with a model folder at OUT/model."""
    from rich.console import Console

    from gentron.allocator import keep_freed_memory
    from gentron.pipeline import usable_device
    from gentron.train import t2i as training

    keep_freed_memory()
    chosen = training.resolve_recipe(recipe, autoencoder=autoencoder, text=text)
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
def autoencoder(
    out: Out = Path("runs/autoencoder"),
    resume: Annotated[Resume, typer.Option(help="auto: go on if the folder holds a run.")] = Resume.NEVER,
) -> None:
    """Train the mini model's autoencoder on the shapes world; writes OUT/autoencoder."""
    from gentron.train.autoencoder import train

    typer.echo(f"autoencoder: {train(out, resume=resume is Resume.AUTO)}")


@app.command()
def text(
    out: Out = Path("runs/text"),
    resume: Annotated[Resume, typer.Option(help="auto: go on if the folder holds a run.")] = Resume.NEVER,
) -> None:
    """Train the mini model's text encoders on captions of the shapes world; writes OUT/clip and OUT/t5."""
    from gentron.train.text import train

    typer.echo(f"text encoders: {train(out, resume=resume is Resume.AUTO)}")
