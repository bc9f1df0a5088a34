"""`gentron-bench accept`: makes a result the baseline, with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def accept(
    candidate: Annotated[Path, typer.Argument(help="result.json, its folder, or a folder with one result.")],
    reason: Annotated[str, typer.Option(help="Why this is the new baseline; kept in the list.")],
    baselines: Annotated[Path, typer.Option(help="List of accepted baselines.")] = Path(
        "results/baselines.yaml"
    ),
    system: Annotated[
        str | None,
        typer.Option(help="Name to list it under. Default: its system.", show_default=False),
    ] = None,
    force_untrained: Annotated[
        bool, typer.Option("--force-untrained", help="Also an untrained model or random scorer weights.")
    ] = False,
    force_dirty: Annotated[
        bool, typer.Option("--force-dirty", help="Also if measured with uncommitted changes.")
    ] = False,
    force_partial: Annotated[
        bool, typer.Option("--force-partial", help="Also with missing images or skipped metrics.")
    ] = False,
) -> None:
    """Move a baseline: the result is copied beside the list, which records reason, date and who."""
    from bench.results.baselines import Force
    from bench.results.baselines import accept as accept_result
    from bench.results.evidence import load

    force = Force(untrained=force_untrained, dirty=force_dirty, partial=force_partial)
    found = load(candidate)
    entry = accept_result(found, baselines, reason=reason, force=force, system=system)
    before = f", before it {entry.previous.path}" if entry.previous else ""
    name = system or found.result.system.name
    typer.echo(f"{baselines}: {found.result.protocol}, {name} -> {entry.path}{before}")
    for flag in found.flags:
        typer.echo(f"accepted in spite of it: {flag}")
    typer.echo("commit both")
