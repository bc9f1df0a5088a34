"""Results -> what a report shows: which stand together, labels, warnings, sweeps, histories. Prints nothing.

Two results stand in one table only if protocol, its hash, the scorers (weights and settings) and the prompt
lists agree. No torch here.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.aggregate import MetricValue, interval
from bench.comparable import PLACES
from bench.evidence import RESULT, SCORES, check_agreement
from bench.published import PublishedRow, rows_for
from bench.results import Result, ScoreLine, SetMetric, read_result, read_scores
from gentron.errors import UserError

MIN_SWEEP = 3  # values of one setting that make a line; two are a comparison, which the tables show
MAX_LINE_SWEEPS = 6  # cuts through a sweep of three and more settings


# ---- reading ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A result with its rows; scores is None where no scores.csv lies beside it."""

    path: Path
    result: Result
    scores: list[ScoreLine] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """left_out: a line for every result that could not be read."""

    found: list[Found]
    left_out: list[str]


def result_paths(places: Sequence[Path]) -> list[Path]:
    """The result.json files that `places` name: files, their folders, or folders of results at any depth."""
    paths: dict[Path, Path] = {}
    for place in places:
        if place.is_dir():
            inside = [place / RESULT] if (place / RESULT).is_file() else sorted(place.rglob(RESULT))
            if not inside:
                raise UserError(f"no results in '{place}': expected <protocol>/<system>/<run>/{RESULT}")
        elif place.is_file():
            inside = [place]
        else:
            raise UserError(f"no file or folder '{place}': expected a {RESULT} or a folder of results")
        for path in inside:
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def load(places: Sequence[Path], *, keep_going: bool) -> Loaded:
    """Read all results of `places`.

    One that is damaged, newer or at odds with its scores.csv is a UserError that names the file, or, with
    keep_going, a line in left_out.
    """
    found, left_out = [], []
    for path in result_paths(places):
        try:
            found.append(read(path))
        except (UserError, OSError) as error:
            if not keep_going:
                raise
            left_out.append(" ".join(str(error).split()))
    if not found:
        raise UserError(f"no result can be read: {'; '.join(left_out)}")
    return Loaded(found=found, left_out=left_out)


def read(path: Path) -> Found:
    """A result and its rows; UserError if they disagree.

    A result.json of its own, such as a committed baseline, is shown as well: without pictures.
    """
    result = read_result(path)
    beside = path.name == RESULT and (path.parent / SCORES).is_file()
    scores = read_scores(path.parent) if beside else None
    if scores is not None:
        check_agreement(path, result, scores)
    return Found(path=path, result=result, scores=scores)


