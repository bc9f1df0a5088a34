"""Samples of a folder: files with captions beside them, or named in a listing (JSONL, CSV), or both."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from gentron.data.captions import CAPTION_NAMES, CAPTION_SUFFIXES, Captions, from_row, from_sidecars
from gentron.data.listing import Columns, InFile, Listing, Media
from gentron.data.video import FRAME_SUFFIXES
from gentron.errors import UserError
from gentron.textfiles import Row, read_csv, read_jsonl

LISTINGS = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
"""One a folder; metadata.* is what `datasets` calls it in its imagefolder."""
FILE_NAMES = ("file", "file_name", "filename", "image", "video", "path", "filepath")


def is_listing(path: Path) -> bool:
    return path.name.lower() in LISTINGS


def add_listing(listing: Listing, path: Path, root: Path, columns: Columns) -> set[str]:
    """The samples that one listing names; gives their names."""
    named: dict[str, Captions] = {}
    _read_listing(path, root, columns, named)
    for name, captions in named.items():
        _add_named(listing, root, name, captions)
    return set(named)


def add_folder(listing: Listing, root: Path, files: Iterable[Path], columns: Columns) -> None:
    """All samples among the files: those that listings name, then those with captions beside them."""
    files = list(files)
    named: set[str] = set()
    for path in _listings(files):
        named |= add_listing(listing, path, root, columns)
    beside = _captions_beside(files)
    for path in _samples(root, files, listing.media):
        name = str(path.relative_to(root))
        if name in named:
            continue
        sidecars = {suffix: found.read_bytes for suffix, found in beside[_stem(path)].items()}
        try:
            captions = from_sidecars(sidecars, str(Path(name).with_suffix("")), columns.caption)
        except UserError as error:
            listing.drop(str(error), "unreadable captions")
        else:
            listing.add(name, captions, InFile(path))


# ---- listings ----------------------------------------------------------------------------------------------


def _listings(files: Iterable[Path]) -> Iterator[Path]:
    """Every listing; two in one folder would be two truths."""
    of_folder: dict[Path, Path] = {}
    for path in files:
        if not is_listing(path):
            continue
        if path.parent in of_folder:
            raise UserError(
                f"{path.parent} has two listings, {of_folder[path.parent].name} and {path.name}; keep one"
            )
        of_folder[path.parent] = path
        yield path


def _read_listing(path: Path, root: Path, columns: Columns, named: dict[str, Captions]) -> None:
    """Add the captions of each row to those of its file; files are relative to the listing's folder."""
    rows = read_csv(path) if path.suffix.lower() == ".csv" else read_jsonl(path)
    for row in rows:
        file = _file_of(row, path, columns)
        name = os.path.normpath(path.parent / file)
        name = os.path.relpath(name, root) if Path(name).is_relative_to(root) else name
        before, found = named.get(name, Captions(())), from_row(row.values, columns.caption)
        named[name] = Captions(before.texts + found.texts, before.num_unusable + found.num_unusable)


def _file_of(row: Row, path: Path, columns: Columns) -> str:
    names = FILE_NAMES if columns.media is None else (columns.media,)
    file = next((row.values[name] for name in names if row.values.get(name)), None)
    if not isinstance(file, str) or "\0" in file:
        wanted = f'"{columns.media or "file"}": ..., "{columns.caption or "caption"}": ...'
        raise UserError(
            f"{path}:{row.line}: expected {{{wanted}}}, got the keys {', '.join(row.values) or 'none'}"
        )
    caption = (columns.caption,) if columns.caption else CAPTION_NAMES
    if path.suffix.lower() == ".csv" and not any(name in row.values for name in caption):
        raise UserError(f"{path}: no column {' or '.join(caption)}, but {', '.join(row.values)}")
    return file


def _add_named(listing: Listing, root: Path, name: str, captions: Captions) -> None:
    path = root / name
    try:
        there = path.is_file() or (listing.media is Media.CLIPS and path.is_dir())
    except OSError:  # a name that no file can have
        there = False
    other = Media.CLIPS if listing.media is Media.PICTURES else Media.PICTURES
    if not there:
        listing.drop(name, "file missing")
    elif path.suffix.lower() in other.suffixes and path.suffix.lower() not in listing.media.suffixes:
        listing.drop(name, f"not among {listing.media}")
    else:
        listing.add(name, captions, InFile(path))


# ---- captions beside files ---------------------------------------------------------------------------------


def _stem(path: Path) -> tuple[Path, str]:
    """What a picture and its caption share; a folder of frames has no suffix to lose."""
    known = path.suffix.lower() in (*Media.PICTURES.suffixes, *Media.CLIPS.suffixes, *CAPTION_SUFFIXES)
    return path.parent, path.stem if known else path.name


def _captions_beside(files: Iterable[Path]) -> dict[tuple[Path, str], dict[str, Path]]:
    """Folder and stem -> suffix in lower case -> file."""
    beside: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in files:
        suffix = path.suffix.lower()
        if suffix in CAPTION_SUFFIXES and not is_listing(path):
            beside[_stem(path)].setdefault(suffix, path)
    return beside


def _samples(root: Path, files: Iterable[Path], media: Media) -> Iterator[Path]:
    """Files by their suffix; as clips also the folders below that hold pictures and no video."""
    if media is Media.PICTURES:
        yield from (path for path in files if path.suffix.lower() in media.suffixes)
        return
    with_frames: dict[Path, None] = {}
    with_videos: set[Path] = set()
    for path in files:
        suffix = path.suffix.lower()
        if suffix in media.suffixes or suffix == ".webp" and _is_animation(path):
            with_videos.add(path.parent)
            yield path
        elif suffix in FRAME_SUFFIXES and path.parent != root:
            with_frames[path.parent] = None
    yield from (folder for folder in with_frames if folder not in with_videos)


def _is_animation(path: Path) -> bool:
    """An animated WebP says so in the flags of its VP8X chunk."""
    try:
        with open(path, "rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)
