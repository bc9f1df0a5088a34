"""Samples of tables: Parquet files and hub data sets, through Hugging Face `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gentron.data.captions import CAPTION_NAMES, from_value
from gentron.data.listing import Columns, Listing, Media
from gentron.errors import MediaError, UserError

MEDIA_NAMES = {
    Media.PICTURES: (
        "image",
        "images",
        "picture",
        "img",
        "jpg",
        "jpeg",
        "png",
        "webp",
        "image_bytes",
        "bytes",
    ),
    Media.CLIPS: ("video", "videos", "clip", "mp4", "webm", "mov", "gif", "video_bytes", "bytes"),
}
HUB_PREFIX = "hf:"
HUB_NAME = re.compile(r"hf:(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<split>.+))?")


class InRow(NamedTuple):
    """The cell of a table, whose bytes stay on the disk until they are read."""

    table: Any
    row: int
    column: str
    folder: Path

    def read(self) -> Path | bytes:
        cell = self.table[self.row][self.column]
        if isinstance(cell, dict):  # as `datasets` keeps pictures and videos
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, str):
            return self.folder / cell
        if not isinstance(cell, bytes):
            raise MediaError(
                f"cannot read row {self.row} of column {self.column}: expected bytes or a path, got none"
            )
        return cell


def add_parquet(listing: Listing, files: Sequence[Path], columns: Columns, *, cache_dir: Path) -> None:
    """The rows of Parquet files, all of one layout."""
    import datasets

    try:
        with _quiet(datasets):
            table = datasets.Dataset.from_parquet([str(path) for path in files], cache_dir=str(cache_dir))
    except Exception as error:  # pyarrow's and datasets' own, of many kinds
        raise UserError(
            f"cannot read {files[0]}{' and others' * (len(files) > 1)}: {_first_line(error)}"
        ) from None
    _add_rows(listing, table, columns, folder=files[0].parent)


def add_hub(listing: Listing, name: str, columns: Columns, *, cache_dir: Path | None = None) -> None:
    """hf:NAME[:CONFIG][@SPLIT]; from the cache if it is there, else fetched. NAME may be a local folder."""
    import datasets

    parts = HUB_NAME.fullmatch(name)
    if parts is None:
        raise UserError(f"expected hf:NAME, hf:NAME:CONFIG or hf:NAME@SPLIT, got {name!r}")
    split = parts["split"] or "train"
    try:
        with _quiet(datasets):
            table = datasets.load_dataset(
                parts["name"], parts["config"], split=split, cache_dir=cache_dir and str(cache_dir)
            )
    except Exception as error:  # as above, and whatever a network raises
        raise UserError(f"cannot load the data set {name}: {_first_line(error)}") from None
    _add_rows(listing, table, columns, folder=Path(parts["name"]))


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without progress bars and log lines of `datasets`, whose state is global: we tell of errors."""
    were_on = not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if were_on:
            datasets.enable_progress_bars()


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.split("\n", 1)[0][:300]


def _add_rows(listing: Listing, table: Any, columns: Columns, *, folder: Path) -> None:
    import datasets

    media = _media_column(table, listing.media, columns)
    caption = _caption_column(table, columns)
    feature = table.features[media]
    if isinstance(feature, datasets.Image | datasets.Video):
        table = table.cast_column(media, type(feature)(decode=False))
    bytes_of, captions = table.select_columns([media]), table.select_columns([caption])
    row = 0
    for batch in captions.iter(batch_size=1000):
        for value in batch[caption]:
            listing.add(f"{row:09d}", from_value(value), InRow(bytes_of, row, media, folder))
            row += 1


def _media_column(table: Any, media: Media, columns: Columns) -> str:
    import datasets

    if columns.media is not None:
        return _existing(table, columns.media)
    kind = datasets.Image if media is Media.PICTURES else datasets.Video
    typed = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    return typed[0] if typed else _first_of(table, MEDIA_NAMES[media], str(media), "--media-column")


def _caption_column(table: Any, columns: Columns) -> str:
    if columns.caption is not None:
        return _existing(table, columns.caption)
    return _first_of(table, CAPTION_NAMES, "captions", "--caption-column")


def _existing(table: Any, name: str) -> str:
    if name not in table.column_names:
        raise UserError(f"no column {name!r}; the columns are {', '.join(table.column_names)}")
    return name


def _first_of(table: Any, names: Sequence[str], what: str, option: str) -> str:
    lower = {name.lower(): name for name in reversed(table.column_names)}
    for name in names:
        if name in lower:
            return lower[name]
    raise UserError(
        f"no column with {what}: tried {', '.join(names)}; the columns are {', '.join(table.column_names)}; "
        f"name one with {option}"
    )
