"""result.json and scores.csv: what was measured, on what, with what. No torch here."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import platform
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.aggregate import CategoryMetrics
from bench.images import write_atomic
from bench.prompts import Prompt
from bench.score import Missing, ScoreRow
from gentron.config import from_dict, to_dict
from gentron.errors import UserError

SCHEMA_VERSION = 1
PACKAGES = ("gentron", "torch", "transformers", "diffusers", "safetensors", "numpy", "scipy", "pillow")


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemRecord:
    kind: str
    name: str
    weights_sha256: str | None
    untrained: bool
    settings: dict[str, Any]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    expected: int
    scored: int
    missing: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """result.json, complete. Two results compare only where protocol and its hash agree."""

    schema_version: int = SCHEMA_VERSION
    protocol: str
    protocol_sha256: str
    suite: str
    seed: int
    images_per_prompt: int
    limit: int | None
    """Prompts taken of each category; None is all, and only all is the published protocol."""
    system: SystemRecord
    counts: Counts
    missing: list[Missing]
    metrics: list[CategoryMetrics]
    provenance: Provenance


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


def provenance(*, device: str) -> Provenance:
    """Of this process, now."""
    commit, dirty = git_state(Path(__file__).resolve().parent.parent)
    return Provenance(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        device=device,
        machine=f"{platform.machine()} {platform.system()}",
        packages=package_versions(),
    )


def dump_result(result: Result) -> bytes:
    return (json.dumps(to_dict(result), indent=1) + "\n").encode()


def read_result(path: Path) -> Result:
    """The inverse of `dump_result`; UserError if the file is not a result of this schema."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version must be {SCHEMA_VERSION}, got {version!r}")
    try:
        return from_dict(Result, data)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def scores_csv(prompts: list[Prompt], rows: list[ScoreRow]) -> bytes:
    """One line an image: id, category, split, sample, score, chance levels, prompt, reason."""
    by_id = {prompt.id: prompt for prompt in prompts}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["prompt_id", "category", "split", "sample", "score", "chance", "shuffled", "prompt", "reason"]
    )
    for row in rows:
        prompt = by_id[row.prompt_id]
        numbers = [f"{value:.6g}" for value in (row.score, row.chance, row.shuffled)]
        head = [row.prompt_id, prompt.category, prompt.split, row.sample]
        writer.writerow([*head, *numbers, prompt.text, row.reason])
    return text.getvalue().encode()


def result_folder(out: Path, result: Result) -> Path:
    """<out>/<protocol>/<system>/<date>-<commit8>, with -2, -3, ... where another run of that day stands.

    A run of the same thing (all but date, command and machine equal) replaces its result.
    """
    where = result.provenance
    stem = f"{where.date[:10]}-{(where.commit or 'release')[:8]}"
    parent = out / result.protocol / result.system.name
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        path = folder / "result.json"
        if not folder.exists() or (path.exists() and _same_run(read_result(path), result)):
            return folder
        number += 1


def _same_run(a: Result, b: Result) -> bool:
    blank = replace(a, provenance=b.provenance, metrics=b.metrics, counts=b.counts, missing=b.missing)
    return blank == b and a.provenance.commit == b.provenance.commit


def write_result(out: Path, result: Result, prompts: list[Prompt], rows: list[ScoreRow]) -> Path:
    """Write scores.csv, then result.json, each whole or not at all; returns their folder."""
    folder = result_folder(out, result)
    write_atomic(folder / "scores.csv", scores_csv(prompts, rows))
    write_atomic(folder / "result.json", dump_result(result))
    return folder
