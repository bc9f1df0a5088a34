"""Pictures with captions, in a folder or in WebDataset shards, as a data source encoded on the fly."""

# B batch, C latent channels, H W latent size, S picture side in pixels

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gentron.data.keyed import Stream, keyed_rng
from gentron.data.shapes import Encode
from gentron.data.source import Batch, item_of_index
from gentron.errors import UserError
from gentron.pixels import to_unit_range

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Item(NamedTuple):
    """A picture file, or the part of a tar file that is one; and its captions."""

    path: Path
    captions: tuple[str, ...]
    name: str
    """Relative to the data folder; it decides what is held back."""
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _captions(row: Any) -> tuple[str, ...]:
    """Of a row {"caption": ... or [...]}, "text" being another word for it; none if it has neither."""
    caption = row.get("caption") or row.get("text") or []
    return (caption,) if isinstance(caption, str) else tuple(str(c) for c in caption)


def _from_listing(path: Path) -> list[Item]:
    """Lines {"file": ..., "caption": ...}; "file" (or "file_name", "image") is relative to the folder."""
    items = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = row.get("file") or row.get("file_name") or row["image"]
            captions = _captions(row)
            if not captions:
                raise KeyError("caption")
            items.append(Item(path.parent / name, captions, name))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f'{path}:{number}: expected {{"file": ..., "caption": ...}}, got {line[:80]!r}'
            ) from None
    return items


def _from_pictures(folder: Path) -> list[Item]:
    """NAME.png with NAME.txt beside it, one caption a line."""
    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return [
        Item(picture, _lines(text.read_text("utf-8")), str(picture.relative_to(folder)))
        for picture in pictures
        if (text := picture.with_suffix(".txt")).is_file()
    ]


def _from_shard(path: Path) -> list[Item]:
    """A WebDataset tar: members KEY.png (.jpg, ...) and KEY.txt or KEY.json, read in place by offset."""
    pictures: dict[str, tarfile.TarInfo] = {}
    captions: dict[str, tuple[str, ...]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if f".{suffix.lower()}" in SUFFIXES:
                    pictures[key] = member
                elif suffix == "txt" and (file := tar.extractfile(member)):
                    captions[key] = _lines(file.read().decode("utf-8"))
                elif suffix == "json" and (file := tar.extractfile(member)):
                    captions[key] = captions.get(key) or _captions(json.loads(file.read()))
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read shard {path}: {error!r}") from None
    return [
        Item(path, captions.get(key, ()), f"{path.name}/{key}", member.offset_data, member.size)
        for key, member in pictures.items()
    ]


def list_folder(folder: Path) -> list[Item]:
    """Every picture with its captions: from captions.jsonl, *.tar shards, or NAME.png with NAME.txt."""
    if not folder.is_dir():
        raise UserError(f"no such data folder: {folder} (expected 'shapes' or a folder of pictures)")
    listing, shards = folder / "captions.jsonl", sorted(folder.glob("*.tar"))
    if listing.is_file():
        items = _from_listing(listing)
    elif shards:
        items = [item for shard in shards for item in _from_shard(shard)]
    else:
        items = _from_pictures(folder)
    items = [item for item in items if item.captions]
    if not items:
        raise UserError(
            f"no captioned pictures in {folder}: expected captions.jsonl, *.tar, or NAME.png with NAME.txt"
        )
    return items


def load_picture(item: Item, image_size: int) -> Tensor:
    """(3, S, S) float32 in [-1, 1]: short side resized to S, centre cropped.

    No mirroring: it would make "left of" a lie.
    """
    try:
        with Image.open(io.BytesIO(item.read())) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"cannot read picture {item.name} in {item.path}: {error}") from None
    scale = image_size / min(rgb.size)
    width, height = (max(image_size, round(side * scale)) for side in rgb.size)
    rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    rgb = rgb.crop((left, top, left + image_size, top + image_size))
    return to_unit_range(np.array(rgb))


class FolderSource:
    """Pictures of a folder in a keyed order; held back are the smallest hashes of the name."""

    def __init__(
        self, folder: Path, *, encode: Encode, image_size: int, seed: int, validation_size: int
    ) -> None:
        items = list_folder(folder)
        by_hash = sorted(items, key=lambda item: sha256(item.name.encode()).digest())
        num_held_back = min(validation_size, len(items) // 10 or 1)
        if len(items) <= num_held_back:
            raise UserError(f"{folder} holds {len(items)} captioned picture, need at least 2")
        self.folder, self.seed, self.image_size, self._encode = folder, seed, image_size, encode
        self._validation = by_hash[:num_held_back]
        held_back = {item.name for item in self._validation}
        self._items = [item for item in items if item.name not in held_back]

    @property
    def name(self) -> str:
        return f"folder {self.folder} ({len(self._items)} pictures, {len(self._validation)} held back)"

    def _read(self, items: Sequence[Item], captions: list[str]) -> Batch:
        pictures = torch.stack([load_picture(item, self.image_size) for item in items])
        with torch.no_grad():
            return Batch(self._encode(pictures).float().cpu(), captions)

    def batch(self, global_indices: Sequence[int]) -> Batch:
        items = [self._items[item_of_index(self.seed, i, len(self._items))] for i in global_indices]
        draws = [keyed_rng(self.seed, i, Stream.CAPTION) for i in global_indices]
        captions = [
            item.captions[int(rng.integers(len(item.captions)))]
            for item, rng in zip(items, draws, strict=True)
        ]
        return self._read(items, captions)

    def held_back(self) -> Batch:
        return self._read(self._validation, [item.captions[0] for item in self._validation])
