"""`gentron-bench report`: any set of results as an HTML page, as Markdown, as LaTeX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.report.entries import Loaded

MAX_PICTURES = 20


def report(
    places: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS",
            help="Results: result.json files, their folders, or folders of results. Default: --results.",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Folder of results; its README.md is written if no file is asked for.")
    ] = Path("results"),
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One page that holds all it shows.", show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tables in Markdown.", show_default=False)
    ] = None,
    latex: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tables in LaTeX, for booktabs.", show_default=False)
    ] = None,
    pictures: Annotated[
        int, typer.Option(help="Lowest, highest and random pictures of each category in the page; 0: none.")
    ] = 3,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out results that cannot be read, and say so.")
    ] = False,
) -> None:
    """Show results: tables with intervals, plots, sweeps, history, pictures and papers' rows.

    Without --html, --markdown, --latex: README.md in the folder, or Markdown on stdout for named RESULTS.
    """
    if not 0 <= pictures <= MAX_PICTURES:
        raise ValueError(f"pictures must be 0 to {MAX_PICTURES}, got {pictures}")

    from bench.report.entries import load
    from bench.report.overview import overview
    from bench.systems.images import write_atomic
    from gentron.atomic import check_writable

    wanted = [path for path in (html, markdown, latex) if path]
    if len({path.absolute() for path in wanted}) < len(wanted):
        raise ValueError("html, markdown and latex must be different files")
    for path in wanted:
        check_writable(path)
    loaded = load(places or [results], keep_going=keep_going)
    for line in loaded.left_out:
        typer.echo(f"left out: {line}", err=True)
    if not wanted and not places:
        _write_readme(results, loaded)
        return

    from bench.report.tables import latex as latex_of
    from bench.report.tables import markdown as markdown_of

    found = overview(loaded)
    if not wanted:
        typer.echo(markdown_of(found), nl=False)
    if html:
        from bench.report.html.page import page

        write_atomic(html, page(found, pictures=pictures).encode())
    if markdown:
        write_atomic(markdown, markdown_of(found).encode())
    if latex:
        write_atomic(latex, latex_of(found).encode())
    for path in wanted:
        typer.echo(f"{path}: {len(loaded.found)} results, {path.stat().st_size / 1000:,.0f} kB")


def _write_readme(results: Path, loaded: Loaded) -> None:
    """The folder's README.md, with the results that lie at <protocol>/<system>/<run>."""
    from bench.report.summary import markdown
    from bench.systems.images import write_atomic

    found = [(f.path, f.result) for f in loaded.found if len(f.path.relative_to(results).parts) == 4]
    if not found:
        raise UserError(f"no results in '{results}': expected <protocol>/<system>/<run>/result.json")
    write_atomic(results / "README.md", markdown(found, results).encode())
    typer.echo(f"{results / 'README.md'}: {len(found)} results")
