"""The one way into a data set: a name or a path -> Listing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gentron.data.listing import Columns, Listing, Media
from gentron.data.sidecars import add_folder, add_listing
from gentron.data.tables import HUB_PREFIX, add_hub, add_parquet
from gentron.data.tars import add_shard, is_shard
from gentron.data.walk import walk_files
from gentron.errors import UserError

CACHE = Path("~/.cache/gentron/data")
"""Unpacked .tar.gz shards, and the Arrow files that `datasets` makes of Parquet."""
LISTING_SUFFIXES = (".jsonl", ".csv")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")  # of WebDataset's shard patterns


def list_samples(
    data: str | Path,
    *,
    media: Media = Media.PICTURES,
    columns: Columns = Columns(),  # noqa: B008  # frozen
    cache_dir: Path = CACHE,
) -> Listing:
    """All samples of `data`, unchecked and unsorted; see Listing.checked.

    data: a folder of files, shards and Parquet in any mixture; a shard, or a pattern as in
    "shards/{00000..00099}.tar"; a Parquet file; a listing (.jsonl,
    .csv); hf:NAME.
    """
    cache_dir = cache_dir.expanduser()
    listing = Listing(place=str(data), media=media)
    if str(data).startswith(HUB_PREFIX):
        add_hub(listing, str(data), columns)
        return listing
    if Path(data).suffix.lower() in LISTING_SUFFIXES and Path(data).is_file():
        add_listing(listing, Path(data), Path(data).parent, columns)
        return listing
    root, files = _files_of(str(data))
    shards = [path for path in files if is_shard(path)]
    for path in shards:
        add_shard(listing, path, str(path.relative_to(root)), columns, cache_dir=cache_dir)
    tables = _tables(files, shards)
    if tables:
        add_parquet(listing, tables, columns, cache_dir=cache_dir / "parquet")
    add_folder(listing, root, files, columns)
    return listing


def _files_of(data: str) -> tuple[Path, list[Path]]:
    """A root for names, and the files to read."""
    paths = [Path(name) for name in expand_braces(data)]
    if len(paths) == 1 and paths[0].is_dir():
        return paths[0], walk_files(paths[0])
    for path in paths:
        if not path.is_file():
            raise UserError(f"no such data {'file' if path.suffix else 'folder'}: {path}")
        if not (is_shard(path) or path.suffix.lower() == ".parquet"):
            raise UserError(
                f"{path} is no data set: expected a folder, .tar, .parquet, .jsonl, .csv or hf:NAME"
            )
    return paths[0].parent, paths


def expand_braces(pattern: str) -> Iterator[str]:
    """ "{08..10}.tar" -> 08.tar, 09.tar, 10.tar; several braces give all combinations."""
    match = BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match[1], match[2]
    for number in range(int(first), int(last) + 1):
        yield from expand_braces(f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}")


def _tables(files: list[Path], shards: list[Path]) -> list[Path]:
    """Parquet files; not those that img2dataset writes beside its shards, NUMBER.parquet to NUMBER.tar."""
    beside = {path.parent / path.name.split(".")[0] for path in shards}
    return [
        path for path in files if path.suffix.lower() == ".parquet" and path.with_suffix("") not in beside
    ]
