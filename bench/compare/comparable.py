"""Whether two results may be compared at all: a checked property, never an assumption. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.results.evidence import Evidence
from bench.results.record import ScoreLine, SetMetric, limit_words
from gentron.config import to_dict
from gentron.errors import UserError

FIELDS = ("protocol", "protocol_sha256", "editions", "seed", "images_per_prompt")
PLACES = ("features",)  # of a set metric's settings: where something lies, not what was measured


class NotComparable(UserError):
    """field: what differs.   baseline, candidate: its two values."""

    def __init__(self, field: str, baseline: Any, candidate: Any, *, way_on: str) -> None:
        self.field, self.baseline, self.candidate = field, _text(baseline), _text(candidate)
        super().__init__(
            f"results differ in {field} ({self.baseline} / {self.candidate}): not comparable; {way_on}"
        )


def _text(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a sha256
        return value[:12]
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_comparable(
    baseline: Evidence, candidate: Evidence, family: Sequence[str], *, same_seed: bool = True
) -> None:
    """NotComparable with the first field in which two results differ that must not.

    family: the metrics that will be compared; others may differ in what concerns them alone.
    same_seed: False where other seeds are the point, as between runs that show the noise.
    """
    way_on = "measure both in the same way"
    for field in FIELDS:
        if field == "seed" and not same_seed:
            continue
        _same(field, getattr(baseline.result, field), getattr(candidate.result, field), way_on)
    lost = [evidence.result.counts.missing for evidence in (baseline, candidate)]
    if any(lost):
        way_on = "a mean over survivors is not the protocol's: make the missing images"
        raise NotComparable("counts.missing", lost[0], lost[1], way_on=way_on)
    for metric in family:
        if metric in baseline.lines and metric in candidate.lines:
            _same_scorer(baseline, candidate, metric)
            _same_prompts(baseline, candidate, metric)
            if same_seed:
                _same_image_seeds(baseline.lines[metric], candidate.lines[metric])
    sets = {m.name: m for m in baseline.result.set_metrics}
    for metric in candidate.result.set_metrics:
        if metric.name in family and metric.name in sets:
            _same_set_metric(sets[metric.name], metric)


def _same(field: str, baseline: Any, candidate: Any, way_on: str) -> None:
    if baseline != candidate:
        raise NotComparable(field, baseline, candidate, way_on=way_on)


def first_difference(a: Any, b: Any, path: str) -> tuple[str, Any, Any] | None:
    """The dotted path and both values of the first place in which two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            found = first_difference(a.get(key), b.get(key), f"{path}.{key}")
            if found:
                return found
        return None
    return None if a == b else (path, a, b)


def _same_scorer(baseline: Evidence, candidate: Evidence, category: str) -> None:
    records = [evidence.result.scorers.get(category) for evidence in (baseline, candidate)]
    plain = [None if record is None else to_dict(record) for record in records]
    found = first_difference(plain[0], plain[1], f"scorers.{category}")
    if found:
        raise NotComparable(*found, way_on="score both with the same weights and settings")


def _same_prompts(baseline: Evidence, candidate: Evidence, category: str) -> None:
    a, b = baseline.result, candidate.result
    if _prompt_ids(baseline, category) != _prompt_ids(candidate, category):
        if a.limit != b.limit:
            raise NotComparable("limit", a.limit, b.limit, way_on="take as many prompts in both")
        if a.limit_choice != b.limit_choice:
            ours, theirs = (limit_words(e.result) for e in (baseline, candidate))
            raise NotComparable("limit", ours, theirs, way_on="run the older one anew: a limit now is fair")
        one, other = (len(_prompt_ids(evidence, category)) for evidence in (baseline, candidate))
        raise NotComparable(f"prompts of {category}", one, other, way_on="ask both the same prompts")
    keys = [{(r.prompt_id, r.sample) for r in e.lines[category]} for e in (baseline, candidate)]
    if keys[0] != keys[1]:
        way_on = "make as many images of each prompt in both"
        raise NotComparable(f"images of {category}", len(keys[0]), len(keys[1]), way_on=way_on)


def _prompt_ids(evidence: Evidence, category: str) -> set[str]:
    return {line.prompt_id for line in evidence.lines[category]}


def _same_image_seeds(baseline: Iterable[ScoreLine], candidate: Iterable[ScoreLine]) -> None:
    seeds = {(r.prompt_id, r.sample): r.seed for r in baseline if knows_seed(r)}
    for line in candidate:
        before = seeds.get((line.prompt_id, line.sample))
        if before is not None and knows_seed(line) and before != line.seed:
            what = f"seed of {line.prompt_id}_{line.sample:02d}"
            raise NotComparable(what, before, line.seed, way_on="draw both from the same seeds")


def knows_seed(line: ScoreLine) -> bool:
    """Images made elsewhere come without one (-1), and so do rows of schema version 1."""
    return line.seed is not None and line.seed >= 0


def _same_set_metric(baseline: SetMetric, candidate: SetMetric) -> None:
    plain = [to_dict(metric) for metric in (baseline, candidate)]
    for metric in plain:
        metric["settings"] = {k: v for k, v in metric["settings"].items() if k not in PLACES}
    for field in ("settings", "reference", "num_images"):
        found = first_difference(plain[0][field], plain[1][field], f"{baseline.name}.{field}")
        if found:
            raise NotComparable(*found, way_on="measure both in the same way")


def notes(baseline: Evidence, candidate: Evidence) -> list[str]:
    """What a reader must know beside a comparison; the flags of both come first."""
    found = [f"{side}: {flag}" for side, e in _sides(baseline, candidate) for flag in e.flags]
    a, b = baseline.result, candidate.result
    if baseline.sha256 == candidate.sha256:
        found.append("baseline and candidate are the same result")
    if words := limit_words(a):
        found.append(f"{words}, only: not the full protocol")
    for what, one, other in (
        ("system settings", a.system.settings, b.system.settings),
        ("packages", a.provenance.packages, b.provenance.packages),
        ("device", a.provenance.device, b.provenance.device),
    ):
        difference = first_difference(one, other, what)
        if difference:
            path, before, after = difference
            found.append(f"{path} differs: {_text(before)} / {_text(after)}")
    lines = [line for e in (baseline, candidate) for rows in e.lines.values() for line in rows]
    if lines and not all(knows_seed(line) for line in lines):
        found.append("seeds of some pictures are not known: paired by prompt and sample number")
    for side, evidence in _sides(baseline, candidate):
        if evidence.result.provenance.dirty:
            found.append(f"{side}: measured with uncommitted changes")
    return found


def _sides(baseline: Evidence, candidate: Evidence) -> tuple[tuple[str, Evidence], tuple[str, Evidence]]:
    return ("baseline", baseline), ("candidate", candidate)
