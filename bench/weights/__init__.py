"""Files of pretrained networks: what they are, where they lie, whether they are the right ones.

A models folder holds the files under their published names and an index `weights.json` beside them. The index
knows every file's sha256, so a large file is hashed once and again only when its size or time changes. A file
whose hash is published must have it. One whose hash is not is trusted on first use: its hash is recorded, and
from then on another content is an error. Random weights for rehearsals are marked in the index by their hash,
so they cannot be taken for real ones. Nothing here uses a network; fetching.py does.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from bench.weights.files import WEIGHTS, WeightFile, weight_file
from gentron.atomic import atomic_file
from gentron.config import from_dict, to_dict
from gentron.errors import UserError
from gentron.hashing import file_sha256

INDEX = "weights.json"
INDEX_VERSION = 1


class MissingWeights(UserError):
    """A file is not in the models folder; the message says how to get it there."""


@dataclass(frozen=True, slots=True)
class Located:
    """A file that was found and is the right one; `random`: made by `weights random`."""

    id: str
    path: Path
    sha256: str
    random: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """What the index knows of a file; `recorded` is the date of first use."""

    sha256: str
    size: int
    mtime_ns: int
    recorded: str
    random: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """A line of `weights list`: `path` is None for a missing file; hashes are those known without reading."""

    weight: WeightFile
    path: Path | None
    record: FileRecord | None


# ---- finding and checking --------------------------------------------------------------------------------


def models_folder() -> Path:
    """GENTRON_MODELS, else gentron/models in the user's cache; it need not exist."""
    if named := os.environ.get("GENTRON_MODELS"):
        return Path(named).expanduser()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache).expanduser() / "gentron" / "models"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "gentron" / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gentron" / "models"
    return Path.home() / ".cache" / "gentron" / "models"


