"""result.json and scores.csv: what was measured, on what, with what. No torch here."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.prompts import Prompt
from bench.results.aggregate import CategoryMetrics, interval
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing, ScoreRow
from bench.systems import Media, SystemInfo
from bench.systems.images import write_atomic
from gentron.config import to_dict
from gentron.errors import UserError
from gentron.versioned import StoredFormat

SCHEMA_VERSION = 3
UNTRAINED_NOTE = "untrained: random weights, a smoke test and not a result"
PACKAGES = (
    *("gentron", "torch", "torchvision", "transformers", "diffusers", "open_clip_torch", "torch-fidelity"),
    *("safetensors", "numpy", "scipy", "pillow", "torchmetrics", "opencv-python", "av"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemRecord:
    kind: str
    name: str
    weights_sha256: str | None
    untrained: bool
    settings: dict[str, Any]


def system_record(info: SystemInfo) -> SystemRecord:
    """All that a result says of a system but what belongs to the run."""
    return SystemRecord(**{name: getattr(info, name) for name in SystemRecord.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    date: str
    """UTC, ISO 8601."""
    commit: str | None
    """Of the bench's own repository; None for an installed package."""
    dirty: bool | None
    command: str
    device: str
    machine: str
    packages: dict[str, str]
    images: str | None = None
    """Work folder with manifest.jsonl and the images, on the machine of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """num_blank: scored pictures of one colour.   num_refused: requests that the system would not answer,
    which are among the missing.   None: not counted."""

    expected: int
    scored: int
    missing: int
    num_blank: int | None = None
    num_refused: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitChoice:
    """Which prompts of a category a limit takes: the first, or those of a seeded order, fair to splits."""

    rule: Literal["first", "stratified"]
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CostRecord:
    """What the answers cost. Of the run, like its date: two runs with other costs are the same measurement.

    latency_s: of a request, by the name of a statistic (mean, p95).   quantities: all else, by a name that
    ends in its unit: images_per_gpu_second, peak_memory_bytes.
    """

    usd: float | None = None
    latency_s: dict[str, float] = field(default_factory=dict)
    quantities: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceRecord:
    """What a set of images was measured against."""

    id: str
    sha256: str
    num_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SetMetric:
    """A number of a whole set of images, such as a Fréchet distance.

    settings: extractor, sha256 of its weights, resize, dtype and all else that shapes the value.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    num_images: int
    reference: ReferenceRecord | None
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A metric that was not measured, and the way on."""

    metric: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """result.json, complete. Two results compare only where protocol, prompts, seeds and scorers agree."""

    schema_version: int = SCHEMA_VERSION
    protocol: str
    protocol_sha256: str
    editions: dict[str, str] = field(default_factory=dict)
    """Prompt lists other than the protocol's current ones, by category."""
    suite: str
    seed: int
    images_per_prompt: int
    limit: int | None
    """Prompts taken of each category; None is all, and only all is the published protocol."""
    limit_choice: LimitChoice | None = None
    """Which ones; None without a limit."""
    system: SystemRecord
    media: Media = Media()
    """What the system answered with."""
    scorers: dict[str, ScorerRecord] = field(default_factory=dict)
    """By category."""
    phrase_table: str | None = None
    """Version of the frozen table that the noun phrases are from; None where none was read, or not said."""
    counts: Counts
    missing: list[Missing]
    skipped: list[Skipped] = field(default_factory=list)
    metrics: list[CategoryMetrics]
    set_metrics: list[SetMetric] = field(default_factory=list)
    cost: CostRecord | None = None
    provenance: Provenance

    @property
    def is_of_measures(self) -> bool:
        """Several numbers of the same samples, each a category named as its scorer and on a scale of its own,
        as of clips; otherwise a category is a part of the prompts."""
        return bool(self.metrics) and all(metric.category == metric.scorer for metric in self.metrics)

    @property
    def is_rehearsal(self) -> bool:
        """Made with random weights in some scorer: its numbers mean nothing."""
        return any(scorer.random_weights for scorer in self.scorers.values()) or any(
            metric.settings.get("random_weights") for metric in self.set_metrics
        )


