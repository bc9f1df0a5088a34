"""A candidate against a baseline -> pass, regression or inconclusive, by rules fixed before looking.

A metric passes if the lower end of the 95 % interval of its difference is above -tolerance. It is a
regression if the difference is below -tolerance and statistically below zero: Holm's adjusted permutation p
is at most alpha, and the interval, widened to the level at which Holm looks at this metric, ends below zero.
Anything else is inconclusive. A gate of several metrics so calls at most alpha of all unchanged systems a
regression; for a pass every metric must pass at its own 95 %, which needs no correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from scipy import special

from bench.compare.band import Band, check_band, read_band
from bench.compare.comparable import NotComparable, notes, require_comparable
from bench.compare.comparison import Side, check_family, effect, measured, side, why_not_measured
from bench.compare.effects import Effect
from bench.compare.statistics import (
    ALPHA,
    POWER,
    detectable_drop,
    holm,
    holm_levels,
    minimum_detectable_effect,
    prompts_needed,
)
from bench.results.baselines import NoBaseline, check_listed, find_baseline
from bench.results.evidence import Evidence, NoResult, load
from gentron.config import from_dict, to_dict
from gentron.errors import UserError

SCHEMA_VERSION = 1
DEFAULT_TOLERANCE = 0.02
PASS, REGRESSION, INCONCLUSIVE = "pass", "regression", "inconclusive"
NOT_COMPARABLE, NOTHING_MEASURED = "not comparable", "nothing measured"
NOT_MEASURED = "not measured"  # of one metric of a family
EXIT_CODES = {PASS: 0, REGRESSION: 1, INCONCLUSIVE: 3, NOT_COMPARABLE: 4, NOTHING_MEASURED: 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """A gate file, field by field; a field that is not there has the default.

    family: the metrics that decide; empty for all categories of the baseline.
    tolerances: the drop of each that nobody minds, in the metric's own unit.
    default_tolerance: of the family's categories without one; set metrics always need their own.
    band: file of `calibrate`, beside the gate file, whose bands are the tolerances not given here.
    """

    family: list[str] = field(default_factory=list)
    tolerances: dict[str, float] = field(default_factory=dict)
    default_tolerance: float = DEFAULT_TOLERANCE
    alpha: float = ALPHA
    band: str | None = None

    def __post_init__(self) -> None:
        for name, value in (*self.tolerances.items(), ("default_tolerance", self.default_tolerance)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"tolerance of {name} must be a finite number >= 0, got {value}")
        if not 0 < self.alpha <= 0.5:
            raise ValueError(f"alpha must be above 0 and at most 0.5, got {self.alpha}")
        if len(set(self.family)) != len(self.family):
            raise ValueError(f"family names a metric twice: {', '.join(self.family)}")


class _EachKeyOnce(yaml.SafeLoader):
    """YAML where a key given twice is an error: of two tolerances one would silently be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is given twice")
        return super().construct_mapping(node, deep=deep)


def read_gate_file(path: Path) -> GateConfig:
    """UserError for a file that is not there, not YAML, or has a field that no gate knows."""
    if not path.is_file():
        raise UserError(f"no gate file '{path}'")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce) or {}
        if not isinstance(data, dict):
            raise ValueError(f"must be a mapping, got {type(data).__name__}")
        config = from_dict(GateConfig, {**to_dict(GateConfig()), **data})
    except (yaml.YAMLError, ValueError, TypeError) as error:  # TypeError: a key that is a list
        raise UserError(f"{path}: {error}") from error
    return config


def parse_tolerances(words: Sequence[str]) -> dict[str, float]:
    """["color=0.02", ...] -> {"color": 0.02}; a bare number is the default of all, under the name ""."""
    found: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if name in found:
            raise ValueError(f"tolerance of {name or 'all'} is given twice")
        try:
            found[name] = float(number)
        except ValueError:
            raise ValueError(f"tolerance must be METRIC=NUMBER or NUMBER, got '{word}'") from None
        if not (math.isfinite(found[name]) and found[name] >= 0):
            raise ValueError(f"tolerance of {name or 'all'} must be a finite number >= 0, got {number}")
    return found


