"""`gentron-bench prompts`: fetch the prompt lists of others, look at them, parse them into noun phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentron.console import make_app

prompts_app = make_app("Prompt lists of other benchmarks: fetch them, look at them, parse them.")


@prompts_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="t2i-compbench or partiprompts.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="Copy from this folder instead.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--to", help="Default: GENTRON_PROMPTS/NAME, or in your cache.", show_default=False),
    ] = None,
) -> None:
    """Store a prompt set, each file checked against its pinned hash. Run again to go on."""
    from bench.commands.progress import stage
    from bench.prompt_sets import fetch as fetch_set
    from bench.prompt_sets import prompt_set, prompts_folder

    known = prompt_set(name)
    folder = prompts_folder() / name if folder is None else folder
    with stage(f"fetch {name}", len(known.files)) as done:
        found = fetch_set(name, source=source, folder=folder, done=done)
    typer.echo(f"{folder}: {len(found.stored)} files stored, {len(found.present)} were there")
    for file_name in found.absent:
        needed = known.file(file_name).needed_by
        typer.echo(f"not in {source}: {file_name}, needed by {needed}; without --from it is downloaded")


@prompts_app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A prompt set; all if none.")] = None,
    category: Annotated[
        str | None, typer.Option(help="Print the prompts of this category.", show_default=False)
    ] = None,
    edition: Annotated[str, typer.Option(help="current, or pre-2025-09 (color).")] = "current",
    phrases: Annotated[
        str | None,
        typer.Option(help="Also their noun phrases: auto, frozen, spacy or rules.", show_default=False),
    ] = None,
) -> None:
    """What is there and whether it is as pinned; with --category, the prompts themselves."""
    from bench.prompt_sets import COMPBENCH, PROMPT_SETS, load_list, prompt_set

    if category is None:
        for known in [prompt_set(name)] if name else PROMPT_SETS.values():
            _show_files(known.name)
        return
    prompts = load_list(name or COMPBENCH, category, edition)
    source = None
    if phrases is not None:
        from bench.phrases import phrase_source

        source = phrase_source(phrases)
        typer.echo(f"noun phrases: {source.name} {source.record}", err=True)
    for prompt in prompts:
        line = [prompt.id, prompt.split or "", prompt.text]
        if source is not None:
            line.append(" | ".join(source.parse(prompt.text).chunks))
        typer.echo("\t".join(line))


def _show_files(name: str) -> None:
    from bench.prompt_sets import prompt_set, prompts_folder, state

    known, folder = prompt_set(name), prompts_folder() / name
    typer.echo(f"{name}  {known.source}  {known.licence}  {folder}")
    for file in known.files:
        typer.echo(f"  {file.name}: {file.num_lines} lines, {state(file, folder)}")
