"""An overview of results -> Markdown and LaTeX tables. Decides nothing, measures nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.report.entries import Entry, Value
from bench.report.overview import Comparison, Overview, Section
from bench.results.published import PublishedRow

INTERVALS = "Mean and 95 % interval over prompts"
MARKS = {"certain": "", "likely": " (likely)", "unknown": " (unknown)"}


def number(mean: float) -> str:
    return f"{mean:.3f}"


def interval_text(value: Value) -> str:
    """`0.858–0.910`, or nothing where no interval is known."""
    if value.low is None or value.high is None:
        return ""
    return f"{value.low:.3f}–{value.high:.3f}"


def published_number(score: float | None, decimals: int) -> str:
    return "–" if score is None else f"{score:.{decimals}f}"


def published_label(row: PublishedRow) -> str:
    return " · ".join([row.system, *row.settings.values()])


def sources(rows: Sequence[PublishedRow]) -> list[str]:
    """Where published rows are from, how sure their evaluator is, and what else differs; each said once."""
    tables: dict[str, dict[str, None]] = {}
    for row in rows:
        tables.setdefault(row.paper, {}).update(dict.fromkeys(row.tables))
    lines = [f"{paper}: {'; '.join(names)}." for paper, names in tables.items()]
    for row in rows:
        if row.certainty != "certain":
            lines.append(f"That they are of {row.protocol} is {row.certainty}, not certain. {row.why}")
        lists = ", ".join(f"{category} {edition}" for category, edition in row.editions.items())
        if lists:
            lines.append(f"Prompt lists: {lists}.")
    return list(dict.fromkeys(lines))


def apart_text(comparison: Comparison) -> str:
    return f"In a table of their own, since they differ in {comparison.apart}." if comparison.apart else ""


def all_flags(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What is to be said -> labels of the entries that it is said of."""
    said: dict[str, list[str]] = {}
    for entry in entries:
        for flag in entry.flags:
            said.setdefault(flag.text, []).append(entry.label)
    return said


def names(labels: Sequence[str], entries: Sequence[Entry], *, shown: int = 3) -> str:
    """Who it is said of, in a few words."""
    if len(labels) == len(entries) > 1:
        return "all rows"
    return ", ".join(labels) if len(labels) <= shown else f"{len(labels)} of {len(entries)} rows"


def skipped(entries: Sequence[Entry]) -> dict[tuple[str, str], list[str]]:
    """(metric, reason) -> labels of the entries that lack it."""
    said: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for each in entry.result.skipped:
            said.setdefault((each.metric, each.reason), []).append(entry.label)
    return said


# ---- Markdown --------------------------------------------------------------------------------------------


