"""The command `gentron-bench`. Heavy libraries are imported once a command runs: --help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.compbench import compbench, list_
from bench.commands.judge import judge
from bench.commands.prompts import prompts_app
from bench.commands.weights import weights_app
from gentron.console import make_app, run_app
from gentron.errors import UserError

app = make_app("gentron-bench: measures GenTron and any other text-to-image system.")

app.command()(compbench)
app.command(name="list")(list_)
app.command()(judge)
app.add_typer(weights_app, name="weights")
app.add_typer(prompts_app, name="prompts")


@app.command()
def report(results: Annotated[Path, typer.Option(help="Folder of results.")] = Path("results")) -> None:
    """Write README.md with a table of all results."""
    from bench.images import write_atomic
    from bench.report import find_results, markdown

    found = find_results(results)
    if not found:
        raise UserError(f"no results in '{results}': expected <protocol>/<system>/<run>/result.json")
    write_atomic(results / "README.md", markdown(found, results).encode())
    typer.echo(f"{results / 'README.md'}: {len(found)} results")


def main() -> None:
    run_app(app)
