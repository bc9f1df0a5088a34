"""Pictures or clips with captions, from files of any form, as data sources encoded on the fly."""

# B batch, F frames, C latent channels, H W latent size, S picture side in pixels

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gentron.data.ahead import DecodeAhead
from gentron.data.keyed import Stream, keyed_rng
from gentron.data.listing import MAX_DROPPED, Columns, Item, Listing, Media, counted
from gentron.data.samples import CACHE, list_samples
from gentron.data.shapes import Encode
from gentron.data.source import Batch, item_of_index
from gentron.data.video import centre_crop, read_frames
from gentron.errors import MediaError, UserError
from gentron.pictures import read_picture
from gentron.pixels import to_unit_range

MAX_REPLACEMENTS = 16
"""Unreadable samples in a row, each drawn anew; where half of all files are broken, 1 in 65,536 draws."""

Decode = Callable[[Item, np.random.Generator], np.ndarray]
"""The pixels of an item, uint8; the generator chooses the window of a clip."""


def load_picture(item: Item, image_size: int) -> np.ndarray:
    """(S, S, 3) uint8: short side resized to S, centre cropped.

    No mirroring: it would make "left of" a lie.
    """
    return centre_crop(np.asarray(read_picture(_content(item), name=item.name)), image_size)


def load_clip(
    item: Item, rng: np.random.Generator, *, num_frames: int, fps: float, image_size: int
) -> np.ndarray:
    """(F, S, S, 3) uint8: a window drawn by rng."""
    return read_frames(
        _content(item), num_frames=num_frames, fps=fps, rng=rng, image_size=image_size, name=item.name
    )


def _content(item: Item) -> Path | bytes:
    try:
        return item.read()
    except OSError as error:
        raise MediaError(f"cannot read {item.name}: {error.strerror or error}") from None


def _hash(name: str) -> bytes:
    """Names come from file systems, whose bytes need not be UTF-8."""
    return sha256(os.fsencode(name)).digest()


class _Drawn(NamedTuple):
    """What a global index gives: pixels, a caption, and the files that could not be read on the way to it."""

    pixels: np.ndarray
    caption: str
    unreadable: tuple[str, ...]


class ListedSource:
    """Items of a listing in a keyed order; held back are the smallest hashes of the name."""

    def __init__(
        self,
        listing: Listing,
        *,
        encode: Callable[[np.ndarray], Tensor],
        decode: Decode,
        seed: int,
        validation_size: int,
        max_dropped: float = MAX_DROPPED,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """encode: pixels of a batch -> latents on the CPU.   report: is told the summary, once."""
        report(listing.summary)
        items = listing.checked(max_dropped).items
        if len(items) < 2:
            raise UserError(
                f"{listing.place} holds {counted(len(items), f'captioned {listing.media}')}, "
                f"need at least 2: one is held back to validate on"
            )
        by_hash = sorted(items, key=lambda item: _hash(item.name))
        self.listing, self.seed = listing, seed
        self._encode, self._decode = encode, decode
        held_back, self._held_back = self._hold_back(by_hash, min(validation_size, len(items) // 10 or 1))
        self._items = [item for item in items if item.name not in held_back]
        self._draw_all = DecodeAhead(self._draw)

    @property
    def name(self) -> str:
        items = counted(len(self._items), self.listing.media)
        return f"{self.listing.place} ({items}, {len(self._held_back.captions)} held back)"

    def _draw(self, index: int) -> _Drawn:
        """The sample of a global index: the item whose turn it is, or chosen by chance for a broken one."""
        number = item_of_index(self.seed, index, len(self._items))
        rng, replacement = (keyed_rng(self.seed, index, s) for s in (Stream.WINDOW, Stream.REPLACEMENT))
        unreadable: list[str] = []
        for _ in range(MAX_REPLACEMENTS):
            item = self._items[number]
            try:
                pixels = self._decode(item, rng)
            except MediaError as error:
                unreadable.append(str(error))
                number = int(replacement.integers(len(self._items)))
                continue
            choice = keyed_rng(self.seed, index, Stream.CAPTION).integers(len(item.captions))
            return _Drawn(pixels, item.captions[int(choice)], tuple(unreadable))
        raise UserError(
            f"{self.listing.place}: {MAX_REPLACEMENTS} {self.listing.media} in a row cannot be read, "
            f"the last: {unreadable[-1]}; `gentron data check` names them all"
        )

    def batch(self, global_indices: Sequence[int]) -> Batch:
        drawn = self._draw_all(global_indices)
        latents = self._encode(np.stack([sample.pixels for sample in drawn]))
        # on every visit, not once a run: the rows of a resumed run are then those of a whole one
        unreadable = tuple(line for sample in drawn for line in sample.unreadable)
        return Batch(latents, [sample.caption for sample in drawn], unreadable)

    def _hold_back(self, items: Sequence[Item], number: int) -> tuple[set[str], Batch]:
        """The first `number` of the items that can be read: names, and the batch with first captions."""
        names: set[str] = set()
        captions, latents, unreadable = [], [], []
        for position, item in enumerate(items):
            if len(names) == number:
                break
            try:
                pixels = self._decode(item, keyed_rng(self.seed, position, Stream.HELD_BACK_WINDOW))
            except MediaError as error:
                unreadable.append(str(error))
                continue
            names.add(item.name)
            captions.append(item.captions[0])
            latents.append(self._encode(pixels[None]))
        if not names:
            raise UserError(f"{self.listing.place}: no file can be read, the first: {unreadable[0]}")
        return names, Batch(torch.cat(latents), captions, tuple(unreadable))

    def held_back(self) -> Batch:
        return self._held_back


class FolderSource(ListedSource):
    """Pictures with captions: a folder, shards, Parquet or hf:NAME.   latents: (B, C, H, W)."""

    def __init__(
        self,
        data: str | Path,
        *,
        encode: Encode,
        image_size: int,
        seed: int,
        validation_size: int,
        columns: Columns = Columns(),  # noqa: B008  # frozen
        max_dropped: float = MAX_DROPPED,
        cache_dir: Path = CACHE,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        def encode_pictures(pixels: np.ndarray) -> Tensor:
            with torch.no_grad():
                return encode(to_unit_range(pixels)).float().cpu()

        super().__init__(
            list_samples(data, media=Media.PICTURES, columns=columns, cache_dir=cache_dir),
            encode=encode_pictures,
            decode=lambda item, rng: load_picture(item, image_size),
            seed=seed,
            validation_size=validation_size,
            max_dropped=max_dropped,
            report=report,
        )


class ClipSource(ListedSource):
    """Clips with captions: files, folders of frames, shards, Parquet, hf:NAME.   latents: (B, F, C, H, W)."""

    def __init__(
        self,
        data: str | Path,
        *,
        encode: Encode,
        image_size: int,
        num_frames: int,
        fps: float,
        seed: int,
        validation_size: int,
        columns: Columns = Columns(),  # noqa: B008  # frozen
        max_dropped: float = MAX_DROPPED,
        cache_dir: Path = CACHE,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        def encode_clips(pixels: np.ndarray) -> Tensor:
            with torch.no_grad():  # clip by clip, so that memory does not grow with the batch
                return torch.stack([encode(to_unit_range(clip)).float().cpu() for clip in pixels])

        super().__init__(
            list_samples(data, media=Media.CLIPS, columns=columns, cache_dir=cache_dir),
            encode=encode_clips,
            decode=lambda item, rng: load_clip(
                item, rng, num_frames=num_frames, fps=fps, image_size=image_size
            ),
            seed=seed,
            validation_size=validation_size,
            max_dropped=max_dropped,
            report=report,
        )