# ---- the verdict -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricVerdict:
    """One metric of the family, or one shown beside it.

    interval: 95 %, which decides whether it passes.   decision_interval: at decision_level, Holm's, which
    decides whether it is a regression.   minimum_detectable_effect: the closed form, of this metric alone.
    detectable_drop: what this gate, with its family and tolerance, calls a regression with 80 % power.
    """

    metric: str
    verdict: str
    reason: str
    in_family: bool
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    tolerance: float | None = None
    tolerance_from: str | None = None
    interval: tuple[float, float] | None = None
    decision_interval: tuple[float, float] | None = None
    decision_level: float | None = None
    p: float | None = None
    p_holm: float | None = None
    minimum_detectable_effect: float | None = None
    detectable_drop: float | None = None
    num_prompts: int = 0
    num_images: int = 0
    num_differ: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class GateReport:
    """What a gate says; every output is made of this."""

    schema_version: int = SCHEMA_VERSION
    verdict: str
    exit_code: int
    message: str
    protocol: str | None
    alpha: float
    multiplicity: str
    family: list[str]
    metrics: list[MetricVerdict]
    baseline: Side | None
    candidate: Side | None
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """source: given, band or default."""

    value: float
    source: str


def tolerances(
    family: Sequence[str], config: GateConfig, band: Band | None, *, sets: Sequence[str] = ()
) -> dict[str, Tolerance]:
    """Of each member: the given one, else the band's, else the default. UserError for a name outside.

    sets: names of set metrics, for which no default can be right.
    """
    for name in config.tolerances:
        if name not in family:
            raise UserError(f"tolerance for '{name}', which is not in the family: {', '.join(family)}")
    found = {}
    for name in family:
        if name in config.tolerances:
            found[name] = Tolerance(config.tolerances[name], "given")
        elif band is not None and name in band.metrics:
            found[name] = Tolerance(band.metrics[name].band, "band")
        elif name in sets:
            raise UserError(f"'{name}' has a unit of its own: give --tolerance {name}=NUMBER")
        else:
            found[name] = Tolerance(config.default_tolerance, "default")
    return found


def judge(
    effects: Mapping[str, Effect],
    family: Sequence[str],
    allowed: Mapping[str, Tolerance],
    *,
    alpha: float = ALPHA,
    seed: int = 0,
) -> list[MetricVerdict]:
    """Verdicts of the family's members that were measured, then of what is shown beside them.

    A member without an effect keeps its place in the family, so that losing one never loosens the others.
    """
    p_values = {name: _p(effects.get(name)) for name in family}
    adjusted, levels = holm(p_values), holm_levels(p_values, alpha)
    inside = [
        _member(
            effects[name],
            allowed[name],
            alpha=alpha,
            p_holm=adjusted[name],
            level=levels[name],
            first_level=1 - alpha / len(family),
            seed=seed,
        )
        for name in family
        if name in effects
    ]
    return inside + [_beside(found, alpha, seed) for name, found in effects.items() if name not in family]


def _p(found: Effect | None) -> float:
    return 1.0 if found is None or found.p is None else found.p


def _member(
    found: Effect,
    allowed: Tolerance,
    *,
    alpha: float,
    p_holm: float,
    level: float,
    first_level: float,
    seed: int,
) -> MetricVerdict:
    ends = found.intervals([1 - alpha, level, first_level], seed=seed)
    drop = None
    if ends:  # what a drop in this metric alone has to pass: Holm's first step
        reach = ends[2][1] - found.difference
        if found.differences is not None:
            drop = detectable_drop(found.differences, reach, tolerance=allowed.value)
        elif found.stderr is not None and found.freedom is not None:
            drop = max(reach, allowed.value) + float(special.stdtrit(found.freedom, POWER)) * found.stderr
    verdict, reason = _decide(found, allowed.value, ends, alpha=alpha, p_holm=p_holm)
    return _row(
        found,
        alpha,
        verdict=verdict,
        reason=reason,
        in_family=True,
        tolerance=allowed.value,
        tolerance_from=allowed.source,
        interval=ends[0] if ends else None,
        decision_interval=ends[1] if ends else None,
        decision_level=level,
        p_holm=None if found.p is None else p_holm,
        detectable_drop=drop,
    )


def _decide(
    found: Effect, tolerance: float, ends: list[tuple[float, float]] | None, *, alpha: float, p_holm: float
) -> tuple[str, str]:
    """The verdict of a metric and why, in words; a gain is what is better, whichever way the metric runs."""
    if found.identical:
        return PASS, "every picture is the same file"
    if not ends or found.p is None:
        return INCONCLUSIVE, found.note or "the difference has no interval"
    gain, low, high = _gains(found, ends)
    loss = "a drop" if found.higher_is_better else "a rise"
    beyond = f"beyond the tolerance of {tolerance:.3g}"
    if low > -tolerance:
        return PASS, f"{loss} {beyond} is excluded"
    if gain < -tolerance and p_holm <= alpha and high < 0:
        return REGRESSION, f"{loss} of {-gain:.3f}, {beyond}, Holm p {p_holm:.2g}"
    if gain < -tolerance:
        return INCONCLUSIVE, f"{loss} of {-gain:.3f}, {beyond}, may be chance (Holm p {p_holm:.2g})"
    return INCONCLUSIVE, f"{loss} {beyond} cannot be excluded{_enough(found, tolerance, alpha)}"


