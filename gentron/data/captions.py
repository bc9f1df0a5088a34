"""Captions as people write them down: text files, JSON of any of the usual shapes, lists with gaps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gentron.textfiles import decode_text, parse_json, split_lines

CAPTION_NAMES = ("caption", "captions", "text", "txt", "prompt", "prompts", "sentences")
"""Columns and keys that hold captions, the first that is there wins."""


class Captions(NamedTuple):
    """The usable captions of one sample, and how many entries were blank or no text."""

    texts: tuple[str, ...]
    num_unusable: int = 0


def from_text(text: str) -> Captions:
    """A caption a line; blank lines do not count."""
    return Captions(tuple(line.strip() for line in split_lines(text) if line.strip()))


def from_value(value: Any) -> Captions:
    """A string or a list of strings; null, blanks, numbers and objects in a list are counted and left out."""
    if value is None:
        return Captions(())
    entries = value if isinstance(value, (list, tuple)) else [value]
    texts = tuple(entry.strip() for entry in entries if isinstance(entry, str) and entry.strip())
    return Captions(texts, len(entries) - len(texts))


def from_row(row: dict[str, Any], column: str | None = None) -> Captions:
    """Of a named column, or of the first of CAPTION_NAMES that holds a usable caption."""
    names = CAPTION_NAMES if column is None else (column,)
    num_unusable = 0
    for name in names:
        found = from_value(row.get(name))
        if found.texts:
            return found
        num_unusable += found.num_unusable
    return Captions((), num_unusable)


CAPTION_SUFFIXES = (".txt", ".caption", ".json")
"""Of files beside a picture, in the order in which they are asked; the first that holds a caption wins."""


def from_sidecars(files: Mapping[str, Callable[[], bytes]], name: str, column: str | None = None) -> Captions:
    """Of the files NAME.txt, NAME.caption and NAME.json, given by suffix; UserError: one cannot be read."""
    num_unusable = 0
    for suffix in CAPTION_SUFFIXES:
        if suffix not in files:
            continue
        text = decode_text(files[suffix](), f"{name}{suffix}")
        found = from_text(text) if suffix != ".json" else _from_json(text, f"{name}{suffix}", column)
        if found.texts:
            return found
        num_unusable += found.num_unusable
    return Captions((), num_unusable)


def _from_json(text: str, where: str, column: str | None) -> Captions:
    """An object with a caption under one of the usual names, or a string or list of strings."""
    value = parse_json(text, where)
    return from_row(value, column) if isinstance(value, dict) else from_value(value)


OPPOSITES = {
    "left": "right", "leftward": "rightward", "leftwards": "rightwards", "leftmost": "rightmost",
    "up": "down", "upward": "downward", "upwards": "downwards", "rising": "falling", "rises": "falls",
    "forward": "backward", "forwards": "backwards", "clockwise": "counterclockwise",
}  # fmt: skip
DIRECTIONS = OPPOSITES | {opposite: word for word, opposite in OPPOSITES.items()}
SIDES = {word for word in DIRECTIONS if word.startswith(("left", "right"))}
WORD = re.compile(r"[A-Za-z]+")


def names_a_side(caption: str) -> bool:
    """Whether a caption says left or right, which a mirrored picture would make a lie."""
    return any(word.lower() in SIDES for word in WORD.findall(caption))


def opposite_directions(caption: str) -> str:
    """Every word of direction turned into its opposite, its first letter's case kept."""

    def turned(match: re.Match[str]) -> str:
        word = match[0]
        opposite = DIRECTIONS.get(word.lower(), word)
        return opposite.capitalize() if word[0].isupper() and opposite != word else opposite

    return WORD.sub(turned, caption)
