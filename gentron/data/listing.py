"""Samples with captions, listed from whatever people bring: a folder, shards, Parquet, a hub data set.

Each form is a file of its own (sidecars.py, tars.py, tables.py) and adds to one Listing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from gentron.data.captions import Captions
from gentron.errors import UserError
from gentron.pictures import PICTURE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".m4v", ".mkv", ".avi", ".gif")
MAX_DROPPED = 0.1
"""Of all samples; where more than this share has no usable caption, the data set is refused."""
NUM_NAMED = 3  # examples named for each reason


class Media(StrEnum):
    """What a data set is read for."""

    PICTURES = "pictures"
    CLIPS = "clips"

    @property
    def suffixes(self) -> tuple[str, ...]:
        return PICTURE_SUFFIXES if self is Media.PICTURES else VIDEO_SUFFIXES


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What the columns of a table or the keys of a listing are called; None: the usual names are tried."""

    media: str | None = None
    caption: str | None = None


class Content(Protocol):
    """Where the bytes of a sample are."""

    def read(self) -> Path | bytes:
        """A path that a decoder can open, or the bytes."""
        ...


class InFile(NamedTuple):
    """A file, or a folder of frames."""

    path: Path

    def read(self) -> Path:
        return self.path


class Item(NamedTuple):
    """A sample: its name within the data set, which decides what is held back, and one caption or more."""

    name: str
    captions: tuple[str, ...]
    content: Content

    def read(self) -> Path | bytes:
        return self.content.read()


@dataclass(kw_only=True, slots=True)
class Listing:
    """The samples of a data set in the order of their names, and what was dropped, by reason."""

    place: str
    media: Media
    items: list[Item] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> names. These are samples."""
    num_unusable: int = 0
    """Entries of caption lists that are blank or no text, of samples that have others."""

    def add(self, name: str, captions: Captions, content: Content) -> None:
        """A sample; without a usable caption it is dropped."""
        if captions.texts:
            self.num_unusable += captions.num_unusable
            self.items.append(Item(name, tuple(dict.fromkeys(captions.texts)), content))
        else:
            self.drop(name, "captions blank or no text" if captions.num_unusable else "no caption")

    def drop(self, name: str, reason: str) -> None:
        self.dropped.setdefault(reason, []).append(name)

    @property
    def num_dropped(self) -> int:
        return sum(map(len, self.dropped.values()))

    @property
    def summary(self) -> str:
        """One line: how many samples, captions and dropped files, with reasons and examples."""
        num_captions = sum(len(item.captions) for item in self.items)
        line = f"{self.place}: {counted(len(self.items), self.media)}, {counted(num_captions, 'captions')}"
        if self.dropped:
            line += f"; dropped {self.num_dropped}: {self.reasons()}"
        if self.num_unusable:
            line += f"; {self.num_unusable} entries of caption lists are blank or no text"
        return line

    def reasons(self) -> str:
        return "; ".join(
            f"{len(names)} {reason} ({_some(names)})" for reason, names in sorted(self.dropped.items())
        )

    def checked(self, max_dropped: float = MAX_DROPPED) -> Listing:
        """Itself with items sorted, or UserError: nothing usable, or more dropped than the share allowed."""
        total = len(self.items) + self.num_dropped
        if not self.items:
            found = f": {self.reasons()}" if self.dropped else f"; expected {self._expected()}"
            raise UserError(f"no captioned {self.media} in {self.place}{found}")
        if self.num_dropped > max_dropped * total:
            raise UserError(
                f"{self.place}: {self.num_dropped} of {total} {self.media} have no usable caption or file, "
                f"more than the share of {max_dropped:g} that may be dropped: {self.reasons()}"
            )
        self.items.sort(key=lambda item: item.name)
        return self

    def _expected(self) -> str:
        example = "NAME.png" if self.media is Media.PICTURES else "NAME.mp4"
        return (
            f"{example} with NAME.txt, captions.jsonl or metadata.csv with the columns file and caption, "
            f"WebDataset .tar shards, or .parquet files"
        )


def counted(number: int, things: str) -> str:
    """1 picture, 2 pictures."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def _some(names: Iterable[str]) -> str:
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]  # of a Latin-1 disk
    more = f", and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
