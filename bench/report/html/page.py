"""An overview of results -> one HTML file that holds all it shows. Decides nothing, measures nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import TypeVar

from bench.report.entries import Entry, Value, grouped, setting_text, show
from bench.report.html.pictures import MAX_BYTES, Album, Shown, album, common, pick
from bench.report.html.plots import Dot, Line, Point, bar, dot_plot, heat_map, line_plot
from bench.report.html.tables import (
    chips,
    e,
    missing_list,
    provenance,
    published_table,
    said_of,
    score_table,
    set_table,
    skipped_list,
    view_table,
)
from bench.report.overview import Comparison, Overview, Section
from bench.report.series import History, Sweep
from bench.report.tables import all_flags, apart_text, interval_text, published_label

MAX_ROWS = 40  # of a dot plot
MAX_BESIDE = 6  # systems side by side
MEAN = "mean"
T = TypeVar("T")


def asset(name: str) -> str:
    """A file beside this one: package data."""
    return (files("bench") / "report" / "html" / name).read_text(encoding="utf-8").strip()


def page(report: Overview, *, pictures: int = 3) -> str:
    """The whole page. pictures: of each kind (lowest, highest, random) a category and result; 0 for none.

    The same results give the same bytes.
    """
    style, script = asset("style.css"), asset("script.js")
    budget = Budget(MAX_BYTES)
    body = [_left_out(report.left_out)]
    body += [_section(section, pictures, budget) for section in report.sections]
    heading = report.sections[0].protocol if len(report.sections) == 1 else "Results"
    return Template(asset("page.html")).substitute(
        policy=e(policy(style, script)),
        title=e(f"{heading} · gentron-bench report"),
        heading=e(heading),
        summary=e(_summary(report)),
        contents=_contents(report),
        style=style,
        script=script,
        body="\n".join(filter(None, body)),
    )


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which nothing is fetched and only this style and script count."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _summary(report: Overview) -> str:
    entries = report.entries
    newest = max(entry.result.provenance.date for entry in entries)
    images = sum(entry.result.counts.scored for entry in entries)
    parts = [count(len(entries), "result"), count(len({entry.system for entry in entries}), "system")]
    parts += [
        count(len(report.sections), "protocol"),
        f"{images:,} pictures scored",
        f"newest of {newest[:10]}",
    ]
    return " · ".join(parts)


def _contents(report: Overview) -> str:
    links = []
    for section in report.sections:
        if len(report.sections) > 1:
            links.append(f'<a class="part" href="#{section.anchor}">{e(section.protocol)}</a>')
        for comparison in section.comparisons:
            links += [f'<a href="#{anchor}">{e(title)}</a>' for anchor, title in _parts(comparison)]
    return "".join(links)


def _parts(comparison: Comparison) -> list[tuple[str, str]]:
    """Anchor and title of what a comparison has."""
    at = comparison.anchor
    asked = [
        (bool(comparison.categories), "scores", "Scores"),
        (bool(comparison.categories), "plots", "By category"),
        (bool(comparison.set_groups), "sets", "Sets"),
        (bool(comparison.sweeps), "sweeps", "Sweeps"),
        (bool(comparison.histories), "history", "History"),
        (True, "pictures", "Pictures"),
        (True, "provenance", "Provenance"),
    ]
    return [(f"{at}-{name}", title) for shown, name, title in asked if shown]


def _left_out(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{e(line)}</li>" for line in lines)
    return f'<aside class="callout bad"><h2>{count(len(lines), "file")} left out</h2><ul>{items}</ul></aside>'


# ---- a protocol ------------------------------------------------------------------------------------------


def _section(section: Section, pictures: int, budget: Budget) -> str:
    parts = [f"<h2>{e(section.protocol)}</h2>"]
    parts.append(f'<p class="sub">Protocol sha256 <code>{e(section.sha256[:16])}</code></p>')
    parts += [_comparison(comparison, pictures, budget) for comparison in section.comparisons]
    return f'<section class="protocol" id="{section.anchor}">{"".join(parts)}</section>'


def _comparison(comparison: Comparison, pictures: int, budget: Budget) -> str:
    at = comparison.anchor
    parts = [f'<p class="callout note">{e(apart_text(comparison))}</p>' if comparison.apart else ""]
    if comparison.categories:
        parts += [_heading(at, "scores", "Scores"), score_table(comparison), _score_notes(comparison)]
        parts.append(published_table(comparison))
        parts += [_heading(at, "plots", "By category"), _category_plots(comparison)]
    if comparison.set_groups:
        parts += [_heading(at, "sets", "Sets"), *map(set_table, comparison.set_groups)]
    if comparison.sweeps:
        parts.append(_heading(at, "sweeps", "Sweeps"))
        parts += [_sweep(sweep, comparison) for sweep in comparison.sweeps]
    if comparison.histories:
        parts.append(_heading(at, "history", "History"))
        parts += [_history(history, comparison) for history in comparison.histories]
    parts += [_heading(at, "pictures", "Pictures"), _pictures(comparison, pictures, budget)]
    parts.append(_not_measured(comparison))
    parts += [_heading(at, "provenance", "Provenance"), *map(_provenance, comparison.entries)]
    return f'<div class="comparison">{"".join(filter(None, parts))}</div>'


def _heading(at: str, name: str, title: str) -> str:
    return f'<h3 id="{at}-{name}">{e(title)}</h3>'


def _score_notes(comparison: Comparison) -> str:
    lines = [
        f"<li>{said_of(labels, comparison)}{e(text)}</li>"
        for text, labels in all_flags(comparison.entries).items()
    ]
    marked = comparison.best(None) or any(comparison.best(c) for c in comparison.categories)
    legend = "Mean over prompts with its 95 % interval; none is given where all prompts score alike."
    if marked:
        legend += (
            " Underlined is the highest mean among results of the same size; where intervals overlap, the"
            " order is not settled."
        )
    notes = f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""
    views = view_table(comparison)
    folded = f'<details class="more"><summary>Parts of the scores</summary>{views}</details>' if views else ""
    return f'<p class="legend">{legend}</p>{notes}{folded}'


def _not_measured(comparison: Comparison) -> str:
    skipped, missing = skipped_list(comparison), missing_list(comparison)
    parts = [f"<h3>Not measured</h3>{skipped}"] if skipped else []
    parts += [f"<h3>Missing images</h3>{missing}"] if missing else []
    return "".join(parts)


def _provenance(entry: Entry) -> str:
    return (
        f'<details class="more" id="{entry.anchor}"><summary><i class="swatch h{entry.hue % 8}"></i>'
        f"{e(entry.label)}{chips(entry)}</summary>{provenance(entry)}</details>"
    )


# ---- plots -----------------------------------------------------------------------------------------------


def _figure(caption: str, svg: str) -> str:
    return f'<figure class="plot"><figcaption>{e(caption)}</figcaption>{svg}</figure>'


def _said(label: str, value: Value) -> str:
    """What a reader sees when pointing at a mark."""
    span = interval_text(value)
    return f"{label}: {value.mean:.3f}{f' ({span})' if span else ''}, {value.num_images} images"


def _category_plots(comparison: Comparison) -> str:
    entries = comparison.current
    ticks = any("chance" in m.views for entry in entries for m in entry.result.metrics)
    note = "Dots are means, lines 95 % intervals; each panel has its own axis."
    note += " The small upright mark is the chance level." if ticks else ""
    note += " Hollow diamonds are published rows, not measured here." if comparison.published else ""
    note += " Older runs of the same settings are under History." if comparison.histories else ""
    plots = [
        _figure(name, dot_plot(_dots(comparison, name), label=_plot_label(name)))
        for name in _panels(comparison, entries)
    ]
    return f'<p class="legend">{note}</p><div class="panels">{"".join(plots)}</div>'


def _plot_label(name: str) -> str:
    return f"{name}: means with 95 % intervals, by system"


def _dots(comparison: Comparison, category: str) -> list[Dot | str]:
    """A dot a result, those of a system with several under its name; then published rows."""
    rows: list[Dot | str] = []
    for entries in grouped(comparison.current[:MAX_ROWS], lambda entry: entry.system):
        dots = [dot for entry in entries if (dot := _dot(entry, category, inside=len(entries) > 1))]
        rows += [entries[0].system, *dots] if dots and len(entries) > 1 else dots
    return rows + _published_dots(comparison, category)


def _published_dots(comparison: Comparison, category: str) -> list[Dot | str]:
    """The same for papers' rows: systems with several rows first."""
    groups = grouped(comparison.published, lambda row: row.system)
    groups.sort(key=lambda group: len(group) == 1)
    rows: list[Dot | str] = []
    heading = ""
    for group in groups:
        for row in group:
            mean = row.mean if category == MEAN else row.scores.get(category)
            if mean is None:
                continue
            several = len(group) > 1
            if heading != (heading := f"{row.system}, published" if several else "published"):
                rows.append(heading)
            label = " · ".join(row.settings.values()) if several else row.system
            said = f"{published_label(row)}: {mean:.{row.decimals}f}, published"
            rows.append(Dot(label=label, mean=mean, hue=None, title=said))
    return rows


