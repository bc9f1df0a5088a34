"""What a system draws: a sample of frames. A picture is one frame, a clip several with a rate."""

# F frames, H W sides of a frame in pixels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """frames: RGB, of one size.   fps: frames a second; None for a picture, which has one frame."""

    frames: tuple[Image.Image, ...]
    fps: float | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError("a sample must have at least one frame")
        if self.fps is None and len(self.frames) != 1:
            raise ValueError(f"a picture has one frame, got {len(self.frames)}: a clip must have its fps")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be above 0, got {self.fps}")
        if len({frame.size for frame in self.frames}) > 1:
            raise ValueError("the frames of a clip must be of one size")

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def image(self) -> Image.Image:
        """The only frame of a picture; ValueError for a clip."""
        if self.fps is not None:
            raise ValueError(f"a clip of {self.num_frames} frames is no picture: take one of its frames")
        return self.frames[0]

    def numpy(self) -> np.ndarray:
        """(F, H, W, 3) uint8."""
        return np.stack([np.asarray(frame) for frame in self.frames])
