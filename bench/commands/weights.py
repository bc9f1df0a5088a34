"""`gentron-bench weights`: the files of pretrained networks; only `fetch` uses a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentron.console import make_app
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.weights import FileState
    from bench.weights.fetching import Report

weights_app = make_app("Weights of the scorers' networks: what is needed, where it is, whether it is right.")

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[IDS]...", help="Default: all.", show_default=False)
]
Models = Annotated[
    Path | None,
    typer.Option(
        help="The models folder. Default: GENTRON_MODELS, else in the user's cache.", show_default=False
    ),
]


@weights_app.command(name="list")
def list_(models: Models = None) -> None:
    """Every file with its origin, licence, size, hash, what it unlocks and where it was found."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bench.weights import models_folder, states

    folder = models_folder() if models is None else models
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=f"models folder: {escape(str(folder))}", title_justify="left", show_lines=True)
    table.add_column("id", no_wrap=True)
    table.add_column("file, origin, sha256", overflow="fold", ratio=1)
    for name in ("licence", "size", "unlocks", "found"):
        table.add_column(name, overflow="fold", max_width=24)
    found = states(folder)
    for state in found:
        weight = state.weight
        about = f"{weight.file}: {weight.what}\n{weight.url}\n{_hash_text(state)}"
        unlocks = "\n".join(weight.unlocks)
        cells = (weight.id, about, weight.licence, _size(weight.size), unlocks, _found_text(state))
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    missing = sum(state.path is None for state in found)
    if missing:
        console.print(
            f"{missing} of {len(found)} are missing: 'gentron-bench weights fetch ID' downloads,"
            " 'gentron-bench weights add ID FILE' takes a file you have",
            markup=False,
            soft_wrap=True,
        )


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}" if unit == 10**9 else f"{size / unit:.0f} {name}"
    return f"{size / 1000:.0f} kB"


def _hash_text(state: FileState) -> str:
    weight, record = state.weight, state.record
    if record is not None and record.random:
        return f"random: {record.sha256}"
    if weight.sha256 is not None:
        return weight.sha256
    begins = f", begins with {weight.sha256_prefix}" if weight.sha256_prefix else ""
    if record is not None:
        return f"{record.sha256} (unpinned{begins}: recorded {record.recorded})"
    return f"unpinned{begins}"


def _found_text(state: FileState) -> str:
    if state.path is None:
        return "missing"
    where = f"{state.path} -> {state.path.resolve()}" if state.path.is_symlink() else str(state.path)
    if state.record is None:
        return f"{where} (not checked yet)"
    return f"{where} (random)" if state.record.random else where


@weights_app.command()
def check(ids: Ids = None, models: Models = None) -> None:
    """Read every file again and compare its hash; exit code 2 if one is wrong.

    Without IDS, files that are missing are not wrong.
    """
    from bench.weights import MissingWeights, locate
    from bench.weights.files import WEIGHTS, weight_file

    wrong: list[str] = []
    for id in ids or WEIGHTS:
        weight_file(id)
        try:
            located = locate(id, models, rehash=True)
        except MissingWeights as error:
            typer.echo(f"{id}: missing")
            if ids:
                wrong.append(str(error))
        except UserError as error:
            typer.echo(f"{id}: wrong")
            wrong.append(str(error))
        else:
            typer.echo(f"{id}: {'random' if located.random else 'ok'}  {located.sha256}")
    if wrong:
        raise UserError("; ".join(wrong))


@weights_app.command()
def add(
    id: Annotated[str, typer.Argument(metavar="ID", help="See 'weights list'.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where you have it.")],
    link: Annotated[bool, typer.Option("--link", help="Link to it instead of copying.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also in place of another recorded file.")
    ] = False,
    models: Models = None,
) -> None:
    """Take a file into the models folder, once its hash and the names of its tensors are right."""
    from bench.weights import add as add_file

    located = add_file(id, file, models, link=link, replace=replace)
    typer.echo(f"{id}: {located.path}  sha256 {located.sha256}")


@weights_app.command()
def fetch(
    ids: Ids = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything that is missing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Also what is there.")] = False,
    models: Models = None,
) -> None:
    """Download files, checked and resumable: the only command that uses a network."""
    from bench.weights.fetching import fetch as fetch_file
    from bench.weights.files import WEIGHTS, weight_file

    if bool(ids) == all_:
        raise UserError(f"say which weights to fetch, or --all, and not both; known: {', '.join(WEIGHTS)}")
    chosen = list(WEIGHTS) if all_ else list(ids or ())
    for id in chosen:
        weight_file(id)
    failed: list[str] = []
    for id in chosen:
        try:
            with _download_bar(id) as report:
                located = fetch_file(id, models, report=report, replace=replace)
        except UserError as error:  # the other files are worth having
            failed.append(str(error))
        else:
            typer.echo(f"{id}: {located.path}  sha256 {located.sha256}")
    if failed:
        raise UserError("; ".join(failed))


@contextmanager
def _download_bar(name: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@weights_app.command()
def random(
    ids: Ids = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the random numbers.")] = 0,
    models: Models = None,
) -> None:
    """Write small random weights, to rehearse the official pipeline: results made with them say so."""
    from bench.weights import make_random
    from bench.weights.files import RANDOM_NOTE, WEIGHTS, weight_file

    chosen = list(ids or WEIGHTS)
    for id in chosen:
        weight_file(id)
    for id in chosen:
        located = make_random(id, models, seed=seed)
        typer.echo(f"{id}: {located.path}  sha256 {located.sha256}")
    typer.echo(RANDOM_NOTE)