def _dot(entry: Entry, category: str, *, inside: bool) -> Dot | None:
    value = _value(entry, category)
    if value is None:
        return None
    views = next((m.views for m in entry.result.metrics if m.category == category), {})
    return Dot(
        label=entry.detail if inside and entry.detail else entry.label,
        mean=value.mean,
        low=value.low,
        high=value.high,
        hue=entry.hue,
        tick=views["chance"].mean if "chance" in views else None,
        faint=not entry.is_result,
        title=_said(entry.label, value),
    )


def _value(entry: Entry, category: str) -> Value | None:
    return entry.mean if category == MEAN else entry.values.get(category)


def _panels(comparison: Comparison, entries: Iterable[Entry]) -> list[str]:
    """The mean first, then the categories, as far as these entries have them."""
    entries = list(entries)
    return [name for name in (MEAN, *comparison.categories) if any(_value(entry, name) for entry in entries)]


def _sweep(sweep: Sweep, comparison: Comparison) -> str:
    fixed = " · ".join(setting_text(name, value) for name, value in sweep.fixed.items())
    title = f"{sweep.system}: {' × '.join(sweep.title(k) for k in range(len(sweep.names)))}"
    draw = _sweep_line if len(sweep.names) == 1 else _sweep_grid
    panels = _panels(comparison, (entry for _, entry in sweep.points))
    plots = [_figure(name, draw(sweep, name)) for name in panels]
    what = (
        "Dots are means, bands 95 % intervals."
        if len(sweep.names) == 1
        else "Means; the stronger the ground, the higher."
    )
    legend = f'<p class="legend">{what} {e(f"All else is the same: {fixed}.") if fixed else ""}</p>'
    return f'<h4>{e(title)}</h4>{legend}<div class="panels">{"".join(plots)}</div>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sweep_line(sweep: Sweep, category: str) -> str:
    values = sweep.values(0)
    numeric = all(map(_is_number, values))
    places = {show(v): float(v) if numeric else float(k) for k, v in enumerate(values)}
    points = []
    for (at,), entry in sweep.points:
        if value := _value(entry, category):
            points.append(_point(places[show(at)], value, entry.label))
    line = Line(label=sweep.system, points=points, hue=sweep.points[0][1].hue, joined=numeric)
    ticks = [(place, text) for text, place in places.items()]
    label = f"{category} over {sweep.title(0)}"
    return line_plot([line], label=label, x_ticks=ticks, x_title=sweep.title(0))


