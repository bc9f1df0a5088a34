"""A gate's report as text, Markdown, JUnit XML, GitHub annotations and JSON. Decides nothing."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from bench.compare.gate import (
    INCONCLUSIVE,
    NOT_COMPARABLE,
    NOT_MEASURED,
    NOTHING_MEASURED,
    PASS,
    REGRESSION,
    GateReport,
    MetricVerdict,
)
from gentron.config import to_dict

# what XML 1.0 cannot hold, even escaped
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MARKS = {PASS: "✅", REGRESSION: "❌", INCONCLUSIVE: "⚠️", NOT_MEASURED: "⚠️"}


def dump_report(report: GateReport) -> bytes:
    return (json.dumps(to_dict(report), indent=1) + "\n").encode()


def number(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def between(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def small(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def sides(report: GateReport) -> list[str]:
    """A line a side: system, date, commit and where it lies."""
    lines = []
    for name, s in (("baseline", report.baseline), ("candidate", report.candidate)):
        if s is not None:
            commit = f", commit {s.commit[:8]}" if s.commit else ""
            lines.append(f"{name}: {s.label}, {s.date[:10]}{commit}, seed {s.seed}, {s.path}")
    return lines


def headings(report: GateReport) -> list[str]:
    """Of `cells`. The last one is the drop that this gate finds in 80 % of runs."""
    level = f"{100 * (1 - report.alpha):g} % interval"
    return [
        *("metric", "verdict", "baseline", "candidate", "difference", level, "Holm p", "tolerance"),
        "80 % power",
    ]


def cells(m: MetricVerdict) -> list[str]:
    return [
        m.metric,
        m.verdict,
        number(m.baseline),
        number(m.candidate),
        number(m.difference, sign=True),
        between(m.interval),
        small(m.p_holm),
        number(m.tolerance),
        number(m.detectable_drop if m.in_family else m.minimum_detectable_effect),
    ]


# ---- Markdown --------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    """Safe within a Markdown table on GitHub: no HTML, no links, no pipes, one line."""
    text = " ".join(text.split()).replace("\\", "\\\\")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|`*_\[\]#~])", r"\\\1", text)


def markdown(report: GateReport) -> str:
    """The step summary of a GitHub job."""
    mark = MARKS.get(report.verdict, "⛔")
    lines = [f"## {mark} gentron-bench gate: {report.verdict}", "", _cell(report.message), ""]
    if report.metrics:
        names = headings(report)
        lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
        lines += ["| " + " | ".join(_cell(c) for c in cells(m)) + " |" for m in report.metrics]
        lines.append("")
        lines += [f"- **{_cell(m.metric)}**: {_cell(m.reason)}" for m in report.metrics if m.reason]
    lines += [f"- {_cell(line)}" for line in (*footnotes(report), *sides(report))]
    return "\n".join(lines) + "\n"


def footnotes(report: GateReport) -> list[str]:
    """Flags of untrained and rehearsed results first: nobody should read the numbers without them."""
    lines = list(report.notes)
    for source, words in (("default", "by default"), ("band", "from the calibration")):
        named = [m.metric for m in report.metrics if m.tolerance_from == source]
        if named:
            lines.append(f"tolerance {words}: {', '.join(named)}")
    if report.multiplicity:
        lines.append(f"multiplicity: {report.multiplicity}")
        lines.append("80 % power: the true drop that this gate calls a regression in 80 % of runs")
    return lines


# ---- JUnit -----------------------------------------------------------------------------------------------


def junit(report: GateReport) -> bytes:
    """A test case a metric of the family, or one that stands for the whole gate where it could not be run."""
    family = [m for m in report.metrics if m.in_family]
    counted = {
        "failures": sum(m.verdict in (REGRESSION, INCONCLUSIVE) for m in family),
        "errors": sum(m.verdict == NOT_MEASURED for m in family) if family else 1,
    }
    sizes = {"tests": str(max(1, len(family)))} | {name: str(count) for name, count in counted.items()}
    suites = ElementTree.Element("testsuites", sizes)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "gentron-bench gate", **sizes})
    properties = ElementTree.SubElement(suite, "properties")
    for line in (*footnotes(report), *sides(report)):
        ElementTree.SubElement(properties, "property", {"name": "note", "value": _xml(line)})
    name = f"gate.{report.protocol or 'unknown'}"
    for metric in family:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _xml(name), "name": _xml(metric.metric)}
        )
        _outcome(case, metric.verdict, metric.reason, _details(metric, report))
    if not family:
        case = ElementTree.SubElement(suite, "testcase", {"classname": _xml(name), "name": "gate"})
        _outcome(case, report.verdict, report.message, report.message)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n"


def _outcome(case: ElementTree.Element, verdict: str, message: str, text: str) -> None:
    kinds = {REGRESSION: "failure", INCONCLUSIVE: "failure", NOT_MEASURED: "error"}
    kinds |= {NOT_COMPARABLE: "error", NOTHING_MEASURED: "error"}
    if verdict in kinds:
        attributes = {"type": verdict, "message": _xml(message)}
        ElementTree.SubElement(case, kinds[verdict], attributes).text = _xml(text)
    else:
        ElementTree.SubElement(case, "system-out").text = _xml(text)


def _details(m: MetricVerdict, report: GateReport) -> str:
    return "\n".join(f"{name}: {cell}" for name, cell in zip(headings(report), cells(m), strict=True))


def _xml(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


# ---- GitHub annotations ----------------------------------------------------------------------------------


def _data(text: str) -> str:
    """GitHub's escapes of a workflow command's message."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """And of its properties."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def github_lines(report: GateReport) -> list[str]:
    """`::error` for what is wrong, `::warning` for what was not decided; nothing for a pass."""
    flagged = [note for note in report.notes if "not a result" in note]
    lines = [_command("warning", "gentron-bench gate", note) for note in flagged]
    if not report.metrics:
        return [*lines, _command("error", f"gentron-bench gate: {report.verdict}", report.message)]
    for m in report.metrics:
        if m.in_family and m.verdict != PASS:
            kind = "warning" if m.verdict == INCONCLUSIVE else "error"
            lines.append(_command(kind, f"{m.metric}: {m.verdict}", _sentence(m)))
    return lines


def _sentence(m: MetricVerdict) -> str:
    if m.difference is None:
        return m.reason
    return f"{m.reason} (interval {between(m.interval)}, {m.num_prompts} prompts)"


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(title)}::{_data(message)}"


def plain(text: str) -> str:
    """One line of a foreign text for a log: no control characters, nothing that a CI reads as a command."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown.replace("::", ": :").replace("##[", "# #[")
