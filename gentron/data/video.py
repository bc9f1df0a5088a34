"""Frames of clips, at a given rate, out of any container by timestamp; writing them: clip_writer.py."""

# F frames, H W sides of a frame in pixels, S side of a square crop

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from PIL import Image

from gentron.data.clip_writer import CLIP_RECORD
from gentron.errors import MediaError, UserError

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".m4v", ".mkv", ".avi", ".gif", ".webp")
FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

TIME_TOLERANCE = 1e-3
"""Seconds; containers round the times of frames, Matroska and WebM to whole milliseconds."""
MAX_FRAME_PIXELS = 8192 * 8192
"""A frame above this is a mistake or a decompression bomb."""


# ---- what a file holds -------------------------------------------------------------------------------------


class Timeline(NamedTuple):
    """When the frames of a clip are shown: `times` in seconds from the first frame on, and the clip's end."""

    times: tuple[float, ...]
    end: float

    def window(self, num_frames: int, fps: float) -> float:
        """Seconds by which a window may start late; negative where the clip is too short for it.

        The last frame asked for must lie before the end of the clip.
        """
        return self.end - (num_frames - 1) / fps


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """What a clip is before a frame of it is decoded. Sides are those shown, after rotation."""

    width: int
    height: int
    num_frames: int
    seconds: float
    codec: str

    @property
    def fps(self) -> float:
        """The mean rate; a file of variable rate has no other."""
        return self.num_frames / self.seconds