def _point(x: float, value: Value, label: str) -> Point:
    return Point(x=x, mean=value.mean, low=value.low, high=value.high, title=_said(label, value))


def _sweep_grid(sweep: Sweep, category: str) -> str:
    rows, columns = sweep.values(0), sweep.values(1)
    cells = [[_cell(sweep.at(row, column), category) for column in columns] for row in rows]
    return heat_map(
        cells,
        rows=[show(v) for v in rows],
        columns=[show(v) for v in columns],
        row_title=sweep.title(0),
        column_title=sweep.title(1),
        label=f"{category} over {sweep.title(0)} and {sweep.title(1)}",
    )


def _cell(entry: Entry | None, category: str) -> tuple[float, str] | None:
    value = _value(entry, category) if entry else None
    return (value.mean, _said(entry.label, value)) if entry and value else None


def _history(history: History, comparison: Comparison) -> str:
    panels = _panels(comparison, history.entries)
    plots = [_figure(name, _history_plot(history, name)) for name in panels]
    first, last = (entry.result.provenance.date[:10] for entry in (history.entries[0], history.entries[-1]))
    weights = len({entry.result.system.weights_sha256 for entry in history.entries})
    changed = f", {count(weights, 'set')} of weights" if weights > 1 else ", the same weights"
    settings = history.entries[0].result.system.settings.items()
    at = " · ".join(setting_text(name, value) for name, value in settings)
    legend = (
        f"{count(len(history.entries), 'result')} from {first} to {last}{changed}, in order of time. {at}"
    )
    head = f'<h4>{e(history.system)}</h4><p class="legend">{e(legend)}</p>'
    return f'{head}<div class="panels">{"".join(plots)}</div>'


