"""A folder of pictures with captions as a data source, encoded on the fly."""

# B batch, C latent channels, H W latent size, S picture side in pixels

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gentron.data.keyed import Stream, keyed_rng
from gentron.data.shapes import Encode
from gentron.data.source import Batch, item_of_index
from gentron.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Item(NamedTuple):
    path: Path
    captions: tuple[str, ...]


def _captions_from_jsonl(path: Path) -> list[Item]:
    """Lines {"file": ..., "caption": ... or [..]}; file (or file_name, image) relative to the folder."""
    items = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = row.get("file") or row.get("file_name") or row["image"]
            caption = row.get("caption") or row["text"]
            captions = (caption,) if isinstance(caption, str) else tuple(str(c) for c in caption)
            items.append(Item(path.parent / name, captions))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f'{path}:{number}: expected {{"file": ..., "caption": ...}}, got {line[:80]!r}'
            ) from None
    return items


def list_folder(folder: Path) -> list[Item]:
    """Every picture with its captions: from captions.jsonl, else a .txt beside each (one a line)."""
    if not folder.is_dir():
        raise UserError(f"no such data folder: {folder} (expected 'shapes' or a folder of pictures)")
    listing = folder / "captions.jsonl"
    if listing.is_file():
        items = _captions_from_jsonl(listing)
    else:
        pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        texts = [(p, p.with_suffix(".txt")) for p in pictures]
        items = [
            Item(p, tuple(line.strip() for line in t.read_text("utf-8").splitlines() if line.strip()))
            for p, t in texts
            if t.is_file()
        ]
    items = [item for item in items if item.captions]
    if not items:
        raise UserError(
            f"no captioned pictures in {folder}: expected captions.jsonl or NAME.png with NAME.txt"
        )
    return items


def load_picture(path: Path, image_size: int) -> Tensor:
    """(3, S, S) float32 in [-1, 1]: short side resized to S, centre cropped.

    No mirroring: it would make "left of" a lie.
    """
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"cannot read picture {path}: {error}") from None
    scale = image_size / min(rgb.size)
    width, height = (max(image_size, round(side * scale)) for side in rgb.size)
    rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    rgb = rgb.crop((left, top, left + image_size, top + image_size))
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float().div_(127.5).sub_(1)


class FolderSource:
    """Pictures of a folder in a keyed order; held back are the smallest hashes of the name."""

    def __init__(
        self, folder: Path, *, encode: Encode, image_size: int, seed: int, validation_size: int
    ) -> None:
        items = list_folder(folder)
        by_hash = sorted(items, key=lambda item: sha256(str(item.path.relative_to(folder)).encode()).digest())
        num_held_back = min(validation_size, len(items) // 10 or 1)
        if len(items) <= num_held_back:
            raise UserError(f"{folder} holds {len(items)} captioned picture, need at least 2")
        self.folder, self.seed, self.image_size, self._encode = folder, seed, image_size, encode
        self._validation = by_hash[:num_held_back]
        kept_back = {item.path for item in self._validation}
        self._items = [item for item in items if item.path not in kept_back]

    @property
    def name(self) -> str:
        return f"folder {self.folder} ({len(self._items)} pictures, {len(self._validation)} held back)"

    def _read(self, items: Sequence[Item], captions: list[str]) -> Batch:
        pictures = torch.stack([load_picture(item.path, self.image_size) for item in items])
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
