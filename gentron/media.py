"""What a system draws: a sample of frames, an image being one frame."""

# F frames, H W sides of a frame in pixels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """frames: RGB pictures of one size.   fps: frames a second of a clip; None for a picture."""

    frames: tuple[Image.Image, ...]
    fps: float | None = None

    def __post_init__(self) -> None:
        assert self.frames, "a sample has at least one frame"
        assert (len(self.frames) > 1) == (self.fps is not None), (
            f"{len(self.frames)} frames at {self.fps} fps"
        )

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def image(self) -> Image.Image:
        """The only frame of a picture."""
        assert self.num_frames == 1, f"a clip of {self.num_frames} frames is not one picture"
        return self.frames[0]

    def numpy(self) -> np.ndarray:
        """(F, H, W, 3) uint8."""
        return np.stack([np.asarray(frame) for frame in self.frames])