def _history_plot(history: History, category: str) -> str:
    points = []
    for k, entry in enumerate(history.entries):
        if value := _value(entry, category):
            where = entry.result.provenance
            weights = (entry.result.system.weights_sha256 or "not known")[:8]
            at = f"{where.date[:16]}, commit {(where.commit or 'release')[:8]}, weights {weights}"
            points.append(_point(float(k), value, at))
    ticks = [
        (float(k), (entry.result.provenance.commit or entry.result.provenance.date)[:8])
        for k, entry in enumerate(history.entries)
    ]
    line = Line(label=history.system, points=points, hue=history.entries[0].hue)
    return line_plot([line], label=f"{category} over time", x_ticks=ticks, x_title="commit of the bench")


# ---- pictures --------------------------------------------------------------------------------------------


class Budget:
    """How many bytes of pictures the page may still take. A part that was begun is finished."""

    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def is_spent(self) -> bool:
        return self.left <= 0

    def spend(self, part: str) -> str:
        self.left -= len(part)
        return part


def _pictures(comparison: Comparison, wanted: int, budget: Budget) -> str:
    if wanted == 0:
        return '<p class="legend">None were asked for (<code>--pictures 0</code>).</p>'
    albums = [(entry, album(entry.found)) for entry in comparison.entries]
    current = [(entry, pictures) for entry, pictures in albums if entry in comparison.current]
    parts = [budget.spend(_beside(comparison, current, wanted))]
    absent: dict[str, list[str]] = {}
    for entry, pictures in albums:
        if pictures.folder is None:
            absent.setdefault(pictures.absent, []).append(entry.label)
            continue
        if budget.is_spent:
            reason = (
                f"pictures left out, the page has {MAX_BYTES / 1e6:.0f} MB of them: ask for fewer results"
            )
            absent.setdefault(reason, []).append(entry.label)
            continue
        parts.append(budget.spend(_album(entry, pictures, wanted, opened=len(albums) == 1)))
    lines = [f"<li>{said_of(labels, comparison)}{e(reason)}</li>" for reason, labels in absent.items()]
    if lines:
        parts.append(f'<ul class="notes">{"".join(lines)}</ul>')
    return "".join(parts)


