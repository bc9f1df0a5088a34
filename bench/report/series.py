"""Results of one system that belong together: sweeps over settings, histories over time. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.entries import Entry, grouped, key_of, order, show, varied
from bench.results.record import limit_words

MIN_SWEEP = 3  # values of one setting that make a line; two are a comparison, which the tables show
MAX_LINE_SWEEPS = 6  # cuts through a sweep of three and more settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Results of one system that differ in `names` only; names that always change together count as one.

    points: values of the names -> entry.
    """

    system: str
    names: tuple[tuple[str, ...], ...]
    fixed: dict[str, Any]
    points: list[tuple[tuple[Any, ...], Entry]]

    def values(self, axis: int) -> list[Any]:
        """The distinct values along an axis, in order."""
        found = {key_of(at[axis]): at[axis] for at, _ in self.points}
        return sorted(found.values(), key=order)

    def at(self, *values: Any) -> Entry | None:
        wanted = [key_of(v) for v in values]
        return next((e for at, e in self.points if [key_of(v) for v in at] == wanted), None)

    def title(self, axis: int) -> str:
        return ", ".join(self.names[axis])


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The same system with the same settings over time."""

    system: str
    entries: list[Entry]


def _same_conditions(entry: Entry, *, weights: bool) -> str:
    result = entry.result
    system = result.system
    fields = [system.kind, system.name, system.untrained, result.suite, result.seed]
    fields += [result.images_per_prompt, result.limit, limit_words(result)]
    return key_of([*fields, system.weights_sha256 if weights else None])


def sweeps(entries: Sequence[Entry]) -> list[Sweep]:
    """Results that differ in one or two settings only: lines and grids to draw."""
    found = []
    for group in grouped(entries, lambda e: _same_conditions(e, weights=True)):
        latest: dict[str, Entry] = {}
        for entry in sorted(group, key=lambda e: e.result.provenance.date):
            latest[key_of(entry.result.system.settings)] = entry
        found += _sweeps_of(list(latest.values()))
    return found


def _sweeps_of(entries: list[Entry]) -> list[Sweep]:
    names = _together([e.result.system.settings for e in entries])
    if len(names) == 1:
        return [_sweep(entries, names)] if len(entries) >= MIN_SWEEP else []
    if len(names) == 2 and _is_grid(entries, names):
        return [_sweep(entries, names)]
    cuts = []
    for axis in names:
        others = [n for group in names if group != axis for n in group]
        for cut in grouped(entries, lambda e: key_of([e.result.system.settings.get(n) for n in others])):  # noqa: B023
            if len(cut) >= MIN_SWEEP:
                cuts.append(_sweep(cut, [axis]))
    return cuts[:MAX_LINE_SWEEPS]


def _together(settings: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Varied names, those that always change together in one group (height and width)."""
    patterns: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in varied(settings):
        values = [key_of(each.get(name)) for each in settings]
        patterns[tuple(values.index(value) for value in values)].append(name)
    return [tuple(names) for names in patterns.values()]


def _at(entry: Entry, names: tuple[str, ...]) -> Any:
    values = [entry.result.system.settings.get(name) for name in names]
    return values[0] if len({key_of(v) for v in values}) == 1 else " / ".join(map(show, values))


def _is_grid(entries: list[Entry], names: list[tuple[str, ...]]) -> bool:
    """At least 2 x 2, and at least half of its cells are there."""
    rows, columns = ({key_of(_at(e, n)) for e in entries} for n in names)
    return min(len(rows), len(columns)) >= 2 and len(entries) >= max(4, len(rows) * len(columns) / 2)


def _sweep(entries: list[Entry], names: list[tuple[str, ...]]) -> Sweep:
    swept = {name for group in names for name in group}
    settings = entries[0].result.system.settings
    points = [(tuple(_at(entry, group) for group in names), entry) for entry in entries]
    return Sweep(
        system=entries[0].system,
        names=tuple(names),
        fixed={name: value for name, value in settings.items() if name not in swept},
        points=sorted(points, key=lambda point: [order(value) for value in point[0]]),
    )


def histories(entries: Sequence[Entry]) -> list[History]:
    """The same system and settings at two or more times, oldest first; the weights may have changed."""
    found = []
    for group in grouped(
        entries, lambda e: (_same_conditions(e, weights=False), key_of(e.result.system.settings))
    ):
        moments = {(e.result.provenance.date, e.result.provenance.commit) for e in group}
        if len(moments) > 1:
            ordered = sorted(group, key=lambda e: e.result.provenance.date)
            found.append(History(system=ordered[0].system, entries=ordered))
    return found
