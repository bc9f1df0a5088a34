"""Clips for tests: a counter that any codec keeps, written by PyAV at any rate, in any container."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODECS = {
    ".mp4": ("libx264", "yuv420p"),
    ".webm": ("libvpx-vp9", "yuv420p"),
    ".mov": ("mjpeg", "yuvj420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".gif": ("gif", "bgr8"),
}
LEVELS = 6  # of grey for a digit of the counter, 40 apart


def counter(index: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3) uint8: `index` as two digits of base 6, left and right, each a level of grey."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = index // LEVELS * 40 + 20
    pixels[:, width // 2 :] = index % LEVELS * 40 + 20
    return pixels


def read_counter(pixels: np.ndarray) -> int:
    """The index that a frame shows, whatever size it has now."""
    width = pixels.shape[1]
    left, right = (
        pixels[:, part].mean() for part in (slice(4, width // 2 - 4), slice(width // 2 + 4, width - 4))
    )
    return round((left - 20) / 40) * LEVELS + round((right - 20) / 40)


def write_clip_of(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    fps: float = 24,
    times: Sequence[float] | None = None,
    codec: str | None = None,
    pix_fmt: str | None = None,
    rotation: int | None = None,
    aspect: Fraction | None = None,
    gop: int = 12,
) -> Path:
    """times: seconds at which the frames are shown, for a variable rate; else one every 1/fps."""
    name, pixels = CODECS[path.suffix]
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec or name, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt or pixels
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if times is None:
                picture.pts, picture.time_base = index, 1 / rate
            else:
                picture.pts, picture.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_tone(path: Path, *, seconds: float = 1.0) -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        for index in range(int(seconds * 8000 / 1024)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, index * 1024, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