def _timeline(stamps: Sequence[int], durations: Sequence[int], time_base: Fraction) -> Timeline:
    """From the time stamps of all frames in any order; a last frame without a duration lasts the mean gap."""
    order = np.argsort(np.asarray(stamps, np.int64), kind="stable")
    sorted_stamps = [stamps[i] for i in order]
    origin, last = sorted_stamps[0], sorted_stamps[-1]
    duration = durations[order[-1]] or ((last - origin) // max(len(stamps) - 1, 1))
    unit = float(time_base)
    return Timeline(tuple((s - origin) * unit for s in sorted_stamps), (last - origin + duration) * unit)


# ---- reading through libav ---------------------------------------------------------------------------------


@contextmanager
def _opened(source: Path | bytes) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, decoded on one thread; always closed again."""
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
        pictures = [s for s in container.streams.video if not _is_cover(s)]
        if not pictures:
            raise MediaError("no video stream")
        stream = pictures[0]
        context = stream.codec_context
        if context.width * context.height > MAX_FRAME_PIXELS:
            raise MediaError(f"frames of {context.width} x {context.height} pixels")
        context.thread_count = 1  # clips are decoded side by side, each on one thread
        yield container, stream


def _is_cover(stream: Any) -> bool:
    """The cover picture of a song is a video stream to libav."""
    return bool(stream.disposition & Disposition.attached_pic)


class _Packets(NamedTuple):
    timeline: Timeline
    origin: int
    """Time stamp of the first frame shown, in units of the stream's time base."""
    time_base: Fraction


def _scan(container: Any, stream: Any) -> _Packets:
    """The timeline from the packets alone, nothing decoded; a file cut short is an error."""
    stamps, durations, num_read = [], [], 0
    for packet in container.demux(stream):
        if not packet.size:  # the flush at the end
            continue
        num_read += 1
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None and not packet.is_discard:  # discarded: before an edit list's cut
            stamps.append(stamp)
            durations.append(packet.duration or 0)
    if num_read < stream.frames:
        raise MediaError(f"cut short: {num_read} of {stream.frames} frames")
    if not stamps:
        raise MediaError("no frame")
    return _Packets(_timeline(stamps, durations, stream.time_base), min(stamps), stream.time_base)


def _decoded(source: Path | bytes, packets: _Packets, times: Sequence[float]) -> Iterator[np.ndarray]:
    """The frame shown at each of the rising times, (H, W, 3) uint8; decoded from the key frame before on."""
    for begin in (times[0], 0.0):
        with _opened(source) as (container, stream):
            frames = _from_keyframe(container, stream, packets, begin)
            shown = following = next(frames, None)
            if shown is None or _seconds(shown, packets) > times[0] + TIME_TOLERANCE:
                continue  # a format that cannot seek, or seeks too far: once more from its first frame
            pixels: np.ndarray | None = None
            for time in times:
                while following is not None and _seconds(following, packets) <= time + TIME_TOLERANCE:
                    shown, pixels, following = following, None, next(frames, None)
                pixels = _pixels(shown, stream) if pixels is None else pixels
                yield pixels
            return
    raise MediaError("no frame could be decoded")


def _from_keyframe(container: Any, stream: Any, packets: _Packets, time: float) -> Iterator[Any]:
    if time > 0:
        stamp = packets.origin + int(time / packets.time_base)
        try:
            container.seek(stamp, stream=stream, backward=True)
        except FFmpegError:
            return
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise MediaError("a damaged frame")
        yield frame


def _seconds(frame: Any, packets: _Packets) -> float:
    stamp = frame.dts if frame.pts is None else frame.pts
    if stamp is None:
        raise MediaError("a frame without a time")
    return float((stamp - packets.origin) * packets.time_base)


def _pixels(frame: Any, stream: Any) -> np.ndarray:
    """(H, W, 3) uint8 as shown: transparency on white, square pixels, turned as the display matrix says."""
    if any(component.is_alpha for component in frame.format.components):
        pixels = on_white(frame.to_ndarray(format="rgba"))
    else:
        pixels = frame.to_ndarray(format="rgb24")
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        size = (max(1, round(pixels.shape[1] * float(aspect))), pixels.shape[0])
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    return pixels if matrix is None else turned(pixels, bytes(matrix))


def on_white(rgba: np.ndarray) -> np.ndarray:
    """(..., 4) uint8 -> (..., 3) uint8, composed on white."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def turned(pixels: np.ndarray, display_matrix: bytes) -> np.ndarray:
    """(H, W, 3) under a display matrix: nine int32, (x, y) -> (a x + c y, b x + d y); quarter turns, mirrors.

    Source: ISO/IEC 14496-12, 8.3.2 (tkhd), in libav's byte order. Other angles do not occur and stay as is.
    """
    a, b, _, c, d = np.frombuffer(display_matrix, np.int32, 5).tolist()
    if a == d == 0 and b and c:
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    if right < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


# ---- reading through Pillow: animated WebP, folders of frames ----------------------------------------------


def _is_webp(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        head = source[:12]
    else:
        with open(source, "rb") as file:
            head = file.read(12)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _webp_timeline(source: Path | bytes) -> Timeline:
    stamps, total = [], 0
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()  # Pillow knows a frame's duration once it is decoded
            stamps.append(total)
            total += int(image.info.get("duration") or 100)  # what browsers make of 0
    return Timeline(tuple(stamp / 1000 for stamp in stamps), total / 1000)


def _webp_frames(source: Path | bytes, indices: Iterable[int]) -> Iterator[np.ndarray]:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        for index in indices:
            image.seek(index)
            yield on_white(np.asarray(image.convert("RGBA")))


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder in their order: numbers in names count as numbers, hidden files do not."""
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in FRAME_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(files, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts frame10 after frame9."""
    parts, number = [], ""
    for letter in name:
        if letter in "0123456789":
            number += letter
            continue
        if number:
            parts.append((int(number), ""))
            number = ""
        parts.append((-1, letter))
    return [*parts, (int(number), "")] if number else parts


def _folder_fps(folder: Path, fps: float) -> float:
    record = folder / CLIP_RECORD
    if not record.is_file():
        return fps
    try:
        stated = float(json.loads(record.read_text("utf-8"))["fps"])
    except (ValueError, KeyError, TypeError) as error:
        raise MediaError(f'{CLIP_RECORD} must be {{"fps": NUMBER}}, got {error!r}') from None
    if not (math.isfinite(stated) and stated > 0):
        raise MediaError(f"{CLIP_RECORD}: fps must be above 0, got {stated}")
    return stated


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return on_white(np.asarray(image.convert("RGBA")))


# ---- one reader for all ------------------------------------------------------------------------------------


class ClipReader(NamedTuple):
    """A clip that was looked through but not decoded; nothing of it is open."""

    timeline: Timeline
    codec: str
    frames: Callable[[Sequence[float]], Iterator[np.ndarray]]
    """Rising times in seconds -> the frame shown at each, (H, W, 3) uint8, one at a time."""


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever a decoder finds wrong with a file as one MediaError with the file's name."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"cannot read clip {name}: {error}") from None
    except FFmpegError as error:
        raise MediaError(f"cannot read clip {name}: {error.strerror or error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"cannot read clip {name}: {error}") from None


def open_clip(source: Path | bytes, *, fps: float = 4.0, name: str | None = None) -> ClipReader:
    """Look through a file, a file's bytes or a folder of frames.

    fps: of a folder of frames that states none.   name: what errors call it.   Raises MediaError, now or when
    frames are read.
    """
    name = name or (f"of {len(source)} bytes" if isinstance(source, bytes) else str(source))
    with _named(name):
        if isinstance(source, Path) and source.is_dir():
            reader = _folder_reader(source, fps)
        elif _is_webp(source):
            reader = _webp_reader(source)
        else:
            reader = _container_reader(source)

    def frames(times: Sequence[float]) -> Iterator[np.ndarray]:
        with _named(name):
            yield from reader.frames(times)

    return reader._replace(frames=frames)


def _container_reader(source: Path | bytes) -> ClipReader:
    with _opened(source) as (container, stream):
        packets = _scan(container, stream)
        codec = stream.codec_context.name
    return ClipReader(packets.timeline, codec, lambda times: _decoded(source, packets, times))


def _webp_reader(source: Path | bytes) -> ClipReader:
    timeline = _webp_timeline(source)
    return ClipReader(timeline, "webp", lambda times: _webp_frames(source, _shown(timeline, times)))


def _folder_reader(folder: Path, fps: float) -> ClipReader:
    files, rate = frame_files(folder), _folder_fps(folder, fps)
    if not files:
        raise MediaError("no frame")
    timeline = Timeline(tuple(k / rate for k in range(len(files))), len(files) / rate)
    return ClipReader(
        timeline, "frames", lambda times: (_picture(files[index]) for index in _shown(timeline, times))
    )


def read_facts(source: Path | bytes, *, fps: float = 4.0, name: str | None = None) -> ClipFacts:
    """Sides, number of frames and length of a clip; fps is that of a folder of frames that states none."""
    reader = open_clip(source, fps=fps, name=name)
    height, width = next(reader.frames([0.0])).shape[:2]
    times, end = reader.timeline
    return ClipFacts(width=width, height=height, num_frames=len(times), seconds=end, codec=reader.codec)


def read_frames(
    source: Path | bytes,
    *,
    num_frames: int = 8,
    fps: float = 4.0,
    start: float = 0.0,
    rng: np.random.Generator | None = None,
    image_size: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """(F, H, W, 3) uint8: the frames shown at start, start + 1/fps, ..., whatever rate the file has.

    source: a file, a folder of frames, or a file's bytes.   start: seconds after the first frame.
    rng: draws the start of the window instead, uniformly where all frames lie within the clip.
    image_size: short side and centre crop, (F, S, S, 3); None keeps the size.   name: what errors call it.
    Raises MediaError for a file that is damaged, cut short, without pictures, or shorter than asked.
    """
    _check_window(num_frames, fps, start)
    name = name or (f"of {len(source)} bytes" if isinstance(source, bytes) else str(source))
    reader = open_clip(source, fps=fps, name=name)
    with _named(name):
        times = _times(reader.timeline, num_frames, fps, start, rng)
    frames = reader.frames(times)
    if image_size is not None:
        frames = (centre_crop(frame, image_size) for frame in frames)
    stacked = list(frames)
    if len({frame.shape for frame in stacked}) > 1:
        raise MediaError(f"cannot read clip {name}: frames of several sizes")
    return np.stack(stacked)


def _check_window(num_frames: int, fps: float, start: float) -> None:
    if num_frames < 1:
        raise UserError(f"num_frames must be >= 1, got {num_frames}")
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"fps must be above 0, got {fps}")
    if not (math.isfinite(start) and start >= 0):
        raise UserError(f"start must be >= 0 seconds, got {start}")


def _times(
    timeline: Timeline, num_frames: int, fps: float, start: float, rng: np.random.Generator | None
) -> list[float]:
    latest = timeline.window(num_frames, fps)
    if rng is not None:
        start = float(rng.random()) * max(latest, 0.0)
    if not timeline.times or latest - start < TIME_TOLERANCE:
        raise MediaError(
            f"shorter than asked: {num_frames} frames at {fps:g} fps from {start:g} s on, "
            f"got {timeline.end:.3g} s with {len(timeline.times)} frames"
        )
    return [start + k / fps for k in range(num_frames)]


def _shown(timeline: Timeline, times: Sequence[float]) -> list[int]:
    """The number of the frame that is shown at each time."""
    stamps = np.asarray(timeline.times) - TIME_TOLERANCE
    return [max(0, int(np.searchsorted(stamps, time, side="right")) - 1) for time in times]


def centre_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (S, S, 3): the short side resized to S, the middle kept."""
    image = Image.fromarray(pixels)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return np.array(image.crop((left, top, left + size, top + size)))
