"""Results -> what a report shows: which of them stand together, and what beside them. Prints nothing.

Two results stand in one table only if protocol, its hash, the scorers (weights and settings) and the prompt
lists agree. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.compare.comparable import PLACES
from bench.compare.effects import higher_is_better, neither_is_better
from bench.report.entries import (
    Entry,
    Found,
    Loaded,
    details,
    grouped,
    key_of,
    mean_value,
    order,
    show,
    value_of,
)
from bench.report.series import History, Sweep, histories, sweeps
from bench.results.published import PublishedRow, rows_for
from bench.results.record import Result, SetMetric
from bench.results.warnings import warnings


@dataclass(frozen=True, kw_only=True, slots=True)
class SetGroup:
    """Values of one metric of a set under the very same conditions."""

    name: str
    conditions: str
    values: list[tuple[Entry, SetMetric]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Results that compare with each other.

    apart: the fields that keep them out of the section's first table; empty for that one.
    """

    anchor: str
    apart: str
    categories: list[str]
    entries: list[Entry]
    published: list[PublishedRow]
    set_groups: list[SetGroup]
    sweeps: list[Sweep]
    histories: list[History]

    @property
    def current(self) -> list[Entry]:
        """Without older runs of the same settings, which are history."""
        old = [entry for history in self.histories for entry in history.entries[:-1]]
        return [entry for entry in self.entries if entry not in old]

    def best(self, category: str | None) -> Entry | None:
        """The best mean among results of the same size; None unless there are two to choose from."""
        if category is not None and neither_is_better(category):
            return None
        size = max(((e.result.counts.scored, *_size(e)) for e in self.entries), default=None)
        fit = [e for e in self.entries if e.is_result and size and _size(e) == size[1:]]
        scored = [(v.mean, e) for e in fit if (v := e.mean if category is None else e.values.get(category))]
        choose = max if category is None or higher_is_better(category) else min
        return choose(scored, key=lambda pair: pair[0])[1] if len(scored) > 1 else None


def _size(entry: Entry) -> tuple[int, int]:
    return (entry.result.limit or 10**9, entry.result.images_per_prompt)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """All results of one protocol, which is one name with one hash."""

    anchor: str
    protocol: str
    sha256: str
    comparisons: list[Comparison]

    @property
    def entries(self) -> list[Entry]:
        return [entry for comparison in self.comparisons for entry in comparison.entries]


def sections(found: Sequence[Found], *, published_folder: Path | None = None) -> list[Section]:
    """Every result in the one section, and the one table, where it belongs."""
    groups = grouped(found, lambda f: (f.result.protocol, f.result.protocol_sha256))
    groups.sort(key=lambda group: (group[0].result.protocol, group[0].result.protocol_sha256))
    return [_section(group, f"p{k}", published_folder) for k, group in enumerate(groups, 1)]


def _section(found: Sequence[Found], anchor: str, published_folder: Path | None) -> Section:
    first = found[0].result
    hues = {name: k for k, name in enumerate(dict.fromkeys(sorted(f.result.system.name for f in found)))}
    rows = rows_for(first.protocol, published_folder)
    tables = []
    for k, (group, apart) in enumerate(compatible(found), 1):
        tables.append(_comparison(group, f"{anchor}-t{k}", apart, hues, rows))
    return Section(anchor=anchor, protocol=first.protocol, sha256=first.protocol_sha256, comparisons=tables)


def compatible(found: Sequence[Found]) -> list[tuple[list[Found], str]]:
    """Results split where scorers or prompt lists differ, each part with the fields that set it apart."""
    parts: list[list[Found]] = []
    reasons: list[str] = []
    for each in sorted(found, key=_natural):
        differences = [[d for other in part for d in difference(other.result, each.result)] for part in parts]
        fits = next((part for part, d in zip(parts, differences, strict=True) if not d), None)
        if fits is None:
            parts.append([each])
            reasons.append(", ".join(dict.fromkeys(differences[0])) if differences else "")
        else:
            fits.append(each)
    return list(zip(parts, reasons, strict=True))