def phrase_sources(scorers: Iterable[ScorerRecord]) -> dict[str, dict[str, Any]]:
    """Where the noun phrases of scorers came from: records by name; empty if none needed any."""
    found = {str(record["source"]): record for one in scorers for record in _phrase_records(one.settings)}
    return dict(sorted(found.items()))


def phrase_table(scorers: Iterable[ScorerRecord]) -> str | None:
    """Name and hash of the frozen table that the noun phrases are from; None where they are not from one."""
    tables = [
        record for record in phrase_sources(scorers).values() if "spacy" in record and "sha256" in record
    ]
    return ", ".join(f"{record['source']} {record['sha256'][:16]}" for record in tables) or None


def limit_words(result: Result) -> str | None:
    """How many prompts of each category, and which; None for all of them."""
    if result.limit is None:
        return None
    if result.limit_choice is None or result.limit_choice.rule == "first":
        return f"the first {result.limit} prompts of each category"
    return f"{result.limit} prompts of each category, chosen by seed {result.limit_choice.seed}"


def _phrase_records(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A scorer made of others holds their settings within its own."""
    for key, value in settings.items():
        if key == "phrases" and isinstance(value, dict):
            yield value
        elif isinstance(value, dict):
            yield from _phrase_records(value)


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None, None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def provenance(*, device: str, images: Path | None = None) -> Provenance:
    """Of this process, now. images: the work folder."""
    commit, dirty = git_state(Path(__file__).resolve().parents[2])
    return Provenance(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        device=device,
        machine=f"{platform.machine()} {platform.system()}",
        packages=package_versions(),
        images=None if images is None else images.as_posix(),
    )


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew one scorer, whose settings are all in the protocol, and had fixed views."""
    metrics = [_metrics_from_version_1(entry) for entry in data["metrics"]]
    shapes = to_dict(ScorerRecord(name="shapes", version=1))
    scorers = {entry["category"]: shapes for entry in metrics}
    return {
        **data,
        "editions": {},
        "scorers": scorers,
        "skipped": [],
        "metrics": metrics,
        "set_metrics": [],
        "provenance": {**data["provenance"], "images": None},
    }


def _metrics_from_version_1(entry: dict[str, Any]) -> dict[str, Any]:
    names = {"heldout": "held-out", "extra_objects": "extra objects", "missing_objects": "missing objects"}
    values = {names.get(k, k): _with_interval(v) for k, v in entry.items() if k != "category"}
    score = values.pop("score")
    views = {name: value for name, value in values.items() if value["num_images"]}
    return {"category": entry["category"], "scorer": "shapes", "score": score, "views": views}


def _with_interval(value: dict[str, Any]) -> dict[str, Any]:
    if value["stderr"] is None:
        return {**value, "interval": None}
    return {**value, "interval": list(interval(value["mean"], value["stderr"], value["num_prompts"]))}


def _from_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 knew pictures only, and a limit took the first prompts."""
    choice = None if data["limit"] is None else to_dict(LimitChoice(rule="first"))
    return {
        **data,
        "limit_choice": choice,
        "media": to_dict(Media()),
        "phrase_table": None,
        "counts": {**data["counts"], "num_blank": None, "num_refused": None},
        "cost": None,
    }


RESULT = StoredFormat(
    record=Result,
    what="result",
    version=SCHEMA_VERSION,
    upgrades={1: _from_version_1, 2: _from_version_2},
)


def dump_result(result: Result) -> bytes:
    return RESULT.dump(result)


def read_result(path: Path) -> Result:
    """The inverse of `dump_result`, for this schema version and older ones; UserError for anything else."""
    return RESULT.read(path)


# ---- scores.csv ------------------------------------------------------------------------------------------

COLUMNS = (
    *("prompt_id", "category", "split", "sample", "seed", "score", "chance", "shuffled"),
    *("image_sha256", "prompt", "reason"),
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreLine:
    """A line of scores.csv. seed and image_sha256 are None in files of schema version 1."""

    prompt_id: str
    category: str
    split: str | None
    sample: int
    seed: int | None
    score: float
    chance: float | None
    shuffled: float | None
    image_sha256: str | None
    prompt: str
    reason: str


def _as_text(cell: str) -> str:
    """A text that a spreadsheet would take for a formula, with an apostrophe before it."""
    return f"'{cell}" if cell.startswith((*FORMULA_STARTS, "'")) else cell


def _from_text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell


def scores_csv(prompts: Sequence[Prompt], rows: Sequence[ScoreRow]) -> bytes:
    """One line an image, in COLUMNS; numbers in full, so that the means can be checked."""
    by_id = {prompt.id: prompt for prompt in prompts}
    return _csv((by_id[row.prompt_id].category, row, by_id[row.prompt_id]) for row in rows)


def measures_csv(prompts: Sequence[Prompt], rows: Mapping[str, Sequence[ScoreRow]]) -> bytes:
    """One line a sample and measure, where several numbers are of the same samples.   rows: by measure."""
    by_id = {prompt.id: prompt for prompt in prompts}
    return _csv((name, row, by_id[row.prompt_id]) for name, group in rows.items() for row in group)


def _csv(lines: Iterable[tuple[str, ScoreRow, Prompt]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for category, row, prompt in lines:
        numbers = ["" if value is None else repr(value) for value in (row.score, row.chance, row.shuffled)]
        head = [row.prompt_id, category, prompt.split or "", row.sample, row.seed]
        writer.writerow([*head, *numbers, row.sha256, _as_text(prompt.text), _as_text(row.reason)])
    return text.getvalue().encode()


def read_scores(folder: Path) -> list[ScoreLine]:
    """scores.csv of a result's folder; UserError if it is missing, cut short or not as written."""
    path = folder / "scores.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            return [_score_line(row, f"{path}, line {k}") for k, row in enumerate(reader, 2)]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it lies beside result.json and has a row an image") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _score_line(row: dict[str, str | None], where: str) -> ScoreLine:
    def number(name: str) -> float | None:
        return float(row[name] or "") if row.get(name) else None

    try:
        score = float(row["score"] or "")
        if not math.isfinite(score):
            raise ValueError(f"score must be finite, got {score}")
        return ScoreLine(
            prompt_id=str(row["prompt_id"]),
            category=str(row["category"]),
            split=row["split"] or None,
            sample=int(row["sample"] or ""),
            seed=int(row["seed"] or "") if row.get("seed") else None,
            score=score,
            chance=number("chance"),
            shuffled=number("shuffled"),
            image_sha256=row.get("image_sha256") or None,
            prompt=_from_text(str(row["prompt"])),
            reason=_from_text(str(row["reason"])),
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"{where} is not a line of scores: {error}") from error


