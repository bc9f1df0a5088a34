"""Results -> tables: for the terminal, and results/README.md. Decides nothing, measures nothing."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bench.aggregate import CategoryMetrics, MetricValue
from bench.results import Result, read_result


def reference(protocol: str, protocol_sha256: str) -> Result | None:
    """The committed reference run of this very protocol, or None."""
    path = Path(str(files("bench"))) / "reference" / f"{protocol}.json"
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


def title(result: Result) -> str:
    untrained = " (untrained)" if result.system.untrained else ""
    return f"{result.protocol} · {result.system.name}{untrained}"


def _cells(metrics: CategoryMetrics) -> list[str]:
    return [
        metrics.category,
        _mean(metrics.score),
        str(metrics.score.num_images),
        _mean(metrics.heldout),
        _short(metrics.chance),
        _short(metrics.shuffled),
        _short(metrics.extra_objects),
        _short(metrics.relation),
    ]


HEADINGS = ("category", "score", "n", "held-out", "chance", "shuffled", "extra", "relation")


def result_table(result: Result, beside: Result | None) -> Table:
    """One row a category; `beside` adds the reference run's score."""
    table = Table(title=escape(title(result)), title_justify="left", caption_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "category" else "right")
    known = {m.category: m for m in beside.metrics} if beside else {}
    if beside:
        table.add_column(f"reference ({escape(beside.system.name)})", justify="right")
    for metrics in result.metrics:
        row = _cells(metrics)
        if beside:
            row.append(_mean(known[metrics.category].score) if metrics.category in known else "-")
        table.add_row(*row)
    return table


def notes(result: Result) -> list[str]:
    """What a reader must know beside the table."""
    counts = result.counts
    lines = [
        f"{counts.scored} of {counts.expected} images scored; mean ± standard error over prompts.",
        "chance: the same pictures against the prompt with the tested attribute redrawn; shuffled: against"
        " other prompts; extra: share of pictures with more objects than asked; relation: its grade where"
        " both objects were found.",
    ]
    if result.system.untrained:
        lines.append("untrained: random weights, a smoke test and not a result.")
    if counts.missing:
        lines.append(f"{counts.missing} images are missing: the means are over survivors only.")
    if result.limit is not None:
        lines.append(f"first {result.limit} prompts of each category only: not the full protocol.")
    return lines


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
        f"{_mean(m.score)}<br>{_short(m.heldout)} / {_short(m.chance)}" if (m := by_name.get(c)) else "-"
        for c in categories
    ]
    where = path.parent.relative_to(folder).as_posix()
    system = run.system.name + (" (untrained)" if run.system.untrained else "")
    head = [system, f"[{path.parent.name}]({where}/result.json)", str(run.counts.scored)]
    return "| " + " | ".join([*head, *cells]) + " |"