def _gains(found: Effect, ends: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The gain, its lower end at 95 % and its upper end at Holm's level."""
    if found.higher_is_better:
        return found.difference, ends[0][0], ends[1][1]
    return -found.difference, -ends[0][1], -ends[1][0]


def _enough(found: Effect, tolerance: float, alpha: float) -> str:
    if not tolerance or not found.sd:
        return ""
    needed = prompts_needed(tolerance, found.sd, alpha=alpha)
    return f": with no true change {needed} prompts would pass in 80 % of runs, here are {found.num_prompts}"


def _beside(found: Effect, alpha: float, seed: int) -> MetricVerdict:
    ends = found.intervals([1 - alpha], seed=seed)
    between = ends[0] if ends else None
    return _row(found, alpha, verdict="informational", reason=found.note, in_family=False, interval=between)


def _row(found: Effect, alpha: float, *, verdict: str, reason: str, in_family: bool, **more) -> MetricVerdict:
    mde = None
    if found.stderr and not found.identical:
        mde = minimum_detectable_effect(found.stderr, 1, alpha=alpha)
    return MetricVerdict(
        metric=found.metric,
        verdict=verdict,
        reason=reason,
        in_family=in_family,
        baseline=found.baseline,
        candidate=found.candidate,
        difference=found.difference,
        p=found.p,
        minimum_detectable_effect=mde,
        num_prompts=found.num_prompts,
        num_images=found.num_images,
        num_differ=found.num_differ,
        **more,
    )


def overall(metrics: Sequence[MetricVerdict]) -> str:
    """The verdict of a family: one regression is enough, and a member that says nothing is never a pass."""
    verdicts = [m.verdict for m in metrics if m.in_family]
    if all(v == NOT_MEASURED for v in verdicts):
        return NOTHING_MEASURED
    if REGRESSION in verdicts:
        return REGRESSION
    return INCONCLUSIVE if set(verdicts) != {PASS} else PASS


# ---- the gate --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a gate is asked.

    baseline: None for the one that baselines.yaml lists for the candidate's protocol and `system`.
    system: the name it is listed under; None for the candidate's own.
    references: files of `fid --save-reference`, which set metrics are judged with.
    """

    candidate: Path
    baseline: Path | None
    baselines: Path
    system: str | None = None
    band: Path | None = None
    references: tuple[Path, ...] = ()


def gate(inputs: Inputs, config: GateConfig, *, seed: int = 0) -> GateReport:
    """The verdict. UserError only for what was asked wrongly and for damaged files; the rest is a report."""
    band = read_band(inputs.band) if inputs.band else None
    try:
        candidate = load(inputs.candidate)
    except NoResult as error:
        return _stop(NOTHING_MEASURED, str(error), config)
    if candidate.is_empty:
        skipped = "".join(f"; {s.metric}: {s.reason}" for s in candidate.result.skipped)
        return _stop(NOTHING_MEASURED, f"{candidate.path} has no measured metric{skipped}", config, candidate)
    try:
        baseline = _baseline(inputs, candidate)
    except (NoResult, NoBaseline) as error:
        return _stop(NOT_COMPARABLE, f"no baseline: {error}", config, candidate)
    if baseline.is_empty:
        reason = f"no baseline: {baseline.path} has no measured metric"
        return _stop(NOT_COMPARABLE, reason, config, candidate, baseline)
    try:
        return _gate(baseline, candidate, config, band, inputs.references, seed)
    except NotComparable as error:
        return _stop(NOT_COMPARABLE, str(error), config, candidate, baseline)


def _baseline(inputs: Inputs, candidate: Evidence) -> Evidence:
    if inputs.baseline is None:
        system = inputs.system or candidate.result.system.name
        return load(find_baseline(inputs.baselines, candidate.result.protocol, system))
    found = load(inputs.baseline)
    check_listed(inputs.baselines, found.path)
    return found


def _gate(
    baseline: Evidence,
    candidate: Evidence,
    config: GateConfig,
    band: Band | None,
    references: Sequence[Path],
    seed: int,
) -> GateReport:
    require_comparable(baseline, candidate, [])  # the protocol first: another one has other metrics
    check_family(config.family, baseline, candidate)
    family = config.family or list(baseline.lines) or measured(baseline)
    sets = [m.name for e in (baseline, candidate) for m in e.result.set_metrics]
    allowed = tolerances(family, config, band, sets=sets)
    if not config.family and baseline.result.suite != candidate.result.suite:
        suites = baseline.result.suite, candidate.result.suite
        way_on = "measure the same suite, or name the metrics with --family"
        raise NotComparable("suite", *suites, way_on=way_on)
    require_comparable(baseline, candidate, family)
    effects, remarks = {}, notes(baseline, candidate)
    for name in measured(baseline):
        if name not in measured(candidate):
            continue
        try:
            require_comparable(baseline, candidate, [name])
            effects[name] = effect(baseline, candidate, name, references=references, seed=seed)
        except NotComparable as error:  # of what is shown beside the family; the family was checked
            remarks.append(f"{name} is not shown: {error}")
    if band is not None:
        counts = {name: found.num_prompts for name, found in effects.items() if name in family}
        check_band(band, candidate.result, counts)
        remarks += _about(band, allowed)
    rows = judge(effects, family, allowed, alpha=config.alpha, seed=seed)
    rows += [_lost(name, baseline, candidate) for name in family if name not in effects]
    verdict = overall(rows)
    return GateReport(
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        message=_message(verdict, rows),
        protocol=candidate.result.protocol,
        alpha=config.alpha,
        multiplicity=_multiplicity(len(family), config.alpha),
        family=family,
        metrics=rows,
        baseline=side(baseline),
        candidate=side(candidate),
        notes=remarks,
    )


def _lost(name: str, baseline: Evidence, candidate: Evidence) -> MetricVerdict:
    sides = (("baseline", baseline), ("candidate", candidate))
    lacking = [f"{s}: {why_not_measured(name, e)}" for s, e in sides if name not in measured(e)]
    return MetricVerdict(metric=name, verdict=NOT_MEASURED, reason="; ".join(lacking), in_family=True)


def _about(band: Band, allowed: Mapping[str, Tolerance]) -> list[str]:
    lines = [f"calibration: {'random weights, a rehearsal' if band.rehearsal else band.system.name}"]
    unused = [name for name, tolerance in allowed.items() if tolerance.source == "default"]
    if unused:
        lines.append(f"the calibration has no band of {', '.join(unused)}: the default tolerance holds")
    return lines


def _multiplicity(size: int, alpha: float) -> str:
    if size == 1:
        return f"one metric, two-sided at {alpha:.3g}"
    return (
        f"Holm over {size} metrics: at most {100 * alpha:.3g} % of unchanged systems show any regression"
        " (each is tested two-sided, and only a drop counts)"
    )


def _message(verdict: str, rows: Sequence[MetricVerdict]) -> str:
    """One line with the metrics that decided."""
    family = [m for m in rows if m.in_family]
    if verdict == PASS:
        return f"pass: {len(family)} of {len(family)} metrics within tolerance"
    if verdict == NOTHING_MEASURED:
        return f"nothing measured: {'; '.join(f'{m.metric}: {m.reason}' for m in family)}"
    if verdict == REGRESSION:
        named = [f"{m.metric} {m.difference:+.3f}" for m in family if m.verdict == REGRESSION]
        return f"regression: {', '.join(named)}"
    named = [m.metric if m.verdict != NOT_MEASURED else f"{m.metric} ({m.verdict})" for m in family]
    open_ones = [n for n, m in zip(named, family, strict=True) if m.verdict != PASS]
    return f"inconclusive: {', '.join(open_ones)}"


def _stop(
    verdict: str,
    reason: str,
    config: GateConfig,
    candidate: Evidence | None = None,
    baseline: Evidence | None = None,
) -> GateReport:
    """A report without metrics."""
    found = [(name, e) for name, e in (("baseline", baseline), ("candidate", candidate)) if e is not None]
    return GateReport(
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        message=f"{verdict}: {reason}",
        protocol=None if candidate is None else candidate.result.protocol,
        alpha=config.alpha,
        multiplicity="",
        family=config.family,
        metrics=[],
        baseline=None if baseline is None else side(baseline),
        candidate=None if candidate is None else side(candidate),
        notes=[f"{name}: {flag}" for name, e in found for flag in e.flags],
    )
