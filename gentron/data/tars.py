"""Samples of WebDataset shards: members KEY.png, KEY.txt, KEY.json of a tar file, read in place by offset."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from gentron.atomic import atomic_file
from gentron.data.captions import CAPTION_SUFFIXES, from_sidecars
from gentron.data.listing import Columns, Listing
from gentron.data.walk import is_left_behind
from gentron.errors import UserError

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
COPY_BLOCK = 2**20


class InTar(NamedTuple):
    """A part of an uncompressed tar file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} ends within it")
        return data


def is_shard(path: Path) -> bool:
    return path.name.lower().endswith(SHARD_SUFFIXES)


def split_member(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member: as WebDataset splits, at the first dot of the *file* name.

    None: no sample (hidden, without a suffix, or what archivers leave behind). `./a.png` and `a.png` are one.
    """
    path = PurePosixPath(name)
    match = re.fullmatch(r"([^.]+)\.(.+)", path.name)
    parts = [part for part in path.parts if part != "."]
    if match is None or any(is_left_behind(part) for part in parts):
        return None
    return "/".join([*parts[:-1], match[1]]), f".{match[2].lower()}"


def add_shard(listing: Listing, path: Path, name: str, columns: Columns, *, cache_dir: Path) -> None:
    """The samples of one shard.   name: the shard's, within the data set.

    cache_dir: a compressed shard has no offsets; it is unpacked there once.
    """
    try:
        plain = _unpacked(path, cache_dir) if path.suffix.lower() in (".gz", ".tgz") else path
        members = _members(plain)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, OSError, ValueError) as error:
        raise UserError(f"cannot read shard {path}: {error}") from None
    with open(plain, "rb") as file:
        for key, parts in members.items():
            samples = [suffix for suffix in parts if suffix in listing.media.suffixes]
            sidecars = {
                suffix: _reader(file, parts[suffix]) for suffix in CAPTION_SUFFIXES if suffix in parts
            }
            for suffix in samples:
                sample = f"{name}/{key}" if len(samples) == 1 else f"{name}/{key}{suffix}"
                try:
                    captions = from_sidecars(sidecars, f"{name}/{key}", columns.caption)
                except UserError as error:
                    listing.drop(str(error), "unreadable captions")
                else:
                    listing.add(sample, captions, InTar(plain, *parts[suffix]))


def _members(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Key -> suffix -> offset and size, in the tar's order; of a member written twice the last counts."""
    members: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            split = split_member(member.name) if member.isreg() else None
            if split is not None:
                key, suffix = split
                members[key][suffix] = member.offset_data, member.size
            tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps 1 KB a member
    return members


def _reader(file: BinaryIO, part: tuple[int, int]) -> Callable[[], bytes]:
    def read() -> bytes:
        file.seek(part[0])
        return file.read(part[1])

    return read


def _unpacked(path: Path, cache_dir: Path) -> Path:
    """The tar within a .tar.gz, in the cache by the file's path, size and time."""
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache_dir / f"{path.name.split('.')[0]}-{key}.tar"
    if not target.is_file():
        with atomic_file(target) as temporary, gzip.open(path) as packed, open(temporary, "wb") as plain:
            shutil.copyfileobj(packed, plain, COPY_BLOCK)
    return target