def md(text: str) -> str:
    """Text as Markdown shows it, in a table cell too: one line, no markup, no HTML."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """The first `texts` columns are texts, the others numbers."""
    rule = ["---" if k < texts else "---:" for k in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def _md_value(value: Value | None, *, best: bool) -> str:
    if value is None:
        return "–"
    shown = f"**{number(value.mean)}**" if best else number(value.mean)
    span = interval_text(value)
    return f"{shown}<br>{span}" if span else shown


def markdown(report: Overview) -> str:
    """All tables, a section a protocol."""
    lines = ["# Report", ""]
    for section in report.sections:
        lines += _md_section(section)
    if report.left_out:
        lines += ["## Left out", "", *(f"- {md(line)}" for line in report.left_out), ""]
    return "\n".join(lines)


def _md_section(section: Section) -> list[str]:
    lines = [f"## {md(section.protocol)}", "", f"Protocol sha256 `{section.sha256[:16]}`. {INTERVALS}.", ""]
    for comparison in section.comparisons:
        if comparison.apart:
            lines += [md(apart_text(comparison)), ""]
        lines += _md_scores(comparison) if comparison.categories else []
        lines += _md_sets(comparison)
        lines += _md_published(comparison)
        lines += _md_notes(comparison)
    return lines


def _md_scores(comparison: Comparison) -> list[str]:
    best = {c: comparison.best(c) for c in comparison.categories}
    rows = []
    for entry in comparison.entries:
        cells = [_md_value(entry.values.get(c), best=best[c] is entry) for c in comparison.categories]
        mean = _md_value(entry.mean, best=comparison.best(None) is entry)
        notes = ", ".join(flag.short for flag in entry.flags)
        rows.append([md(entry.label), md(notes), str(entry.result.counts.scored), *cells, mean])
    head = ["system", "notes", "images", *map(md, comparison.categories), "mean"]
    return [*_md_table(head, rows, texts=2), ""]


def _md_sets(comparison: Comparison) -> list[str]:
    lines = []
    for group in comparison.set_groups:
        rows = []
        for entry, metric in group.values:
            span = "–" if metric.interval is None else f"{metric.interval[0]:.4g}–{metric.interval[1]:.4g}"
            rows.append([md(entry.label), f"{metric.value:.4g}", span])
        lines += [f"**{md(group.name)}**: {md(group.conditions)}", ""]
        lines += [*_md_table(["system", md(group.name), "95 % interval"], rows, texts=1), ""]
    return lines


def _md_published(comparison: Comparison) -> list[str]:
    if not comparison.published:
        return []
    rows = []
    for row in comparison.published:
        cells = [published_number(row.scores.get(c), row.decimals) for c in comparison.categories]
        mean = published_number(row.mean, row.decimals)
        rows.append([md(published_label(row) + MARKS[row.certainty]), *cells, mean])
    head = ["published, not measured here", *map(md, comparison.categories), "mean"]
    notes = [f"- {md(line)}" for line in sources(comparison.published)]
    return [*_md_table(head, rows, texts=1), "", *notes, ""]


def _md_notes(comparison: Comparison) -> list[str]:
    entries = comparison.entries
    lines = [f"- {md(names(labels, entries))}: {md(text)}" for text, labels in all_flags(entries).items()]
    lines += [
        f"- {md(metric)} skipped: {md(reason)} ({md(names(labels, entries))})"
        for (metric, reason), labels in skipped(entries).items()
    ]
    return [*lines, ""] if lines else []


# ---- LaTeX -----------------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "·": r"$\cdot$",
    "–": "--",
}


def tex(text: str) -> str:
    """Text as LaTeX sets it, on one line."""
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _tex_value(value: Value | None, *, best: bool) -> str:
    if value is None:
        return "--"
    shown = rf"\mathbf{{{number(value.mean)}}}" if best else number(value.mean)
    if value.low is None or value.high is None:
        return f"${shown}$"
    return f"${shown}_{{\\pm {(value.high - value.low) / 2:.3f}}}$"


def latex(report: Overview) -> str:
    """One table environment a comparison, for \\usepackage{booktabs}."""
    lines = ["% Made by gentron-bench report; needs \\usepackage{booktabs}."]
    for section in report.sections:
        for comparison in section.comparisons:
            if comparison.categories:
                lines += ["", *_tex_table(section, comparison)]
    return "\n".join(lines) + "\n"


def _tex_table(section: Section, comparison: Comparison) -> list[str]:
    columns = "l" + "r" * (len(comparison.categories) + 2)
    width = len(columns)
    head = ["system", "images", *comparison.categories, "mean"]
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{_tex_caption(section, comparison)}}}",
    ]
    lines += [rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', f'{section.protocol}-{comparison.anchor}')}}}"]
    lines += [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(tex, head)) + r" \\",
        r"\midrule",
    ]
    best = {c: comparison.best(c) for c in comparison.categories}
    for entry in comparison.entries:
        notes = f" ({', '.join(flag.short for flag in entry.flags)})" if entry.flags else ""
        cells = [_tex_value(entry.values.get(c), best=best[c] is entry) for c in comparison.categories]
        mean = _tex_value(entry.mean, best=comparison.best(None) is entry)
        lines.append(
            " & ".join([tex(entry.label + notes), str(entry.result.counts.scored), *cells, mean]) + r" \\"
        )
    if comparison.published:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{published, not measured here}}}} \\"]
    for row in comparison.published:
        cells = [published_number(row.scores.get(c), row.decimals) for c in comparison.categories]
        mean = published_number(row.mean, row.decimals)
        name = tex(published_label(row) + MARKS[row.certainty])
        lines.append(" & ".join([name, "--", *map(tex, cells), tex(mean)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]


def _tex_caption(section: Section, comparison: Comparison) -> str:
    parts = [f"{section.protocol} (sha256 {section.sha256[:12]}). {INTERVALS} (half its width as subscript)."]
    parts += [apart_text(comparison)] if comparison.apart else []
    entries = comparison.entries
    parts += [f"{names(labels, entries)}: {text}." for text, labels in all_flags(entries).items()]
    parts += ["Published rows: " + " ".join(sources(comparison.published))] if comparison.published else []
    return tex(" ".join(parts))
