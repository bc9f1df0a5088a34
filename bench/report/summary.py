"""Results -> tables: for the terminal, and results/README.md. Decides nothing, measures nothing."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bench.results.aggregate import CategoryMetrics, MetricValue
from bench.results.record import Result, read_result
from bench.results.warnings import ResultWarning, warnings
from bench.shipped import shipped_folder


def reference(protocol: str, protocol_sha256: str) -> Result | None:
    """The committed reference run of this very protocol, or None."""
    path = shipped_folder("results/reference") / f"{protocol}.json"
    if not path.is_file():
        return None
    result = read_result(path)
    return result if result.protocol_sha256 == protocol_sha256 else None


def _mean(value: MetricValue) -> str:
    if value.mean is None:
        return "-"
    error = "" if value.stderr is None else f" ± {value.stderr:.3f}"
    return f"{value.mean:.3f}{error}"


def _short(value: MetricValue) -> str:
    return "-" if value.mean is None else f"{value.mean:.3f}"


def label(result: Result) -> str:
    """The system, and what keeps its numbers from being a result."""
    marks = [" (untrained)"] if result.system.untrained else []
    return "".join([result.system.name, *marks, *([" (rehearsal)"] if result.is_rehearsal else [])])


def title(result: Result) -> str:
    return f"{result.protocol} · {label(result)}"


# the columns of the shapes world, of its pictures and of its clips; other scorers show their own views
SHOWN = ("held-out", "chance", "shuffled", "extra objects", "relation")
SHOWN_OF_MOTION = ("held-out", "chance", "direction", "binding", "appearance", "step px")


def is_motion(result: Result) -> bool:
    """Of clips of the shapes world."""
    return any(metrics.scorer == "motion" for metrics in result.metrics)


def _columns(result: Result) -> list[str]:
    """Views that some category has: the well-known ones first, at most six."""
    found = dict.fromkeys(view for metrics in result.metrics for view in metrics.views)
    known = [view for view in (SHOWN_OF_MOTION if is_motion(result) else SHOWN) if view in found]
    return (known or list(found))[:6]


def result_table(result: Result, beside: Result | None) -> Table:
    """One row a category; `beside` adds the reference run's score."""
    table = Table(title=escape(title(result)), title_justify="left", caption_justify="left")
    views = _columns(result)
    for heading in ("category", "score", "n", *views):
        table.add_column(escape(heading), justify="left" if heading == "category" else "right")
    known = {m.category: m for m in beside.metrics} if beside else {}
    if beside:
        table.add_column(f"reference ({escape(beside.system.name)})", justify="right")
    for metrics in result.metrics:
        cells = [_view(metrics, view) for view in views]
        if beside:
            cells.append(_mean(known[metrics.category].score) if metrics.category in known else "-")
        table.add_row(metrics.category, _mean(metrics.score), str(metrics.score.num_images), *cells)
    for skipped in result.skipped:
        table.add_row(escape(skipped.metric), "skipped", "0", *["-"] * (len(views) + bool(beside)))
    return table


def _view(metrics: CategoryMetrics, name: str) -> str:
    return _short(metrics.views[name]) if name in metrics.views else "-"


def notes(result: Result) -> list[str]:
    """What a reader must know beside the table."""
    counts = result.counts
    what = "clips" if is_motion(result) else "images"
    lines = [f"{counts.scored} of {counts.expected} {what} scored; mean ± standard error over prompts."]
    if is_motion(result):
        lines.append(
            "score: share of clips in which everything moves as asked; chance: the same clips with what the"
            " category tests redrawn; direction: whatever the others do; binding: who moves and who does not;"
            " step px: mean way between frames. appearance, persistence: every frame, over all clips."
        )
    elif any("chance" in metrics.views for metrics in result.metrics):
        lines.append(
            "chance: the same pictures against the prompt with the tested attribute redrawn; shuffled:"
            " against other prompts; extra objects: share of pictures with more objects than asked;"
            " relation: its grade where both objects were found."
        )
    for reason in dict.fromkeys(skipped.reason for skipped in result.skipped):
        names = ", ".join(skipped.metric for skipped in result.skipped if skipped.reason == reason)
        lines.append(f"{names} skipped: {reason}")
    lines += [_sentence(each, result) for each in warnings(result) if each.name in AT_THE_END]
    return lines


# the others are said above the table, or are of no weight to whoever has just run the command
AT_THE_END = ("rehearsal", "untrained", "missing", "blank", "limit", "edition", "phrases")


def _sentence(warning: ResultWarning, result: Result) -> str:
    if warning.name == "missing":  # how many there are of stands in the first line
        return f"{result.counts.missing} images are missing: the means are over survivors only."
    if warning.name == "phrases":
        return f"{warning.text}; comparable only with results of the same source (docs/phrases.md)."
    return f"{warning.text}."


# ---- results/README.md -----------------------------------------------------------------------------------


def find_results(folder: Path) -> list[tuple[Path, Result]]:
    """All results below a folder, by path."""
    return [(path, read_result(path)) for path in sorted(folder.glob("*/*/*/result.json"))]


def markdown(results: list[tuple[Path, Result]], folder: Path) -> str:
    """One table a protocol, one row a run; published by `gentron-bench report`."""
    lines = ["# Results", "", "Made by `gentron-bench report`; do not edit.", ""]
    protocols = dict.fromkeys((r.protocol, r.protocol_sha256) for _, r in results)
    for name, digest in protocols:
        runs = [(path, r) for path, r in results if (r.protocol, r.protocol_sha256) == (name, digest)]
        categories = list(dict.fromkeys(m.category for _, r in runs for m in r.metrics))
        lines += [f"## {name}", "", f"Protocol sha256 `{digest[:16]}`. Score ± standard error over prompts,"]
        lines += ["then the mean on held-out prompts and the chance level.", ""]
        lines.append("| system | run | n | " + " | ".join(categories) + " |")
        lines.append("|---" * (len(categories) + 3) + "|")
        lines += [_markdown_row(path, run, categories, folder) for path, run in runs]
        lines.append("")
    return "\n".join(lines)


def _markdown_row(path: Path, run: Result, categories: list[str], folder: Path) -> str:
    by_name = {m.category: m for m in run.metrics}
    cells = [
        f"{_mean(m.score)}<br>{_view(m, 'held-out')} / {_view(m, 'chance')}" if (m := by_name.get(c)) else "-"
        for c in categories
    ]
    where = path.parent.relative_to(folder).as_posix()
    head = [label(run), f"[{path.parent.name}]({where}/result.json)", str(run.counts.scored)]
    return "| " + " | ".join([*head, *cells]) + " |"
