"""`gentron export` and `gentron push`: a checkpoint as one file or folder, and to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="A preset with weights, a checkpoint folder, or a single file.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Where the weights of a named model are.")]


def export(
    model: Model,
    to: Annotated[Path, typer.Option("--to", help="FILE.safetensors, or a folder.")],
    checkpoint: Checkpoint = None,
) -> None:
    """Copy a checkpoint to one safetensors file or a folder with a model card; a file goes back the same."""
    from gentron.atomic import check_writable
    from gentron.export import export as write

    check_writable(to)
    typer.echo(f"{write(model, to, checkpoint=checkpoint)}: {model}")


def push(
    model: Annotated[str, typer.Argument(help="A preset with weights, or a checkpoint folder.")],
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the hub.")],
    checkpoint: Checkpoint = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository is private otherwise.")] = False,
) -> None:
    """Upload a checkpoint with its model card to the Hugging Face hub; nothing else here writes to it."""
    from gentron.export import push as upload

    typer.echo(upload(model, repo, checkpoint=checkpoint, private=not public))