def _natural(found: Found) -> tuple[Any, ...]:
    """Real results first; then by system, settings and date."""
    result = found.result
    settings = tuple((name, order(value)) for name, value in result.system.settings.items())
    bad = result.is_rehearsal, result.system.untrained
    return (*bad, result.system.name, settings, result.provenance.date, str(found.path))


def difference(a: Result, b: Result) -> list[str]:
    """The fields, dotted, in which two results of one protocol measure another thing; none: they compare.

    `*` stands for all the categories that both have.
    """
    shared = [category for category in a.scorers if category in b.scorers]
    places: dict[str, list[str]] = {}
    for category in shared:
        ours, theirs = (_flat(asdict(result.scorers[category])) for result in (a, b))
        for name in dict.fromkeys((*ours, *theirs)):
            if ours.get(name) != theirs.get(name):
                places.setdefault(name, []).append(category)
    fields = []
    for name, categories in places.items():
        where = ["*"] if len(categories) == len(shared) > 1 else categories
        fields += [f"scorers.{category}.{name}" for category in where]
    measured = {m.category for m in a.metrics} & {m.category for m in b.metrics}
    fields += [f"editions.{c}" for c in sorted(measured) if a.editions.get(c) != b.editions.get(c)]
    return fields


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """One level of mappings opened up: settings.precision."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat.update(
            {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat


def _comparison(
    found: Sequence[Found], anchor: str, apart: str, hues: dict[str, int], published: list[PublishedRow]
) -> Comparison:
    categories = list(dict.fromkeys(m.category for f in found for m in f.result.metrics))
    entries = []
    for k, (each, detail) in enumerate(zip(found, details(found), strict=True), 1):
        by_name = {m.category: m.score for m in each.result.metrics}
        values = {name: value for name, metric in by_name.items() if (value := value_of(metric))}
        complete = categories and all(name in by_name for name in categories)
        complete = complete and not each.result.is_of_measures  # on scales of their own
        entry = Entry(
            found=each,
            anchor=f"{anchor}-r{k}",
            system=each.result.system.name,
            detail=detail,
            values=values,
            mean=mean_value([by_name[name] for name in categories]) if complete else None,
            flags=tuple(warnings(each.result)),
            hue=hues[each.result.system.name],
        )
        entries.append(entry)
    real = any(not entry.result.is_rehearsal for entry in entries)
    shown = [row for row in published if real and any(c in row.scores for c in categories)]
    return Comparison(
        anchor=anchor,
        apart=apart,
        categories=categories,
        entries=entries,
        published=shown,
        set_groups=set_groups(entries),
        sweeps=sweeps(entries),
        histories=histories(entries),
    )


def set_groups(entries: Sequence[Entry]) -> list[SetGroup]:
    """Metrics of sets, grouped by all that shapes a value."""
    pairs = [(entry, metric) for entry in entries for metric in entry.result.set_metrics]
    groups = grouped(pairs, lambda pair: _conditions_key(pair[1]))
    return [
        SetGroup(name=group[0][1].name, conditions=conditions(group[0][1]), values=group)
        for group in sorted(groups, key=lambda group: group[0][1].name)
    ]


def _conditions_key(metric: SetMetric) -> str:
    settings = {name: value for name, value in metric.settings.items() if name not in PLACES}
    return key_of(asdict(replace(metric, value=0.0, interval=None, settings=settings)))


def conditions(metric: SetMetric) -> str:
    """What must agree for two values to compare, on one line."""
    reference = metric.reference
    parts = [f"{metric.num_images} images"]
    if reference:
        parts.append(f"reference {reference.id} ({reference.num_images} images, {reference.sha256[:12]})")
    for name, value in metric.settings.items():
        if name in PLACES:
            continue
        text = show(value)
        parts.append(f"{name} {text[:12]}" if name.endswith("sha256") else f"{name} {text}")
    return " · ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """A whole report: what is shown, and what was left out."""

    sections: list[Section]
    left_out: list[str] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        return [entry for section in self.sections for entry in section.entries]


def overview(loaded: Loaded, *, published_folder: Path | None = None) -> Overview:
    found = sections(loaded.found, published_folder=published_folder)
    return Overview(sections=found, left_out=loaded.left_out)