def _beside(comparison: Comparison, albums: Sequence[tuple[Entry, Album]], wanted: int) -> str:
    """The same prompts by several systems, chosen without a look at the scores."""
    all_here = [(entry, pictures) for entry, pictures in albums if pictures.folder is not None]
    here = spread(all_here, MAX_BESIDE)
    if len(here) < 2:
        return ""
    blocks = []
    several = len({entry.system for entry, _ in here}) > 1
    names = [entry.label if several else entry.detail or entry.system for entry, _ in here]
    for category in comparison.categories:
        of = [(_lines(entry, category), pictures) for entry, pictures in here]
        rows = common(of, wanted)
        strips = "".join(_strip(row, [entry for entry, _ in here], names) for row in rows)
        if strips:
            opened = "" if blocks else " open"
            blocks.append(f'<details class="part"{opened}><summary>{e(category)}</summary>{strips}</details>')
    if not blocks:
        return ""
    legend = f"{count(wanted, 'prompt')} a category, drawn without a look at the scores."
    if len(here) < len(all_here):
        legend += f" {len(here)} of {len(all_here)} results."
    return (
        f'<details class="more beside" open><summary>The same prompts side by side</summary>'
        f'<p class="legend">{legend}</p>{"".join(blocks)}</details>'
    )


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly from first to last."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def _lines(entry: Entry, category: str) -> list:
    return [line for line in entry.found.scores or [] if line.category == category]


def _strip(row: Sequence[Shown], entries: Sequence[Entry], names: Sequence[str]) -> str:
    heads = [
        f'<p class="who" title="{e(entry.label)}"><i class="swatch h{entry.hue % 8}"></i>{e(name)}</p>'
        for entry, name in zip(entries, names, strict=True)
    ]
    cells = [_picture(shown, head=head) for shown, head in zip(row, heads, strict=True)]
    return (
        f'<p class="prompt">{e(row[0].line.prompt)}</p><div class="strip" tabindex="0">{"".join(cells)}</div>'
    )


def _album(entry: Entry, pictures: Album, wanted: int, *, opened: bool) -> str:
    blocks = []
    for category in entry.values:
        groups = pick(_lines(entry, category), pictures, wanted)
        shown = "".join(_group(name, each) for name, each in groups.items() if each)
        if shown:
            blocks.append(f'<h5>{e(category)}</h5><div class="groups">{shown}</div>')
    trouble = ", ".join(f"{number} {reason}" for reason, number in pictures.trouble.items())
    note = f'<p class="legend">Some pictures could not be shown: {e(trouble)}.</p>' if trouble else ""
    title = f'<i class="swatch h{entry.hue % 8}"></i>{e(entry.label)}{chips(entry)}'
    return (
        f'<details class="more album"{" open" if opened else ""}><summary>{title}</summary>'
        f"{note}{''.join(blocks)}</details>"
    )


def _group(name: str, shown: Sequence[Shown]) -> str:
    inside = "".join(map(_picture, shown))
    return f'<div class="group"><h6>{e(name)}</h6><div class="pictures">{inside}</div></div>'


def _picture(shown: Shown, head: str = "") -> str:
    """The picture, and below it the score, the prompt and the reason. head: stands above, for the prompt."""
    line, picture = shown.line, shown.picture
    kind = ' class="small"' if max(picture.width, picture.height) < 160 else ""
    chance = "" if line.chance is None else f'<span class="level">chance {line.chance:.2f}</span>'
    prompt = "" if head else f'<p class="prompt">{e(line.prompt)}</p>'
    return (
        f'<figure class="picture">{head}<img{kind} src="{picture.uri}" width="{picture.width}"'
        f' height="{picture.height}" alt="{e(line.prompt)}" loading="lazy">{bar(line.score, line.chance)}'
        f'<figcaption><p class="score"><b>{_score(line.score)}</b>{chance}</p>{prompt}'
        f'<p class="reason" title="{e(line.reason)}">{e(line.reason)}</p></figcaption></figure>'
    )


def _score(score: float) -> str:
    """At most three decimals, no zeros that say nothing."""
    return re.sub(r"(\.\d*?[1-9])0+$|\.0+$", r"\1", f"{score:.3f}")