# ---- entries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flag:
    """What a reader must know beside a number. `bad`: it is no result of the system; `note`: it is, but."""

    short: str
    text: str
    kind: Literal["bad", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A mean, its 95 % interval where one is known, and what it was taken over."""

    mean: float
    low: float | None = None
    high: float | None = None
    num_images: int
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A result as one line of a table.

    label: names it among the others; system and detail are its two parts.   anchor: unique in a report.
    mean: over the categories of its table, None unless it has them all.
    """

    found: Found
    anchor: str
    system: str
    detail: str
    values: dict[str, Value]
    mean: Value | None
    flags: tuple[Flag, ...]
    hue: int
    """Number of the system in its section: entries of one system share a colour."""

    @property
    def result(self) -> Result:
        return self.found.result

    @property
    def label(self) -> str:
        return f"{self.system} · {self.detail}" if self.detail else self.system

    @property
    def is_result(self) -> bool:
        return all(flag.kind != "bad" for flag in self.flags)


def value_of(metric: MetricValue) -> Value | None:
    """None where nothing was averaged.

    Scores lie in [0, 1], and so does what is shown of an interval. Where all prompts score alike there is no
    spread to take one from, and none is given: its length would be zero, which nobody should believe.
    """
    if metric.mean is None:
        return None
    low, high = metric.interval or (None, None)
    if low == high:
        low = high = None
    elif low is not None and high is not None and 0 <= metric.mean <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return Value(
        mean=metric.mean,
        low=low,
        high=high,
        num_images=metric.num_images,
        num_prompts=metric.num_prompts,
    )


def mean_value(metrics: Sequence[MetricValue]) -> Value | None:
    """The mean of category means. Categories share no prompt, so their errors add as independent ones.

    The interval takes Student's t on Satterthwaite's degrees of freedom.
    """
    means = [m.mean for m in metrics if m.mean is not None]
    if not means or len(means) < len(metrics):
        return None
    mean = math.fsum(means) / len(means)
    images, prompts = sum(m.num_images for m in metrics), sum(m.num_prompts for m in metrics)
    variances = [m.stderr**2 for m in metrics if m.stderr is not None]
    if len(variances) < len(metrics):
        return Value(mean=mean, num_images=images, num_prompts=prompts)
    total = math.fsum(variances)
    low = high = None
    if total > 0:
        parts = math.fsum(v**2 / (m.num_prompts - 1) for v, m in zip(variances, metrics, strict=True))
        low, high = interval(mean, math.sqrt(total) / len(means), int(total**2 / parts) + 1)
    return Value(mean=mean, low=low, high=high, num_images=images, num_prompts=prompts)


@dataclass(frozen=True, slots=True)
class Published:
    """What the installed protocol of this very hash asks for."""

    images_per_prompt: int
    seed: int


def published_settings(result: Result) -> Published | None:
    """None if this bench has not the protocol, or has it with another hash."""
    from bench.protocol import read_config

    try:
        config, digest = read_config(result.protocol)
    except UserError:
        return None
    if digest != result.protocol_sha256:
        return None
    return Published(config.images_per_prompt, config.seed)


def flags(result: Result) -> tuple[Flag, ...]:
    """Why the numbers are not, or not quite, the protocol's."""
    found = []
    if result.is_rehearsal:
        found.append(Flag("random scorer weights", "random scorer weights: a rehearsal, not a result", "bad"))
    if result.system.untrained:
        found.append(Flag("untrained", "untrained: random weights, a smoke test and not a result", "bad"))
    if result.counts.missing:
        lost = f"{result.counts.missing} of {result.counts.expected} images are missing"
        text = f"{lost}: the means are over survivors only"
        found.append(Flag(f"{result.counts.missing} missing", text, "bad"))
    if result.limit is not None:
        text = f"first {result.limit} prompts of each category only: not the full protocol"
        found.append(Flag(f"first {result.limit}", text, "note"))
    if result.suite != "all":
        found.append(Flag(f"suite {result.suite}", f"suite {result.suite} only", "note"))
    if result.skipped:
        names = ", ".join(s.metric for s in result.skipped)
        found.append(Flag(f"{len(result.skipped)} skipped", f"not measured: {names}", "note"))
    asked = published_settings(result)
    if asked and result.images_per_prompt != asked.images_per_prompt:
        text = f"{result.images_per_prompt} images a prompt, the protocol asks for {asked.images_per_prompt}"
        found.append(Flag(f"{result.images_per_prompt} a prompt", text, "note"))
    if asked and result.seed != asked.seed:
        text = f"seed {result.seed}, the protocol's is {asked.seed}"
        found.append(Flag(f"seed {result.seed}", text, "note"))
    found += [Flag(f"{c}: {e}", f"{c}: prompt list {e}", "note") for c, e in result.editions.items()]
    found += [
        Flag(f"phrases {name}", f"noun phrases by {name}", "note")
        for name in sorted(
            {str(s.settings["phrases"]) for s in result.scorers.values() if "phrases" in s.settings}
        )
        if name != "frozen"
    ]
    if result.provenance.dirty:
        found.append(Flag("uncommitted code", "the bench's own code had uncommitted changes", "note"))
    return tuple(found)


# ---- labels ----------------------------------------------------------------------------------------------

SHORT = {
    "guidance_scale": "guidance {}",
    "num_inference_steps": "{} steps",
    "sampler": "{}",
    "height": "{} px high",
    "width": "{} px wide",
}


def show(value: Any) -> str:
    """A setting's value in few characters."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def setting_text(name: str, value: Any) -> str:
    return SHORT.get(name, f"{name} {{}}").format(show(value))


def _key(value: Any) -> str:
    """A value that may be a list or a mapping as something that can be compared and hashed."""
    return json.dumps(value, sort_keys=True)


def _order(value: Any) -> tuple[Any, ...]:
    """Sorts settings: numbers by size, before texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value, "")
    return (1, 0, _key(value))


def varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The names whose values are not the same in all."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [n for n in names if len({_key(each.get(n)) for each in settings}) > 1]


def details(results: Sequence[Found]) -> list[str]:
    """What tells each from others of the same system: settings that vary; if none do, its run."""
    texts = [""] * len(results)
    for group in _grouped(range(len(results)), lambda k: results[k].result.system.name):
        if len(group) == 1:
            continue
        names = varied([results[k].result.system.settings for k in group])
        for k in group:
            settings = results[k].result.system.settings
            texts[k] = " · ".join(setting_text(n, settings[n]) for n in names if n in settings)
        for same in _grouped(group, lambda k: texts[k]):
            if len(same) > 1:
                for k, run in zip(same, _run_names([results[k].path for k in same]), strict=True):
                    texts[k] = " · ".join(filter(None, [texts[k], run]))
    return texts


def _run_names(paths: Sequence[Path]) -> list[str]:
    """The ends of their folders' paths, as long as it takes to tell them apart."""
    whole = [
        (path.parent if path.name == RESULT else path.with_suffix("")).absolute().parts for path in paths
    ]
    length = 1
    while len({parts[-length:] for parts in whole}) < len(whole) and length < max(map(len, whole)):
        length += 1
    return ["/".join(parts[-length:]) for parts in whole]