# ---- folders ---------------------------------------------------------------------------------------------


def result_folder(out: Path, result: Result) -> Path:
    """<out>/<protocol>/<system>/<date>-<commit8>, with -2, -3, ... where another run of that day stands.

    The folder of the same run (all but date, command, machine and cost equal, numbers too) is its own.
    """
    where = result.provenance
    stem = f"{where.date[:10]}-{(where.commit or 'release')[:8]}"
    parent = out / result.protocol / result.system.name
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        path = folder / "result.json"
        if not path.exists() or _same_run(read_result(path), result):
            return folder
        number += 1


def _same_run(a: Result, b: Result) -> bool:
    same = replace(a, provenance=b.provenance, cost=b.cost) == b
    return same and a.provenance.commit == b.provenance.commit


def write_result(out: Path, result: Result, prompts: Sequence[Prompt], rows: Sequence[ScoreRow]) -> Path:
    """Write scores.csv, then result.json, each whole or not at all; returns their folder.

    A result is written once: where the same run stands already with the same numbers, nothing is changed.
    """
    return write_with_scores(out, result, scores_csv(prompts, rows))


def write_with_scores(out: Path, result: Result, scores: bytes) -> Path:
    """The same, where the lines of scores.csv are written out already."""
    folder = result_folder(out, result)
    if not (folder / "result.json").exists():
        write_atomic(folder / "scores.csv", scores)
        write_atomic(folder / "result.json", dump_result(result))
    return folder