def locate(id: str, models: Path | None = None, *, rehash: bool = False) -> Located:
    """The file of `id` in the models folder, its hash checked.

    MissingWeights if it is not there; UserError if its content is not the published or the recorded one.
    A file found for the first time is hashed and recorded; where the folder cannot be written, it is hashed
    on every call. rehash: read the file even if its size and time are those of the record.
    """
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    path = folder / weight.file
    if not path.is_file():
        raise MissingWeights(
            f"missing weights '{id}' ({weight.file}: {weight.what}) in '{folder}';"
            f" get them with 'gentron-bench weights fetch {id}' or 'gentron-bench weights add {id} FILE'"
        )
    record = read_index(folder).get(id)
    stat = path.stat()
    is_known = record is not None and (record.size, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    if record is not None and is_known and not rehash:
        sha256 = record.sha256
    else:
        sha256 = file_sha256(path)
    is_random = record is not None and record.random and record.sha256 == sha256
    if not is_random:
        _check_hash(weight, path, sha256, record)
    if not is_known:
        remember(folder, id, path, sha256, random=is_random, first=record, must_write=False)
    return Located(id, path, sha256, is_random)


def states(models: Path | None = None) -> list[FileState]:
    """Every file of the registry and what is known of it, without hashing anything."""
    folder = models_folder() if models is None else models
    index = read_index(folder)
    found = []
    for weight in WEIGHTS.values():
        path = folder / weight.file
        found.append(
            FileState(weight=weight, path=path if path.is_file() else None, record=index.get(weight.id))
        )
    return found


def _check_hash(weight: WeightFile, path: Path, sha256: str, record: FileRecord | None) -> None:
    """UserError that names both hashes if the file is not the published or the recorded one."""
    way_on = f"get it anew with 'gentron-bench weights fetch {weight.id} --replace'"
    if weight.sha256 is not None and sha256 != weight.sha256:
        raise UserError(
            f"'{path}' is not the published file of '{weight.id}': expected sha256 {weight.sha256},"
            f" got {sha256}; {way_on}"
        )
    if weight.sha256_prefix is not None and not sha256.startswith(weight.sha256_prefix):
        raise UserError(
            f"'{path}' is not the published file of '{weight.id}': expected a sha256 that begins with"
            f" {weight.sha256_prefix}, got {sha256}; {way_on}"
        )
    is_pinned = weight.sha256 is not None or weight.sha256_prefix is not None
    if record is None or sha256 == record.sha256 or (record.random and is_pinned):
        return
    if record.random:
        raise UserError(
            f"'{path}' was random weights and changed: expected sha256 {record.sha256}, got {sha256};"
            f" if it is the published file now, say so with 'gentron-bench weights add {weight.id} {path}',"
            " else delete it"
        )
    raise UserError(
        f"'{path}' changed since it was recorded on {record.recorded}: expected sha256 {record.sha256},"
        f" got {sha256}; put the old file back, or accept the new one with"
        f" 'gentron-bench weights add {weight.id} FILE --replace'"
    )


# ---- the index -------------------------------------------------------------------------------------------


def read_index(folder: Path) -> dict[str, FileRecord]:
    path = folder / INDEX
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("schema_version") != INDEX_VERSION:
            raise ValueError(f"expected schema_version {INDEX_VERSION}")
        return {id: from_dict(FileRecord, record, path=id) for id, record in data["files"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"cannot read '{path}': {error}; delete it, and the files are hashed and recorded anew"
            " (random weights must be made again)"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer of the index at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{INDEX}.lock"):
        yield


def _write_index(folder: Path, change: Callable[[dict[str, FileRecord]], None]) -> None:
    with _locked(folder):
        index = read_index(folder)
        change(index)
        files = {id: to_dict(record) for id, record in sorted(index.items())}
        text = json.dumps({"schema_version": INDEX_VERSION, "files": files}, indent=2)
        with atomic_file(folder / INDEX) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def remember(
    folder: Path,
    id: str,
    path: Path,
    sha256: str,
    *,
    random: bool,
    first: FileRecord | None,
    must_write: bool = True,
) -> None:
    """Put the file into the index; the date is that of its first use while its hash stays the same."""
    stat = path.stat()
    is_same = first is not None and first.sha256 == sha256
    recorded = first.recorded if first is not None and is_same else datetime.now(UTC).date().isoformat()
    record = FileRecord(
        sha256=sha256, size=stat.st_size, mtime_ns=stat.st_mtime_ns, recorded=recorded, random=random
    )
    try:
        _write_index(folder, lambda index: index.update({id: record}))
    except OSError as error:
        # a models folder shared read-only: its users hash on every run
        if must_write or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


# ---- adding ----------------------------------------------------------------------------------------------


def add(
    id: str, source: Path, models: Path | None = None, *, link: bool = False, replace: bool = False
) -> Located:
    """Take a file into the models folder: hash and keys are checked before it gets its place.

    link: a symbolic link instead of a copy.   replace: also in place of a recorded file of another content.
    """
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    source = source.expanduser()
    if not source.is_file():
        raise UserError(f"no file '{source}' to add as '{id}'")
    target = folder / weight.file
    record = read_index(folder).get(id)
    if target.exists() and target.samefile(source):  # put there by hand, to be checked and recorded
        sha256 = accept(weight, source, source, record, replace=replace)
    else:
        with atomic_file(target) as temporary:
            (_link if link else _copy)(source, temporary)
            sha256 = accept(weight, temporary, source, record, replace=replace)
    remember(folder, id, target, sha256, random=False, first=record)
    return Located(id, target, sha256, False)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)


def _link(source: Path, target: Path) -> None:
    os.symlink(source.resolve(), target)


def accept(weight: WeightFile, path: Path, shown: Path, record: FileRecord | None, *, replace: bool) -> str:
    """The sha256 of a file that may be `weight`; UserError, which names `shown`, if it may not."""
    sha256 = file_sha256(path)
    if record is not None and record.random and record.sha256 == sha256:
        raise UserError(f"'{shown}' is the random file of '{weight.id}'; make it with 'weights random'")
    kept = None if record is None or record.random or replace else record
    _check_hash(weight, shown, sha256, kept)
    check_keys = _module_function(weight, "check_keys")
    if check_keys is not None:
        try:
            check_keys(weight.id, path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), str(shown))) from error
    return sha256


def _module_function(weight: WeightFile, name: str) -> Callable[..., Any] | None:
    """A function of the module that loads this file, or None where it has none."""
    try:
        module = import_module(weight.module)
    except ModuleNotFoundError as error:
        if error.name is not None and weight.module.startswith(error.name):
            return None
        raise
    return getattr(module, name, None)


# ---- random weights --------------------------------------------------------------------------------------


def make_random(id: str, models: Path | None = None, *, seed: int = 0) -> Located:
    """Write small random weights in the official format and mark them; never over a real file."""
    weight = weight_file(id)
    folder = models_folder() if models is None else models
    target = folder / weight.file
    record = read_index(folder).get(id)
    if target.is_file() and not (
        record is not None and record.random and record.sha256 == file_sha256(target)
    ):
        raise UserError(
            f"'{target}' is not a random file and is left alone;"
            " choose another folder for rehearsals with GENTRON_MODELS"
        )
    random_weights = _module_function(weight, "random_weights")
    if random_weights is None:
        raise UserError(f"{weight.module} offers no random weights for '{id}'")
    with atomic_file(target) as temporary, TemporaryDirectory(dir=folder, prefix=".random-") as scratch:
        made = Path(scratch) / weight.file  # torch.save writes the file's name into it: the same every time
        random_weights(id, made, seed=seed)
        os.replace(made, temporary)
        sha256 = file_sha256(temporary)
    remember(folder, id, target, sha256, random=True, first=None)
    return Located(id, target, sha256, True)