def _grouped(items: Iterable[Any], key: Any) -> list[list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


# ---- comparisons -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SetGroup:
    """Values of one metric of a set under the very same conditions."""

    name: str
    conditions: str
    values: list[tuple[Entry, SetMetric]]


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
        found = {_key(at[axis]): at[axis] for at, _ in self.points}
        return sorted(found.values(), key=_order)

    def at(self, *values: Any) -> Entry | None:
        wanted = [_key(v) for v in values]
        return next((e for at, e in self.points if [_key(v) for v in at] == wanted), None)

    def title(self, axis: int) -> str:
        return ", ".join(self.names[axis])


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The same system with the same settings over time."""

    system: str
    entries: list[Entry]


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

    def best(self, category: str | None) -> Entry | None:
        """The highest mean among results of the same size; None unless there are two to choose from."""
        size = max(((e.result.counts.scored, *_size(e)) for e in self.entries), default=None)
        fit = [e for e in self.entries if e.is_result and size and _size(e) == size[1:]]
        scored = [(v.mean, e) for e in fit if (v := e.mean if category is None else e.values.get(category))]
        return max(scored, key=lambda pair: pair[0])[1] if len(scored) > 1 else None


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
    groups = _grouped(found, lambda f: (f.result.protocol, f.result.protocol_sha256))
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
    order = tuple((name, _order(value)) for name, value in result.system.settings.items())
    bad = result.is_rehearsal, result.system.untrained
    return (*bad, result.system.name, order, result.provenance.date, str(found.path))


def difference(a: Result, b: Result) -> list[str]:
    """The fields, dotted, in which two results of one protocol measure another thing; none: they compare."""
    fields = []
    for category in [c for c in a.scorers if c in b.scorers]:
        ours, theirs = asdict(a.scorers[category]), asdict(b.scorers[category])
        fields += [f"scorers.{category}.{name}" for name in ours if ours[name] != theirs[name]]
    shared = {m.category for m in a.metrics} & {m.category for m in b.metrics}
    fields += [f"editions.{c}" for c in sorted(shared) if a.editions.get(c) != b.editions.get(c)]
    return fields


def _comparison(
    found: Sequence[Found], anchor: str, apart: str, hues: dict[str, int], published: list[PublishedRow]
) -> Comparison:
    categories = list(dict.fromkeys(m.category for f in found for m in f.result.metrics))
    entries = []
    for k, (each, detail) in enumerate(zip(found, details(found), strict=True), 1):
        by_name = {m.category: m.score for m in each.result.metrics}
        values = {name: value for name, metric in by_name.items() if (value := value_of(metric))}
        complete = categories and all(name in by_name for name in categories)
        entry = Entry(
            found=each,
            anchor=f"{anchor}-r{k}",
            system=each.result.system.name,
            detail=detail,
            values=values,
            mean=mean_value([by_name[name] for name in categories]) if complete else None,
            flags=flags(each.result),
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
    groups = _grouped(pairs, lambda pair: _conditions_key(pair[1]))
    return [
        SetGroup(name=group[0][1].name, conditions=conditions(group[0][1]), values=group)
        for group in sorted(groups, key=lambda group: group[0][1].name)
    ]


def _conditions_key(metric: SetMetric) -> str:
    settings = {name: value for name, value in metric.settings.items() if name not in PLACES}
    return _key(asdict(replace(metric, value=0.0, interval=None, settings=settings)))


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


# ---- sweeps and histories --------------------------------------------------------------------------------


def _same_conditions(entry: Entry, *, weights: bool) -> str:
    result = entry.result
    system = result.system
    fields = [system.kind, system.name, system.untrained, result.suite, result.seed]
    fields += [result.images_per_prompt, result.limit]
    return _key([*fields, system.weights_sha256 if weights else None])


def sweeps(entries: Sequence[Entry]) -> list[Sweep]:
    """Results that differ in one or two settings only: lines and grids to draw."""
    found = []
    for group in _grouped(entries, lambda e: _same_conditions(e, weights=True)):
        latest: dict[str, Entry] = {}
        for entry in sorted(group, key=lambda e: e.result.provenance.date):
            latest[_key(entry.result.system.settings)] = entry
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
        for cut in _grouped(entries, lambda e: _key([e.result.system.settings.get(n) for n in others])):  # noqa: B023
            if len(cut) >= MIN_SWEEP:
                cuts.append(_sweep(cut, [axis]))
    return cuts[:MAX_LINE_SWEEPS]


def _together(settings: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Varied names, those that always change together in one group (height and width)."""
    patterns: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in varied(settings):
        values = [_key(each.get(name)) for each in settings]
        patterns[tuple(values.index(value) for value in values)].append(name)
    return [tuple(names) for names in patterns.values()]


def _at(entry: Entry, names: tuple[str, ...]) -> Any:
    values = [entry.result.system.settings.get(name) for name in names]
    return values[0] if len({_key(v) for v in values}) == 1 else " / ".join(map(show, values))


def _is_grid(entries: list[Entry], names: list[tuple[str, ...]]) -> bool:
    """At least 2 x 2, and at least half of its cells are there."""
    rows, columns = ({_key(_at(e, n)) for e in entries} for n in names)
    return min(len(rows), len(columns)) >= 2 and len(entries) >= max(4, len(rows) * len(columns) / 2)


def _sweep(entries: list[Entry], names: list[tuple[str, ...]]) -> Sweep:
    swept = {name for group in names for name in group}
    settings = entries[0].result.system.settings
    points = [(tuple(_at(entry, group) for group in names), entry) for entry in entries]
    return Sweep(
        system=entries[0].system,
        names=tuple(names),
        fixed={name: value for name, value in settings.items() if name not in swept},
        points=sorted(points, key=lambda point: [_order(value) for value in point[0]]),
    )


def histories(entries: Sequence[Entry]) -> list[History]:
    """The same system and settings at two or more times, oldest first; the weights may have changed."""
    found = []
    for group in _grouped(
        entries, lambda e: (_same_conditions(e, weights=False), _key(e.result.system.settings))
    ):
        moments = {(e.result.provenance.date, e.result.provenance.commit) for e in group}
        if len(moments) > 1:
            ordered = sorted(group, key=lambda e: e.result.provenance.date)
            found.append(History(system=ordered[0].system, entries=ordered))
    return found


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
