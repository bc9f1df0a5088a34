"""Frames into files for people, by the name of the file; what a clip is written as, video.py reads."""

# F frames, H W sides of a frame in pixels

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from gentron.atomic import atomic_file, atomic_folder
from gentron.errors import UserError

CLIP_RECORD = "clip.json"
"""In a folder of frames: {"fps": ...}. Where it is missing, the frames are taken to be at the rate asked."""
X264 = {"crf": "16", "preset": "medium", "x264-params": "mbtree=0"}
"""mbtree off: on frames of 32 px it made other bytes in 1 of 100 encodings of the same frames.

Visually lossless is usually said of 18; shapes of few colours show more than films do.
"""
SHEET_LINE = 2  # pixels between the frames of a contact sheet
SHEET_COLOUR = (128, 128, 128)


def write_clip(path: Path, frames: np.ndarray | Sequence[Image.Image], fps: float) -> None:
    """Frames to a file, or to a folder, by its name; whole or not at all.

    frames: (F, H, W, 3) uint8, or pictures of one size.   .mp4: H.264, 4:2:0, as browsers play it.   .webm:
    VP9.   .gif, .webp (lossless).   .png: a contact sheet.   no suffix: a folder of numbered PNG frames with
    the rate in clip.json. Lossless are .webp, .png and the folder.   mp4 and webm need even sides: an odd
    last column or row is drawn twice.
    """
    write = CLIP_WRITERS.get(path.suffix.lower())
    if write is None:
        known = ", ".join(suffix or "no suffix (a folder)" for suffix in CLIP_WRITERS)
        raise UserError(f"unknown kind of clip {path.suffix!r} in {path}; known: {known}")
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"fps must be above 0, got {fps}")
    if isinstance(frames, np.ndarray):
        stacked = frames
    else:
        stacked = np.stack([np.asarray(frame.convert("RGB")) for frame in frames])
    if stacked.ndim != 4 or stacked.shape[-1] != 3 or stacked.dtype != np.uint8 or not len(stacked):
        raise ValueError(f"frames must be (F, H, W, 3) uint8, got {stacked.shape} {stacked.dtype}")
    write(path, stacked, fps)


def _even(pixels: np.ndarray) -> np.ndarray:
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def encode(
    path: Path, frames: Iterable[np.ndarray], fps: float, *, form: str, codec: str, options: dict[str, str]
) -> int:
    """Encode frames (H, W, 3) uint8 as they come, and count them; no file remains of none.

    4:2:0 in BT.709 and saying so: what is not tagged is shown in other colours by other players.
    """
    rate = Fraction(fps).limit_denominator(10_000)
    container_options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if form == "mp4" else {})
    with (
        atomic_file(path) as temporary,
        av.open(str(temporary), "w", format=form, options=container_options) as container,
    ):
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1  # the same bytes on any machine
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709.value
        context.color_range = ColorRange.MPEG.value
        index = 0
        for index, pixels in enumerate(map(_even, frames), 1):
            if index == 1:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = index - 1, 1 / rate
            container.mux(stream.encode(frame))
        if not index:
            raise ValueError(f"no frames for {path}")
        container.mux(stream.encode(None))
    return index


def _write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    encode(path, frames, fps, form="mp4", codec="libx264", options=X264)


def _write_webm(path: Path, frames: np.ndarray, fps: float) -> None:
    options = {"crf": "20", "b": "0", "cpu-used": "2", "row-mt": "0"}
    encode(path, frames, fps, form="webm", codec="libvpx-vp9", options=options)


def _write_animation(path: Path, frames: np.ndarray, fps: float) -> None:
    """GIF counts hundredths of a second, WebP thousandths: a frame's end is rounded, not its length."""
    form, unit = ("GIF", 10) if path.suffix.lower() == ".gif" else ("WEBP", 1)
    ends = [round(k * 1000 / fps / unit) * unit for k in range(len(frames) + 1)]
    durations = [max(unit, end - begin) for begin, end in pairwise(ends)]
    first, *others = (Image.fromarray(pixels) for pixels in frames)
    more = {"lossless": True} if form == "WEBP" else {"disposal": 2}
    with atomic_file(path) as temporary:
        first.save(
            temporary, format=form, save_all=True, append_images=others, duration=durations, loop=0, **more
        )


def _write_sheet(path: Path, frames: np.ndarray, fps: float) -> None:
    with atomic_file(path) as temporary:
        contact_sheet([Image.fromarray(pixels) for pixels in frames]).save(temporary, format="PNG")


def check_frame_folder(path: Path) -> None:
    """UserError for a folder of other files, which frames would take the place of."""
    if path.is_dir() and not (path / CLIP_RECORD).is_file() and any(path.iterdir()):
        raise UserError(f"'{path}' holds other files; choose another folder for the frames")


def _write_frames(path: Path, frames: np.ndarray, fps: float) -> None:
    check_frame_folder(path)
    with atomic_folder(path) as temporary:
        for index, pixels in enumerate(frames):
            Image.fromarray(pixels).save(temporary / f"{index:06d}.png")
        (temporary / CLIP_RECORD).write_text(json.dumps({"fps": fps}) + "\n", encoding="utf-8")


def contact_sheet(images: Sequence[Image.Image], *, columns: int | None = None) -> Image.Image:
    """Pictures in reading order, grey lines between them; one row up to 8, then about a square.

    Cells have the size of the largest; smaller pictures stand in the middle of theirs.
    """
    columns = columns or (len(images) if len(images) <= 8 else math.ceil(math.sqrt(len(images))))
    width, height = (max(image.size[side] for image in images) for side in (0, 1))
    rows = math.ceil(len(images) / columns)
    size = (columns * (width + SHEET_LINE) - SHEET_LINE, rows * (height + SHEET_LINE) - SHEET_LINE)
    sheet = Image.new("RGB", size, SHEET_COLOUR)
    for k, image in enumerate(images):
        left = k % columns * (width + SHEET_LINE) + (width - image.width) // 2
        top = k // columns * (height + SHEET_LINE) + (height - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


CLIP_WRITERS = {
    ".mp4": _write_mp4,
    ".webm": _write_webm,
    ".gif": _write_animation,
    ".webp": _write_animation,
    ".png": _write_sheet,
    "": _write_frames,
}
