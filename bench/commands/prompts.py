"""`gentron-bench prompts`: fetch the prompt lists of others, look at them, parse them into noun phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentron.console import make_app
from gentron.errors import UserError

PHRASES = "auto, frozen, spacy-3.6, spacy-3.8, spacy or rules"

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
    from bench.prompts.sets import fetch as fetch_set
    from bench.prompts.sets import prompt_set, prompts_folder

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
        typer.Option(help=f"Also their noun phrases: {PHRASES}.", show_default=False),
    ] = None,
) -> None:
    """What is there and whether it is as pinned; with --category, the prompts themselves."""
    from bench.prompts.sets import COMPBENCH, PROMPT_SETS, load_list, prompt_set

    if category is None:
        for known in [prompt_set(name)] if name else PROMPT_SETS.values():
            _show_files(known.name)
        return
    prompts = load_list(name or COMPBENCH, category, edition)
    source = None
    if phrases is not None:
        from bench.scorers.phrases import described, phrase_source

        source = phrase_source(phrases, texts=[prompt.text for prompt in prompts])
        typer.echo(f"noun phrases: {described(source.record)}", err=True)
    for prompt in prompts:
        line = [prompt.id, prompt.split or "", prompt.text]
        if source is not None:
            line.append(" | ".join(source.parse(prompt.text).chunks))
        typer.echo("\t".join(line))


@prompts_app.command()
def parse(
    name: Annotated[str, typer.Argument(help="A prompt set that is fetched.")] = "t2i-compbench",
    out: Annotated[
        Path | None,
        typer.Option(help="Default: GENTRON_PHRASES, or beside the prompt sets.", show_default=False),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(help="Python of the environment that has spaCy; this one if none.", show_default=False),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Files with further prompts, one a line.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Package of the English model; en_core_web_sm or a copy of it from PyPI if none.",
            show_default=False,
        ),
    ] = None,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Take another spaCy; the table and every result say so.")
    ] = False,
) -> None:
    """Freeze spaCy's noun phrases of all prompts into a table, so that scores need no spaCy."""
    import sys

    from bench.scorers.phrases.frozen import Table, table_path
    from bench.scorers.phrases.spacy import check_pinned, parse_with
    from gentron.atomic import check_writable

    texts = _all_texts(name, text or [])
    path = table_path() if out is None else out
    check_writable(path)
    made_with, parses = parse_with(Path(sys.executable) if python is None else python, texts, model=model)
    check_pinned(made_with, any_version=any_version)
    table = Table(made_with, dict(zip(texts, parses, strict=True)))
    table.write(path)
    made = f"spaCy {made_with['spacy']}, {made_with['model']} {made_with['model_version']}"
    typer.echo(f"{path}: {len(parses)} prompts, {made}, sha256 {table.sha256[:16]}")


def _all_texts(name: str, further: list[Path]) -> list[str]:
    """Distinct prompts of all lists and editions that are there, then of the files."""
    from bench.prompts.sets import find_prompt_set, load_list, prompt_set, split_lines

    folder = find_prompt_set(name)
    texts = [
        prompt.text
        for category, editions in prompt_set(name).lists.items()
        for edition, file in editions.items()
        if (folder / file).is_file()
        for prompt in load_list(name, category, edition)
    ]
    for path in further:
        texts += [line for line in split_lines(path.read_bytes()) if line]
    if not texts:
        raise UserError(f"{name} holds no lists to parse; parse t2i-compbench, or give --text FILE")
    return list(dict.fromkeys(texts))


@prompts_app.command()
def measure(
    phrases: Annotated[
        str, typer.Option(help="The source to measure, as in --phrases of compbench.")
    ] = "rules",
    against: Annotated[
        str | None, typer.Option(help="Also compare with this source.", show_default=False)
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Folder with tokens.json and by_hand.json.", show_default=False)
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Write between the marks in this page.", show_default=False)
    ] = None,
) -> None:
    """How often a source of noun phrases agrees with what is known of T2I-CompBench's prompts."""
    from bench.scorers.phrase_agreement import markdown, write_between_marks
    from bench.scorers.phrase_agreement import measure as measure_source
    from bench.scorers.phrases import phrase_source

    source = phrase_source(phrases)
    other = None if against is None else phrase_source(against)
    table = markdown(measure_source(source, golden=golden, against=other))
    if into is not None:
        write_between_marks(into, table)
        typer.echo(f"{into}: written")
    else:
        typer.echo(table)


def _show_files(name: str) -> None:
    from bench.prompts.sets import prompt_set, prompts_folder, state

    known, folder = prompt_set(name), prompts_folder() / name
    typer.echo(f"{name}  {known.source}  {known.licence}  {folder}")
    for file in known.files:
        typer.echo(f"  {file.name}: {file.num_lines} lines, {state(file, folder)}")
