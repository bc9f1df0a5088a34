"""`gentron-bench compare`: two results of one protocol, paired."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from bench.compare.comparison import Comparison, Move

NOT_COMPARABLE_EXIT = 4


def compare(
    baseline: Annotated[Path, typer.Argument(help="result.json or its folder.")],
    candidate: Annotated[Path, typer.Argument(help="result.json or its folder.")],
    family: Annotated[
        str | None,
        typer.Option(
            help="Metrics that are tested together, such as color,shape. Default: all that both have.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Prompts that moved most to show.", min=0, max=10_000)] = 10,
    alpha: Annotated[float, typer.Option(help="Level of the tests.")] = 0.05,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="File of fid --save-reference, to judge distances by. Repeatable."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it all to this file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Compare two results: effect, interval, p and what could have been found, per metric.

    Paired by prompt, seed and sample. Results that were not measured alike are refused with exit code 4.
    """
    from bench.compare.comparable import NotComparable
    from bench.compare.comparison import compare as compare_results
    from bench.results.evidence import load

    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha must be above 0 and at most 0.5, got {alpha}")
    chosen = split_names(family)
    sides = load(baseline), load(candidate)
    try:
        found = compare_results(
            *sides, family=chosen, alpha=alpha, top=top, references=reference or [], seed=seed
        )
    except NotComparable as error:
        typer.echo(f"not comparable: {error}", err=True)
        raise typer.Exit(NOT_COMPARABLE_EXIT) from None
    if json_file is not None:
        import json

        from bench.systems.images import write_atomic
        from gentron.config import to_dict

        write_atomic(json_file, (json.dumps(to_dict(found), indent=1) + "\n").encode())
    _show(found)


def split_names(words: str | None) -> list[str] | None:
    """ "color,shape" -> ["color", "shape"]; None stays None."""
    if words is None:
        return None
    names = [word.strip() for word in words.split(",")]
    if not all(names):
        raise ValueError(f"metrics must be names separated by commas, got '{words}'")
    return names


def _show(found: Comparison) -> None:
    from bench.commands.progress import wide_console
    from bench.compare.gate_outputs import plain

    console = wide_console()
    for name, side in (("baseline", found.baseline), ("candidate", found.candidate)):
        commit = f", commit {side.commit[:8]}" if side.commit else ""
        line = f"{name}: {side.label}, {side.date[:10]}{commit}, {side.path}"
        console.print(plain(line), markup=False, soft_wrap=True)
    console.print(_table(found))
    for line in _notes(found):
        console.print(plain(line), style="dim", markup=False)
    for move in found.moves:
        _show_move(console, move)


def _table(found: Comparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from bench.compare.gate_outputs import between, number, small

    table = Table(title=escape(f"{found.protocol}: candidate - baseline"), title_justify="left")
    percent = f"{100 * (1 - found.alpha):g} % interval"
    for heading in (
        "metric",
        "baseline",
        "candidate",
        "change",
        percent,
        "p",
        "Holm p",
        "MDE",
        "n",
    ):
        table.add_column(heading, justify="left" if heading == "metric" else "right", overflow="fold")
    table.add_column("verdict")
    for delta in found.deltas:
        table.add_row(
            escape(delta.metric),
            number(delta.baseline),
            number(delta.candidate),
            number(delta.difference, sign=True),
            between(delta.interval),
            small(delta.p),
            small(delta.p_holm),
            number(delta.minimum_detectable_effect),
            str(delta.num_prompts or "-"),
            delta.verdict,
        )
    return table


def _notes(found: Comparison) -> list[str]:
    few = "" if len(found.family) == 1 else f" over the {len(found.family)} metrics of the family"
    lines = [
        *found.notes,
        f"paired by prompt, seed and sample; intervals and p over n prompts; Holm{few};"
        " MDE: the true difference that so many prompts find in 80 % of runs",
    ]
    lines += [f"{delta.metric}: {delta.note}" for delta in found.deltas if delta.note]
    return lines + [f"not compared: {line}" for line in found.not_measured]


def _show_move(console, move: Move) -> None:
    from bench.compare.gate_outputs import plain

    scores = f"{move.baseline:.3f} -> {move.candidate:.3f}"
    head = f"{move.difference:+.3f}  {move.prompt_id}  {scores}  {move.prompt}"
    console.print(plain(head), markup=False, soft_wrap=True)
    for name, reason, picture in (
        ("baseline ", move.baseline_reason, move.baseline_picture),
        ("candidate", move.candidate_reason, move.candidate_picture),
    ):
        where = picture or "picture not on this machine"
        console.print(
            plain(f"        {name}: {reason}  [{where}]"), style="dim", markup=False, soft_wrap=True
        )
