"""`gentron-bench gate`: pass, regression or inconclusive, for a CI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from bench.compare.gate import GateConfig, GateReport


def gate(
    candidate: Annotated[Path, typer.Option(help="result.json, its folder, or a folder with one result.")],
    baseline: Annotated[
        Path | None, typer.Option(help="The same. Default: the one in --baselines.", show_default=False)
    ] = None,
    baselines: Annotated[Path, typer.Option(help="List of accepted baselines.")] = Path(
        "results/baselines.yaml"
    ),
    system: Annotated[
        str | None,
        typer.Option(help="Name in --baselines. Default: the candidate's system.", show_default=False),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Gate file (YAML).")] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Metrics that decide, such as color,shape. Default: the baseline's.", show_default=False
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="METRIC=NUMBER, or NUMBER for all: the drop that nobody minds. Repeatable."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Level of the whole gate. Default: 0.05.", show_default=False)
    ] = None,
    band: Annotated[Path | None, typer.Option(help="Tolerances that calibrate measured.")] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="File of fid --save-reference, to judge distances by. Repeatable."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="Append Markdown here. Default: $GITHUB_STEP_SUMMARY.", show_default=False),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the verdict here.")] = None,
    annotations: Annotated[
        bool | None,
        typer.Option(
            "--annotations/--no-annotations",
            help="Print ::error lines. Default: on GitHub.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Judge a candidate by a baseline. Exit codes: 0 pass, 1 regression, 2 usage, 3 inconclusive,
    4 not comparable or no baseline, 5 nothing measured."""
    from bench.compare.gate import Inputs
    from bench.compare.gate import gate as judge_results

    settings, file_band = _settings(config, family, tolerance or [], alpha)
    inputs = Inputs(
        candidate=candidate,
        baseline=baseline,
        baselines=baselines,
        system=system,
        band=band or file_band,
        references=tuple(reference or ()),
    )
    report = judge_results(inputs, settings, seed=seed)
    _write(report, junit, json_file, summary)
    _show(report)
    if annotations if annotations is not None else os.environ.get("GITHUB_ACTIONS") == "true":
        from bench.compare.gate_outputs import github_lines

        for line in github_lines(report):
            typer.echo(line)
    raise typer.Exit(report.exit_code)


def _settings(
    file: Path | None, family: str | None, tolerance: list[str], alpha: float | None
) -> tuple[GateConfig, Path | None]:
    """The gate file, overruled by flags; and the band it names, as seen from here."""
    from dataclasses import replace

    from bench.commands.compare import split_names
    from bench.compare.gate import GateConfig, parse_tolerances, read_gate_file

    settings = read_gate_file(file) if file else GateConfig()
    given = parse_tolerances(tolerance)
    default = given.pop("", settings.default_tolerance)
    settings = replace(
        settings,
        family=split_names(family) or settings.family,
        tolerances={**settings.tolerances, **given},
        default_tolerance=default,
        alpha=settings.alpha if alpha is None else alpha,
    )
    band = file.parent / settings.band if file and settings.band else None
    return settings, band


def _write(report: GateReport, junit: Path | None, json_file: Path | None, summary: Path | None) -> None:
    from bench.compare.gate_outputs import dump_report, markdown
    from bench.compare.gate_outputs import junit as junit_xml
    from bench.systems.images import write_atomic

    if junit is not None:
        write_atomic(junit, junit_xml(report))
    if json_file is not None:
        write_atomic(json_file, dump_report(report))
    if summary is None and os.environ.get("GITHUB_STEP_SUMMARY"):
        summary = Path(os.environ["GITHUB_STEP_SUMMARY"])
    if summary is not None:
        summary.parent.mkdir(parents=True, exist_ok=True)
        with summary.open("a", encoding="utf-8") as file:  # other steps write there too
            file.write(markdown(report))


def _show(report: GateReport) -> None:
    from bench.commands.progress import wide_console
    from bench.compare.gate_outputs import footnotes, plain, sides

    console = wide_console()
    if report.metrics:
        console.print(_table(report))
        for metric in report.metrics:
            if metric.reason:
                console.print(plain(f"{metric.metric}: {metric.reason}"), markup=False, soft_wrap=True)
    for line in (*footnotes(report), *sides(report)):
        console.print(plain(line), style="dim", markup=False, soft_wrap=True)
    console.print(plain(report.message), style="bold", markup=False, soft_wrap=True)


def _table(report: GateReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from bench.compare.gate_outputs import cells, headings

    table = Table(title=escape(f"gate: {report.verdict}"), title_justify="left")
    for heading in headings(report):
        justify = "left" if heading in ("metric", "verdict") else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    for metric in report.metrics:
        table.add_row(*(escape(cell) for cell in cells(metric)))
    return table
