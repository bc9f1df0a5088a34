"""The tables of the HTML report. Every text that came from a file goes through `e`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.report.entries import Entry, Value, show
from bench.report.overview import Comparison, SetGroup
from bench.report.tables import (
    MARKS,
    interval_text,
    names,
    number,
    published_number,
    skipped,
    sources,
)
from bench.results.aggregate import MetricValue
from bench.results.record import limit_words

SHOWN_MISSING = 12
SHOWN_VIEWS = ("seen", "held-out", "unseen", "chance", "shuffled")  # first where a result has them


def e(text: object) -> str:
    """Any text as HTML shows it, in attributes too."""
    return escape(str(text), quote=True)


def box(table: str, *, label: str, kind: str = "") -> str:
    """A table in its own scrolling box, which the keyboard can reach."""
    return f'<div class="box {kind}" role="region" aria-label="{e(label)}" tabindex="0">{table}</div>'


def table(head: Sequence[str], rows: Sequence[str], *, kind: str = "", caption: str = "") -> str:
    """head and rows: cells that are HTML already."""
    said = f"<caption>{caption}</caption>" if caption else ""
    top = f"<thead><tr>{''.join(head)}</tr></thead>"
    return f'<table class="{kind}">{said}{top}<tbody>{"".join(rows)}</tbody></table>'


def th(text: str, kind: str = "") -> str:
    return f'<th scope="col"{_class(kind)}>{e(text)}</th>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def chips(entry: Entry) -> str:
    """The warnings of an entry, short, with the whole text as a title."""
    each = [f'<span class="chip {f.kind}" title="{e(f.text)}">{e(f.short)}</span>' for f in entry.flags]
    return f'<span class="chips">{"".join(each)}</span>' if each else ""


def said_of(labels: Sequence[str], comparison: Comparison) -> str:
    """Who a note is about, before it."""
    return f"<b>{e(names(labels, comparison.entries))}</b>: "


def name_cell(entry: Entry, *, link: bool = True) -> str:
    """Who the row is about: colour, system, what tells it from others, warnings."""
    system = f'<a href="#{entry.anchor}">{e(entry.system)}</a>' if link else e(entry.system)
    detail = f'<span class="detail">{e(entry.detail)}</span>' if entry.detail else ""
    return f'<th scope="row"><i class="swatch h{entry.hue % 8}"></i>{system}{chips(entry)}{detail}</th>'


def value_cell(value: Value | None, *, best: bool = False, kind: str = "") -> str:
    """A mean with its interval below; the sort key is the full number."""
    if value is None:
        return f'<td class="none {kind}" data-key="">–</td>'
    title = f"{value.num_images} images of {value.num_prompts} prompts"
    span = interval_text(value)
    below = f'<span class="interval">{span}</span>' if span else ""
    classes = " ".join(filter(None, [kind, "best" if best else ""]))
    inside = f"<b>{number(value.mean)}</b>{below}"
    return f'<td{_class(classes)} data-key="{value.mean!r}" title="{title}">{inside}</td>'


# ---- scores ----------------------------------------------------------------------------------------------


def score_table(comparison: Comparison) -> str:
    """A row a result, a column a category; sortable."""
    head = [_sortable("system", "text"), _sortable("images"), *map(_sortable, comparison.categories)]
    head.append(_sortable("mean", kind="mean"))
    best = {c: comparison.best(c) for c in comparison.categories}
    best_mean = comparison.best(None)
    rows = []
    for entry in comparison.entries:
        counts = entry.result.counts
        cells = [name_cell(entry), f'<td class="count" data-key="{counts.scored}">{counts.scored}</td>']
        cells += [value_cell(entry.values.get(c), best=best[c] is entry) for c in comparison.categories]
        cells.append(value_cell(entry.mean, best=best_mean is entry, kind="mean"))
        rows.append(f"<tr{_class('' if entry.is_result else 'doubtful')}>{''.join(cells)}</tr>")
    return box(table(head, rows, kind="scores sortable"), label="Scores")


def _sortable(text: str, kind: str = "") -> str:
    return f'<th scope="col"{_class(kind)}><button type="button">{e(text)}</button></th>'


def published_table(comparison: Comparison) -> str:
    """Papers' rows in the columns of the scores, in a box of their own."""
    if not comparison.published:
        return ""
    head = [th("published, not measured here", "text"), *map(th, comparison.categories), th("mean", "mean")]
    rows = []
    for row in comparison.published:
        detail = f'<span class="detail">{e(" · ".join(row.settings.values()))}</span>' if row.settings else ""
        mark = MARKS[row.certainty].strip(" ()")
        chip = (
            f'<span class="chips"><span class="chip note" title="{e(row.why)}">{e(mark)}</span></span>'
            if mark
            else ""
        )
        cells = [f'<th scope="row"><i class="swatch published"></i>{e(row.system)}{chip}{detail}</th>']
        cells += [_plain(published_number(row.scores.get(c), row.decimals)) for c in comparison.categories]
        cells.append(_plain(published_number(row.mean, row.decimals), "mean"))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{e(line)}</li>" for line in sources(comparison.published))
    inside = box(table(head, rows, kind="scores"), label="Published rows", kind="published")
    return f'<h3>Published rows of the same evaluator</h3>{inside}<ul class="notes">{notes}</ul>'


