"""Clips as the pictures of a set: whole, for FVD, or frame by frame, for the distances of pictures."""

# F frames of a clip, H W size of a frame

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.set_metrics.features.extract import Picture
from bench.systems.clips import Clip, Frames, Reading, count_frames, pixels_digest, read_clip
from bench.systems.images import BadImage
from gentron.errors import MediaError
from gentron.hashing import sha256


@dataclass(frozen=True, slots=True)
class ClipPicture:
    """A whole clip: `read` gives (F, H, W, 3)."""

    clip: Clip
    reading: Reading

    @property
    def name(self) -> str:
        return self.clip.name

    @property
    def prompt_id(self) -> str:
        return self.clip.prompt_id

    @property
    def sample(self) -> int:
        return self.clip.sample

    def frames(self) -> Frames:
        try:
            return read_clip(self.clip.path, self.reading)
        except MediaError as error:
            raise BadImage(str(error)) from error

    def digest(self) -> str:
        return self.frames().digest

    def read(self) -> np.ndarray:
        return self.frames().pixels


@dataclass(frozen=True, slots=True)
class FramePicture:
    """Frame `index` of a clip, as a picture: equal pixels are the same picture, wherever they are."""

    whole: ClipPicture
    index: int

    @property
    def name(self) -> str:
        return f"{self.whole.name}, frame {self.index}"

    @property
    def prompt_id(self) -> str:
        return self.whole.prompt_id

    @property
    def sample(self) -> int:
        return self.whole.sample

    def digest(self) -> str:
        return pixels_digest(self.read())

    def read(self) -> np.ndarray:
        return self.whole.read()[self.index]


def whole_clips(clips: Sequence[Clip], reading: Reading) -> list[Picture]:
    return [ClipPicture(clip, reading) for clip in clips]


def all_frames(clips: Sequence[Clip], reading: Reading) -> list[Picture]:
    """Every frame of every clip, in order; of a clip that cannot be read, its first, which will be missed."""
    pictures: list[Picture] = []
    for clip in clips:
        try:
            count = count_frames(clip, reading)
        except MediaError:
            count = 1
        pictures += [FramePicture(ClipPicture(clip, reading), index) for index in range(count)]
    return pictures


def fewest_frames(clips: Sequence[Clip], reading: Reading) -> int | None:
    """Of the shortest clip that can be read; None if none can."""
    counts = []
    for clip in clips:
        try:
            counts.append(count_frames(clip, reading))
        except MediaError:
            continue
    return min(counts, default=None)


def clips_digest(clips: Sequence[Clip]) -> str:
    """Short hash of names, prompts and seeds: part of the name of the folder of their rows."""
    key = repr([(c.name, c.prompt_id, c.sample, c.seed, c.text) for c in clips])
    return sha256(key)[:8]
