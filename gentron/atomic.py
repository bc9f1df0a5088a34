"""Files and folders that are whole or absent: written beside their place, flushed to the disk, renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """OSError if a file or folder at `path` cannot be made, to be said before the work and not after it."""
    place = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes its place when the block ends without an error."""
    if path.exists() and not path.is_file():  # a folder, or a device, which renaming would replace
        raise OSError(errno.EINVAL, "not a regular file, cannot be replaced", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror and error.filename in (None, str(temporary)):
            error.filename = str(path)  # what the message names
        raise
    _fsync(path.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """The same for a folder; one that stands there already is moved aside first and removed at the end."""
    if folder.exists() and not folder.is_dir():
        raise OSError(errno.ENOTDIR, "not a folder, cannot be replaced", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _sibling(folder), _sibling(folder)
    try:
        temporary.mkdir()
        yield temporary
        for path in (*sorted(temporary.rglob("*")), temporary):
            _fsync(path)
        if folder.exists():
            os.rename(folder, old)
        os.rename(temporary, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(folder.parent)
    if old.exists():
        shutil.rmtree(old)
