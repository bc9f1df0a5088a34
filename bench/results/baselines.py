"""results/baselines.yaml: which result a gate compares with, and who accepted it when and why. No torch."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.results.evidence import RESULT, SCORES, Evidence
from bench.systems.images import write_atomic
from gentron.atomic import atomic_folder, check_writable
from gentron.config import from_dict, to_dict
from gentron.errors import UserError
from gentron.hashing import file_sha256

HEADER = (
    "# Baselines of gentron-bench gate: protocol -> system. Written by gentron-bench accept; do not edit.\n"
)


class NoBaseline(UserError):
    """There is nothing to compare with, or it is no longer what was accepted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Previous:
    """The baseline before this one."""

    path: str
    commit: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """path: folder of the result, relative to baselines.yaml.   accepted: UTC, ISO 8601."""

    path: str
    accepted: str
    reason: str
    who: str
    commit: str | None
    """Of the bench that measured it."""
    result_sha256: str
    scores_sha256: str | None
    forced: list[str]
    """What it was accepted in spite of."""
    previous: Previous | None


Baselines = dict[str, dict[str, Baseline]]


def read_baselines(path: Path) -> Baselines:
    """protocol -> system -> baseline; empty without a file. UserError if it is not as accept writes it."""
    if not path.exists():
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(data, dict) or not all(isinstance(systems, dict) for systems in data.values()):
            raise ValueError("must map protocols to systems to baselines")
        return {
            str(protocol): {
                str(name): from_dict(Baseline, entry, path=f"{protocol}.{name}")
                for name, entry in systems.items()
            }
            for protocol, systems in data.items()
        }
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error


def find_baseline(path: Path, protocol: str, system: str) -> Path:
    """Folder of the accepted result; NoBaseline if there is none or its files are not those accepted."""
    entries = read_baselines(path).get(protocol, {})
    if system not in entries:
        known = f"; known: {', '.join(entries)}" if entries else ""
        raise NoBaseline(
            f"no baseline of '{system}' under {protocol} in '{path}'{known}:"
            " accept one with gentron-bench accept, or name a file with --baseline"
        )
    folder = path.parent / entries[system].path
    _check_files(folder, entries[system], path)
    return folder


def check_listed(path: Path, result: Path) -> None:
    """NoBaseline if baselines.yaml lists this result.json and it was changed since it was accepted."""
    for systems in read_baselines(path).values():
        for entry in systems.values():
            if (path.parent / entry.path).resolve() == result.parent.resolve():
                _check_files(result.parent, entry, path)


def _check_files(folder: Path, entry: Baseline, path: Path) -> None:
    for name, digest in ((RESULT, entry.result_sha256), (SCORES, entry.scores_sha256)):
        if digest is None:
            continue
        file = folder / name
        if not file.is_file():
            raise NoBaseline(f"the baseline's {file} is missing: restore it, or accept another result")
        found = file_sha256(file)
        if found != digest:
            raise NoBaseline(
                f"{file} is not the file that was accepted (sha256 {digest[:12]} in {path.name},"
                f" {found[:12]} now): restore it, or accept it anew with a reason"
            )


# ---- accept ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Force:
    """What may be accepted although it is no full, clean result."""

    untrained: bool = False
    dirty: bool = False
    partial: bool = False


def objections(candidate: Evidence) -> dict[str, str]:
    """Why a result should not become a baseline, by the name of the flag that overrules it."""
    result, found = candidate.result, {}
    if candidate.flags:
        found["untrained"] = "; ".join(candidate.flags)
    if result.provenance.dirty:
        found["dirty"] = "it was measured with uncommitted changes"
    if result.counts.missing or result.skipped:
        skipped = "".join(f", {s.metric} skipped" for s in result.skipped)
        found["partial"] = f"{result.counts.missing} of {result.counts.expected} images are missing{skipped}"
    return found


def accept(
    candidate: Evidence, path: Path, *, reason: str, force: Force = Force(), system: str | None = None
) -> Baseline:
    """Make a result the baseline of its protocol and system: its files lie below `path`, listed in it.

    system: the name to list it under; None for its own. Files first, then the list, each whole or not at all,
    so that a kill in between leaves the old baseline. Raises UserError for an empty reason and for a result
    that measured nothing, is untrained, dirty or partial, unless forced.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise UserError("a reason is needed: --reason TEXT says why this is the new baseline")
    if candidate.is_empty:
        raise UserError(f"{candidate.path} measured nothing: it cannot be a baseline")
    found = objections(candidate)
    refused = [name for name in found if not getattr(force, name)]
    if refused:
        name = refused[0]
        raise UserError(f"{candidate.path} cannot be a baseline: {found[name]}; overrule with --force-{name}")
    listed = read_baselines(path)
    check_writable(path)
    result = candidate.result
    name = system or result.system.name
    folder = _keep(candidate, path.parent)
    old = listed.get(result.protocol, {}).get(name)
    scores = folder / SCORES
    entry = Baseline(
        path=folder.relative_to(path.parent).as_posix(),
        accepted=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        reason=reason,
        who=_who(path.parent),
        commit=result.provenance.commit,
        result_sha256=candidate.sha256,
        scores_sha256=file_sha256(scores) if scores.is_file() else None,
        forced=sorted(found),
        previous=None if old is None else Previous(path=old.path, commit=old.commit),
    )
    listed.setdefault(result.protocol, {})[name] = entry
    write_atomic(path, _dump(listed))
    return entry


def _keep(candidate: Evidence, root: Path) -> Path:
    """The result's folder below `root`; copied there as <protocol>/<system>/<run> if it lies elsewhere."""
    source = candidate.path.parent
    if source.resolve().is_relative_to(root.resolve()) and source.resolve() != root.resolve():
        return root / source.resolve().relative_to(root.resolve())
    result = candidate.result
    stem = f"{result.provenance.date[:10]}-{(result.provenance.commit or 'release')[:8]}"
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        folder = root / result.protocol / result.system.name / name
        if not folder.exists():
            break
        if all(_same_file(source / file, folder / file) for file in (RESULT, SCORES)):
            return folder
        number += 1
    with atomic_folder(folder) as temporary:
        for file in (RESULT, SCORES):
            original = candidate.path if file == RESULT else source / file
            if original.is_file():
                shutil.copyfile(original, temporary / file)
    return folder


def _same_file(a: Path, b: Path) -> bool:
    if not (a.is_file() and b.is_file()):
        return not a.exists() and not b.exists()
    return a.read_bytes() == b.read_bytes()


def _who(folder: Path) -> str:
    """The name that git would sign a commit with."""
    place = folder if folder.is_dir() else Path.cwd()
    try:
        done = subprocess.run(
            ["git", "-C", str(place), "config", "user.name"], capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _dump(listed: Baselines) -> bytes:
    plain: dict[str, Any] = {
        protocol: {name: to_dict(entry) for name, entry in sorted(systems.items())}
        for protocol, systems in sorted(listed.items())
    }
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
    return (HEADER + text).encode()
