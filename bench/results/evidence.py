"""A result with its rows, read back and checked: what compare and gate judge by. No torch here."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from bench.results.aggregate import MetricValue, clustered_mean
from bench.results.record import Result, ScoreLine, read_result, read_scores
from bench.results.warnings import VOID, warnings
from gentron.errors import UserError
from gentron.hashing import sha256

RESULT, SCORES = "result.json", "scores.csv"
FULL, ROUNDED = 1e-9, 5e-6  # scores.csv of schema version 1 has six digits


class NoResult(UserError):
    """Nothing lies where a result was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """path: of result.json.   lines: of scores.csv, by category; empty for a result of set metrics only."""

    path: Path
    sha256: str
    result: Result
    lines: dict[str, list[ScoreLine]]

    @property
    def is_empty(self) -> bool:
        """Nothing in it was measured."""
        return not self.result.set_metrics and not any(m.score.num_images for m in self.result.metrics)

    @property
    def flags(self) -> list[str]:
        """What makes its numbers no result, for every place that shows them."""
        found = {each.name: each.text for each in warnings(self.result)}
        return [found[name] for name in VOID if name in found]


def locate(path: Path) -> Path:
    """The result.json that a path means: itself, the one in a folder, or the only one below it."""
    if path.is_dir():
        inside = path / RESULT
        found = [inside] if inside.is_file() else sorted(path.rglob(RESULT))
        if len(found) > 1:
            names = ", ".join(f.parent.relative_to(path).as_posix() for f in found[:4])
            raise UserError(f"'{path}' holds {len(found)} results: name one of {names}")
        if not found:
            raise NoResult(f"no {RESULT} in '{path}': expected the folder of a result")
        return found[0]
    if not path.exists():
        raise NoResult(f"no result at '{path}': expected a {RESULT} or its folder")
    return path


def load(path: Path) -> Evidence:
    """Read a result and its rows and check that they agree.

    NoResult if there is none; UserError if it is damaged, of a newer schema, or was changed by hand: if rows
    are given twice or the means are not those of the rows.
    """
    file = locate(path)
    data = file.read_bytes()
    result = read_result(file)
    rows = read_scores(file.parent) if result.metrics or (file.parent / SCORES).exists() else []
    check_agreement(file, result, rows)
    lines: dict[str, list[ScoreLine]] = defaultdict(list)
    for line in rows:
        lines[line.category].append(line)
    return Evidence(path=file, sha256=sha256(data), result=result, lines=dict(lines))


def check_agreement(file: Path, result: Result, lines: list[ScoreLine]) -> None:
    """UserError where result.json and scores.csv do not say the same."""
    scores = file.parent / SCORES
    keys = Counter((r.category, r.prompt_id, r.sample) for r in lines)
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        _, prompt_id, sample = twice[0]
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise UserError(f"{scores} holds {prompt_id}, sample {sample}, more than once{more}")
    homes: dict[str, str] = {}
    measures = {metric.category for metric in result.metrics if metric.category == metric.scorer}
    for line in lines:
        if line.category in measures:  # of the same samples as other numbers
            continue
        if homes.setdefault(line.prompt_id, line.category) != line.category:
            raise UserError(f"{scores} has {line.prompt_id} in {homes[line.prompt_id]} and {line.category}")
    num_scored = len({(r.prompt_id, r.sample) for r in lines})
    if result.metrics and num_scored != result.counts.scored:  # set metrics have no rows
        _disagree(file, "counts.scored", result.counts.scored, num_scored)
    known = {metrics.category: metrics.score for metrics in result.metrics}
    unknown = sorted({line.category for line in lines} - set(known))
    if unknown:
        _disagree(file, f"metrics of {unknown[0]}", "none", "some rows")
    exact = all(line.seed is not None for line in lines)
    for category, stated in known.items():
        found = clustered_mean((r.prompt_id, r.score) for r in lines if r.category == category)
        _check_value(file, category, stated, found, FULL if exact else ROUNDED)


def _check_value(file: Path, category: str, stated: MetricValue, found: MetricValue, slack: float) -> None:
    for name in ("num_images", "num_prompts"):
        if getattr(stated, name) != getattr(found, name):
            _disagree(file, f"{name} of {category}", getattr(stated, name), getattr(found, name))
    for name in ("mean", "stderr"):
        a, b = getattr(stated, name), getattr(found, name)
        if (a is None) != (b is None) or (a is not None and abs(a - b) > slack):
            _disagree(file, f"{name} of {category}", a, b)


def _disagree(file: Path, what: str, stated: object, found: object) -> None:
    raise UserError(
        f"{file} and its {SCORES} disagree in {what} ({_short(stated)} / {_short(found)}): one of them was"
        " changed by hand or is of another run; restore both or measure again"
    )


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def picture(evidence: Evidence, prompt_id: str, sample: int) -> str | None:
    """Where the picture lies on this machine; None if it is not here."""
    if evidence.result.provenance.images is None:
        return None
    from bench.systems.samples import read_manifest

    folder = Path(evidence.result.provenance.images)
    record = read_manifest(folder).get((prompt_id, sample)) if folder.is_dir() else None
    path = folder / (record.file if record else f"images/{prompt_id}_{sample:02d}.png")
    return path.as_posix() if path.exists() else None  # of a clip, the folder of its frames
