"""The page of a lambda_M sweep: plots, the whole table and contact sheets in one file, without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from bench.results.record import UNTRAINED_NOTE
from bench.sweeps.drawing import Drawing, to_svg
from bench.sweeps.grid import BASE, PUBLISHED
from bench.sweeps.table import CellRecord, CellValue, Column, SweepRecord
from bench.weights import RANDOM_NOTE

STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: .85em } td, th { padding: .3em .6em; text-align: right }
th { border-bottom: 1px solid #999; vertical-align: bottom } tr.base { background: #f1ead6 }
td small { display: block; color: #777 } td.better small { color: #2c7a41 } td.worse small { color: #b03a2e }
.wide { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 1em }
img { max-width: 100% } .warning { color: #b03a2e }
"""


def page(
    record: SweepRecord,
    plots: Sequence[Drawing],
    small_plots: Sequence[Drawing],
    sheets: Sequence[tuple[str, bytes]],
) -> str:
    """sheets: (prompt, PNG)."""
    title = f"{record.system.name} · {record.protocol} · lambda_M"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_about(record))}</p>",
        *(f'<p class="warning">{escape(text)}</p>' for text in warnings(record)),
        '<div class="plots">' + "".join(map(to_svg, plots)) + "</div>",
        f"<h2>Every value</h2><p>{escape(TABLE_WORDS)}</p>",
        f'<div class="wide">{_table(record)}</div>',
        f"<h2>Over lambda_M</h2><p>{escape(RANGE_WORDS)}</p>",
        '<div class="plots">' + "".join(map(to_svg, small_plots)) + "</div>",
        "<h2>What is measured</h2>",
        "<ul>" + "".join(map(_definition, record.columns)) + "</ul>",
        "<h2>Clips of the same seed</h2><p>A row a value of lambda_M, a column a frame.</p>",
        *(f"<h3>{escape(text)}</h3>{_image(text, data)}" for text, data in sheets),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


TABLE_WORDS = (
    "Means over prompts; below them the paired difference from lambda_M = 1 at the same lambda_T with its"
    " 95 % interval, clip by clip of the same seeds. Coloured where the interval leaves 0 out: green is"
    " better. No correction for the number of cells."
)
RANGE_WORDS = (
    f"Shaded: lambda_M from {PUBLISHED[0]:g} to {PUBLISHED[1]:g}, the best range in the paper (2312.04557)."
    " Bars: 95 % intervals over prompts."
)


def warnings(record: SweepRecord) -> list[str]:
    """Why the numbers are not, or not quite, the protocol's."""
    found = []
    if record.is_rehearsal:
        found.append(RANDOM_NOTE)
    if record.system.untrained:
        found.append(UNTRAINED_NOTE)
    if record.limit is not None:
        found.append(f"first {record.limit} prompts of each category only: not the full protocol")
    reasons: dict[str, list[str]] = {}
    for skipped in record.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.metric)
    return found + [f"skipped: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _about(record: SweepRecord) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in record.system.settings.items())
    clips = record.num_prompts * record.clips_per_prompt
    return (
        f"{record.num_prompts} prompts, {clips} clips a value, seed {record.seed}, the same noise for every"
        f" value; {settings}. {record.provenance.date}, commit {(record.provenance.commit or 'release')[:8]}:"
        f" {record.provenance.command}"
    )


def _table(record: SweepRecord) -> str:
    sets = list(dict.fromkeys(metric.name for cell in record.cells for metric in cell.set_metrics))
    heads = ["lambda_M", "lambda_T", "branches", *(_head(column) for column in record.columns), *sets]
    rows = [_row(record, cell, sets) for cell in record.cells]
    return (
        "<table><thead><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + "</tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table>"
    )


def _head(column: Column) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    return escape(column.name.replace("_", " ")) + arrow


def _row(record: SweepRecord, cell: CellRecord, sets: Sequence[str]) -> str:
    kind = ' class="base"' if cell.motion_guidance_scale == BASE else ""
    cells = [
        f"<td>{cell.motion_guidance_scale:g}</td><td>{cell.guidance_scale:g}</td><td>{cell.branches}</td>"
    ]
    cells += [_cell(column, cell.values.get(column.name)) for column in record.columns]
    by_name = {metric.name: metric.value for metric in cell.set_metrics}
    cells += [f"<td>{number(by_name[name])}</td>" if name in by_name else "<td></td>" for name in sets]
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _cell(column: Column, found: CellValue | None) -> str:
    if found is None:
        return "<td></td>"
    apart = found.difference
    if apart is None:
        return f"<td>{number(found.value.mean)}</td>"
    between = (
        "" if apart.interval is None else f" ({_signed(apart.interval[0])} to {_signed(apart.interval[1])})"
    )
    kind = verdict(column, found)
    return f'<td class="{kind}">{number(found.value.mean)}<small>{_signed(apart.mean)}{between}</small></td>'


def verdict(column: Column, found: CellValue) -> str:
    """better or worse than lambda_M = 1 where the interval of the difference leaves 0 out; else nothing."""
    apart = found.difference
    if apart is None or apart.interval is None or column.higher_is_better is None:
        return ""
    low, high = apart.interval
    if low <= 0 <= high:
        return ""
    return "better" if (low > 0) == column.higher_is_better else "worse"


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) >= 0.05 or value == 0 else f"{value:.2g}"


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) >= 0.05 or value == 0 else f"{value:+.2g}"


def _definition(column: Column) -> str:
    part = "" if column.part is None else f", its '{column.part}'"
    return f"<li><b>{escape(column.name)}</b> ({escape(column.measure + part)}): {escape(column.words)}</li>"


def _image(text: str, data: bytes) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