def _plain(text: str, kind: str = "") -> str:
    return f"<td{_class(kind)}>{e(text)}</td>"


def set_table(group: SetGroup) -> str:
    rows = []
    for entry, metric in group.values:
        span = "–" if metric.interval is None else f"{metric.interval[0]:.4g}–{metric.interval[1]:.4g}"
        rows.append(f"<tr>{name_cell(entry)}<td><b>{metric.value:.4g}</b></td>{_plain(span)}</tr>")
    head = [th("system", "text"), th(group.name), th("95 % interval")]
    inside = table(head, rows, kind="scores", caption=e(group.conditions))
    return box(inside, label=group.name, kind="narrow")


def view_table(comparison: Comparison) -> str:
    """Every view of every category: parts of the list, chance levels, the scorer's own parts."""
    found = dict.fromkeys(v for entry in comparison.entries for m in entry.result.metrics for v in m.views)
    views = [v for v in SHOWN_VIEWS if v in found] + [v for v in found if v not in SHOWN_VIEWS]
    if not views:
        return ""
    rows = []
    for entry in comparison.entries:
        for k, metrics in enumerate(entry.result.metrics):
            cells = [value_cell(entry.values.get(metrics.category))]
            cells += [_view_cell(metrics.views.get(view)) for view in views]
            who = (
                f'<th scope="rowgroup" rowspan="{len(entry.result.metrics)}">{e(entry.label)}</th>'
                if not k
                else ""
            )
            group = ' class="first"' if not k else ""
            rows.append(f"<tr{group}>{who}{_plain(metrics.category, 'text')}{''.join(cells)}</tr>")
    head = [th("system", "text"), th("category", "text"), th("score"), *map(th, views)]
    return box(table(head, rows, kind="views"), label="Parts of the scores")


def _view_cell(value: MetricValue | None) -> str:
    if value is None or value.mean is None:
        return '<td class="none">–</td>'
    return f'<td title="{value.num_images} images">{number(value.mean)}</td>'


# ---- what was not measured -------------------------------------------------------------------------------


def skipped_list(comparison: Comparison) -> str:
    lines = [
        f"<li><b>{e(metric)}</b>, {e(names(labels, comparison.entries))}: {e(reason)}</li>"
        for (metric, reason), labels in skipped(comparison.entries).items()
    ]
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def missing_list(comparison: Comparison) -> str:
    """The first missing images of each result, with reasons."""
    lines = []
    for entry in comparison.entries:
        missing = entry.result.missing
        if not missing:
            continue
        shown = ", ".join(f"{m.prompt_id}_{m.sample:02d} ({m.reason})" for m in missing[:SHOWN_MISSING])
        more = f" and {len(missing) - SHOWN_MISSING} more" if len(missing) > SHOWN_MISSING else ""
        counts = f"{len(missing)} of {entry.result.counts.expected} images"
        lines.append(f"<li><b>{e(entry.label)}</b>, {counts}: {e(shown)}{more}</li>")
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


# ---- provenance ------------------------------------------------------------------------------------------


def provenance(entry: Entry) -> str:
    """All that a result says about how it came to be."""
    result, where = entry.result, entry.result.provenance
    system = result.system
    state = "" if where.dirty is None else (", with uncommitted changes" if where.dirty else ", clean")
    limit = limit_words(result) or "all prompts"
    weights = system.weights_sha256
    rows = [
        ("file", str(entry.found.path)),
        ("command", where.command),
        ("date", where.date),
        ("bench commit", f"{where.commit}{state}" if where.commit else "installed package"),
        ("system", f"{system.kind}, {system.name}{', untrained' if system.untrained else ''}"),
        ("weights sha256", weights or "not known"),
        *((name, show(value)) for name, value in system.settings.items()),
        ("protocol", f"{result.protocol}, sha256 {result.protocol_sha256}"),
        ("size", f"suite {result.suite}, {limit}, {result.images_per_prompt} a prompt, seed {result.seed}"),
        ("images", f"{result.counts.scored} of {result.counts.expected} scored"),
        ("kept in", where.images or "not said"),
        *((f"scorer of {', '.join(categories)}", text) for text, categories in _scorers(entry).items()),
        ("device", f"{where.device}, {where.machine}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in where.packages.items())),
    ]
    lines = "".join(f'<tr><th scope="row">{e(name)}</th><td>{e(text)}</td></tr>' for name, text in rows)
    return f'<div class="box plain"><table class="facts"><tbody>{lines}</tbody></table></div>'


def _scorers(entry: Entry) -> dict[str, list[str]]:
    """Description of each scorer -> its categories."""
    found: dict[str, list[str]] = {}
    for category, scorer in entry.result.scorers.items():
        parts = [f"{scorer.name} version {scorer.version}"]
        parts += ["random weights"] if scorer.random_weights else []
        parts += [f"{name} {digest}" for name, digest in scorer.weights.items()]
        parts += [f"{name} {show(value)}" for name, value in scorer.settings.items() if name != "tested"]
        found.setdefault(", ".join(parts), []).append(category)
    return found
