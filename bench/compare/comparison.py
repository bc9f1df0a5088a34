"""Two results -> paired differences with intervals, p, Holm p and power, and the prompts that moved most.

Decides; commands/compare.py prints. Numbers: statistics.py. What may be compared: comparable.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.compare.comparable import NotComparable, notes, require_comparable
from bench.compare.effects import Effect, neither_is_better
from bench.compare.paired import Pair, category_effect, pair
from bench.compare.sets import set_effect
from bench.compare.statistics import (
    ALPHA,
    RESAMPLES,
    holm,
    minimum_detectable_effect,
)
from bench.results.evidence import Evidence, picture
from gentron.errors import UserError

SCHEMA_VERSION = 1


def measured(evidence: Evidence) -> list[str]:
    """All that a result has a value for: categories, then set metrics."""
    categories = [m.category for m in evidence.result.metrics if m.score.num_images]
    return [*categories, *(m.name for m in evidence.result.set_metrics)]


def effect(
    baseline: Evidence,
    candidate: Evidence,
    metric: str,
    *,
    references: Sequence[Path] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Effect:
    """The effect of a metric that both have and that may be compared.

    references: files of `fid --save-reference`, which set metrics are judged with.
    """
    if metric in baseline.lines:
        pairs = pair(baseline.lines[metric], candidate.lines[metric])
        return category_effect(metric, pairs, resamples=resamples, seed=seed)
    return set_effect(metric, baseline, candidate, references)


# ---- the comparison --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """A row of a comparison. verdict: better, worse, no difference shown, identical pictures, not judged."""

    metric: str
    baseline: float
    candidate: float
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    minimum_detectable_effect: float | None
    num_prompts: int
    num_images: int
    num_differ: int
    in_family: bool
    verdict: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A prompt whose score changed, with what its pictures are and why they got their scores."""

    category: str
    prompt_id: str
    prompt: str
    baseline: float
    candidate: float
    difference: float
    sample: int
    """The one that changed most."""
    baseline_reason: str
    candidate_reason: str
    baseline_picture: str | None
    candidate_picture: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Which result: enough to find it and to know what it is."""

    path: str
    result_sha256: str
    system: str
    weights_sha256: str | None
    untrained: bool
    rehearsal: bool
    date: str
    commit: str | None
    seed: int

    @property
    def label(self) -> str:
        words = [
            word for word, holds in (("untrained", self.untrained), ("rehearsal", self.rehearsal)) if holds
        ]
        return f"{self.system} ({', '.join(words)})" if words else self.system


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    schema_version: int = SCHEMA_VERSION
    protocol: str
    protocol_sha256: str
    baseline: Side
    candidate: Side
    alpha: float
    family: list[str]
    deltas: list[Delta]
    moves: list[Move]
    not_measured: list[str]
    """Metrics that only one side has, with the reason if it gives one."""
    notes: list[str]


def side(evidence: Evidence) -> Side:
    result = evidence.result
    return Side(
        path=evidence.path.as_posix(),
        result_sha256=evidence.sha256,
        system=result.system.name,
        weights_sha256=result.system.weights_sha256,
        untrained=result.system.untrained,
        rehearsal=result.is_rehearsal,
        date=result.provenance.date,
        commit=result.provenance.commit,
        seed=result.seed,
    )


def check_family(family: Sequence[str], baseline: Evidence, candidate: Evidence) -> None:
    """UserError for a metric that neither result knows of, and for one that is named twice."""
    known = list(dict.fromkeys(name for e in (baseline, candidate) for name in mentioned(e)))
    for name in family:
        if name not in known:
            raise UserError(f"unknown metric '{name}'; known: {', '.join(known)}")
    if len(set(family)) != len(family):
        raise UserError(f"family names a metric twice: {', '.join(family)}")


def mentioned(evidence: Evidence) -> list[str]:
    """What a result measured or says that it did not."""
    return list(dict.fromkeys((*measured(evidence), *(s.metric for s in evidence.result.skipped))))


def why_not_measured(metric: str, evidence: Evidence) -> str:
    reasons = [s.reason for s in evidence.result.skipped if s.metric == metric]
    return reasons[0] if reasons else f"not in this result (suite {evidence.result.suite})"


def compare(
    baseline: Evidence,
    candidate: Evidence,
    *,
    family: Sequence[str] | None = None,
    alpha: float = ALPHA,
    top: int = 10,
    references: Sequence[Path] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """All that both measured, paired. Holm runs over the family; without one, over everything they share.

    Raises NotComparable that names the first field in which they differ, and UserError for an unknown metric.
    """
    shared = [name for name in measured(baseline) if name in measured(candidate)]
    check_family(family or [], baseline, candidate)
    chosen = list(family) if family else shared
    require_comparable(baseline, candidate, chosen)
    if not chosen:
        raise UserError("nothing to compare: the results share no metric")
    lacking = [
        f"{name}: {which} has none: {why_not_measured(name, evidence)}"
        for which, evidence in (("baseline", baseline), ("candidate", candidate))
        for name in dict.fromkeys((*measured(baseline), *measured(candidate), *chosen))
        if name not in measured(evidence)
    ]
    effects, refused = {}, []
    for name in shared:
        try:
            if name not in chosen:
                require_comparable(baseline, candidate, [name])
        except NotComparable as error:
            refused.append(f"{name}: {error}")
            continue
        effects[name] = effect(
            baseline, candidate, name, references=references, resamples=resamples, seed=seed
        )
    # a member that was not measured keeps its place: the family is what was declared
    adjusted = holm({name: _p(effects.get(name)) for name in chosen})
    return Comparison(
        protocol=baseline.result.protocol,
        protocol_sha256=baseline.result.protocol_sha256,
        baseline=side(baseline),
        candidate=side(candidate),
        alpha=alpha,
        family=chosen,
        deltas=[_delta(e, adjusted.get(name), alpha, seed) for name, e in effects.items()],
        moves=moves(baseline, candidate, list(effects), top=top),
        not_measured=[*lacking, *refused],
        notes=notes(baseline, candidate),
    )


def _p(found: Effect | None) -> float:
    return 1.0 if found is None or found.p is None else found.p


def _delta(found: Effect, p_holm: float | None, alpha: float, seed: int) -> Delta:
    between = found.intervals([1 - alpha], seed=seed)
    mde = None
    if found.stderr:  # where nothing differs the spread is not known, and is not zero
        mde = minimum_detectable_effect(found.stderr, 1, alpha=alpha)
    return Delta(
        metric=found.metric,
        baseline=found.baseline,
        candidate=found.candidate,
        difference=found.difference,
        interval=between[0] if between else None,
        p=found.p,
        p_holm=p_holm if found.p is not None else None,
        minimum_detectable_effect=mde,
        num_prompts=found.num_prompts,
        num_images=found.num_images,
        num_differ=found.num_differ,
        in_family=p_holm is not None,
        verdict=_verdict(found, p_holm, alpha),
        note=found.note,
    )


def _verdict(found: Effect, p_holm: float | None, alpha: float) -> str:
    """Words for a row; only a member of the family can be said to differ."""
    if found.identical:
        return "identical pictures"
    if found.p is None:
        return "not judged"
    if p_holm is None:
        return "informational"
    if p_holm > alpha or found.difference == 0:
        return "no difference shown"
    if neither_is_better(found.metric):
        return "differs"
    return "better" if (found.difference > 0) == found.higher_is_better else "worse"


def moves(baseline: Evidence, candidate: Evidence, metrics: Sequence[str], *, top: int) -> list[Move]:
    """The prompts whose mean moved most, up or down; equal ones in the order of their ids."""
    if top < 0:
        raise ValueError(f"top must be >= 0, got {top}")
    found: list[tuple[float, str, list[Pair]]] = []
    for metric in metrics:
        if metric in baseline.lines:
            for prompt_id, group in pair(baseline.lines[metric], candidate.lines[metric]).items():
                change = math.fsum(p.difference for p in group) / len(group)
                if change:
                    found.append((change, prompt_id, group))
    found.sort(key=lambda item: (-abs(item[0]), item[1]))
    return [_move(change, group, baseline, candidate) for change, _, group in found[:top]]


def _move(change: float, group: list[Pair], baseline: Evidence, candidate: Evidence) -> Move:
    most = max(group, key=lambda p: (p.difference * math.copysign(1, change), -p.baseline.sample))
    before, after = most.baseline, most.candidate
    return Move(
        category=before.category,
        prompt_id=before.prompt_id,
        prompt=after.prompt,
        baseline=math.fsum(p.baseline.score for p in group) / len(group),
        candidate=math.fsum(p.candidate.score for p in group) / len(group),
        difference=change,
        sample=before.sample,
        baseline_reason=before.reason,
        candidate_reason=after.reason,
        baseline_picture=picture(baseline, before.prompt_id, before.sample),
        candidate_picture=picture(candidate, after.prompt_id, after.sample),
    )
