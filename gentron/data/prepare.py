"""`gentron data clips`: films to training clips as the paper prepared its set, with measures of each clip.

Short side 512, 24 frames a second, long files cut at scene changes (the paper's section 4.1). One record a
source, written after its clips, makes the work resumable; thresholds are applied at the end and may change.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gentron.atomic import atomic_file
from gentron.data import clip_writer
from gentron.data.clip_writer import encode
from gentron.data.listing import Item
from gentron.data.quality import SAMPLES_PER_SECOND, Quality, Thresholds, luma, measure
from gentron.data.video import ClipReader, open_clip
from gentron.errors import MediaError, UserError
from gentron.textfiles import read_json

SETTINGS = ".clips.json"
RECORDS = ".sources"
DROPPED = ".dropped"
"""Hidden, so that what lies there is no sample of the set."""
CLIPS = "clips"
LISTING = "captions.jsonl"
QUALITY = "quality.jsonl"
X264 = {**clip_writer.X264, "crf": "18"}
DETECT_SIDE = 128
"""Short side of the frames that are looked at for scene changes; PySceneDetect shrinks to about as much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSettings:
    """What decides the bytes of the clips; a folder is continued with the same settings alone."""

    short_side: int = 512
    fps: float = 24.0
    cut: bool = True
    """At scene changes; needs PySceneDetect."""
    scene_threshold: float = 27.0
    """Of its ContentDetector; its own default."""
    min_seconds: float = 2.0
    """8 frames at 4 a second; what is shorter is no clip."""
    max_seconds: float = 60.0
    """Longer scenes are cut into equal parts."""

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise UserError(f"short_side must be an even number of pixels >= 16, got {self.short_side}")
        for name in ("fps", "scene_threshold", "min_seconds", "max_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} must be above 0, got {value}")
        if self.max_seconds < 2 * self.min_seconds:
            raise UserError(
                f"max_seconds must be at least twice min_seconds, "
                f"got {self.max_seconds:g} and {self.min_seconds:g}"
            )


class Piece(NamedTuple):
    """A stretch of a source in frames at the settings' rate."""

    start: int
    stop: int


class Outcome(NamedTuple):
    """Of a whole run: clips kept and dropped, with what was read."""

    num_kept: int
    num_dropped: int
    reasons: dict[str, int]
    """Measure or fault -> clips or sources lost by it."""
    unreadable: list[str]


# ---- cutting -----------------------------------------------------------------------------------------------


def scene_detector(threshold: float) -> Any:
    """PySceneDetect's ContentDetector; it comes with the extra `video`."""
    try:
        from scenedetect import ContentDetector
    except ImportError:
        raise UserError(
            "cutting at scene changes needs PySceneDetect: pip install 'gentron[video]', or use --no-cut"
        ) from None
    return ContentDetector(threshold=threshold)


def scene_cuts(frames: Iterator[np.ndarray], fps: float, threshold: float) -> list[int]:
    """The numbers of the frames at which scenes begin, but for the first.   frames: (H, W, 3) uint8, RGB."""
    from scenedetect import FrameTimecode

    detector, cuts, last = scene_detector(threshold), [], None
    rate = Fraction(fps).limit_denominator(10_000)
    for number, pixels in enumerate(frames):
        last = FrameTimecode(number, fps=rate)
        cuts += detector.process_frame(last, np.ascontiguousarray(pixels[:, :, ::-1]))  # it works in BGR
    if last is not None:
        cuts += detector.post_process(last)
    return sorted({int(cut.frame_num) for cut in cuts} - {0})


def pieces(num_frames: int, cuts: Sequence[int], settings: ClipSettings) -> list[Piece]:
    """Scenes between cuts, the long ones in equal parts; what is too short is left out."""
    longest, shortest = (round(s * settings.fps) for s in (settings.max_seconds, settings.min_seconds))
    found = []
    borders = [0, *cuts, num_frames]
    for begin, end in zip(borders, borders[1:], strict=False):
        parts = max(1, math.ceil((end - begin) / longest))
        edges = [begin + (end - begin) * part // parts for part in range(parts + 1)]
        found += [Piece(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]
    return [piece for piece in found if piece.stop - piece.start >= shortest]


# ---- one source --------------------------------------------------------------------------------------------


def shrunk(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """(H, W, 3) uint8 with its short side at short_side and the other even, larger or smaller than before."""
    image = Image.fromarray(pixels)
    scale = short_side / min(image.size)
    width, height = (
        short_side if side == min(image.size) else round(side * scale / 2) * 2 for side in image.size
    )
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _cuts_of(reader: ClipReader, times: Sequence[float], settings: ClipSettings) -> list[int]:
    small = (
        np.asarray(Image.fromarray(pixels).resize(_small(pixels.shape), Image.Resampling.BOX))
        for pixels in reader.frames(times)
    )
    return scene_cuts(small, settings.fps, settings.scene_threshold)


def _small(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, DETECT_SIDE / min(shape[:2]))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def prepare_source(item: Item, folder: Path, settings: ClipSettings) -> list[dict[str, Any]]:
    """Write the clips of one source into folder/clips, and give a row for each.

    All of a source or nothing: clips of one that breaks in the middle (MediaError) are removed again.
    """
    content = item.read()
    reader = open_clip(content, fps=settings.fps, name=item.name)
    num_frames = math.floor(reader.timeline.end * settings.fps + 1e-3)
    times = [k / settings.fps for k in range(num_frames)]
    cuts = _cuts_of(reader, times, settings) if settings.cut else []
    rows, written = [], []
    try:
        for number, piece in enumerate(pieces(num_frames, cuts, settings)):
            path = folder / CLIPS / f"{key_of(item.name)}-{number:03d}.mp4"
            quality = _write_piece(reader, times[piece.start : piece.stop], path, settings)
            written.append(path)
            start, stop = piece.start / settings.fps, piece.stop / settings.fps
            rows.append(
                {
                    "file": f"{CLIPS}/{path.name}",
                    "caption": list(item.captions),
                    "source": item.name,
                    "start": round(start, 3),
                    "seconds": round(stop - start, 3),
                    **{name: round(value, 4) for name, value in asdict(quality).items()},
                }
            )
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return rows


def _write_piece(reader: ClipReader, times: Sequence[float], path: Path, settings: ClipSettings) -> Quality:
    """Encode the frames at these times, and measure every few of them on the way."""
    step = max(1, round(settings.fps / SAMPLES_PER_SECOND))
    lumas: list[np.ndarray] = []

    def passing() -> Iterator[np.ndarray]:
        for number, pixels in enumerate(reader.frames(times)):
            frame = shrunk(pixels, settings.short_side)
            if number % step == 0:
                lumas.append(luma(frame).astype(np.uint8))  # 60 s are 240 frames of 0.1 MB
            yield frame

    encode(path, passing(), settings.fps, form="mp4", codec="libx264", options=X264)
    return measure(frame.astype(np.float32) for frame in lumas)


def key_of(name: str) -> str:
    """A file name for a source: readable, and never the same for two sources."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", os.path.splitext(name)[0])[-60:].strip("_")
    return f"{plain}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


# ---- the whole set -----------------------------------------------------------------------------------------


def prepare(
    items: Sequence[Item],
    folder: Path,
    *,
    settings: ClipSettings,
    thresholds: Thresholds,
    num_threads: int = 1,
    callback: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Make, or continue, a set in `folder`: clips/, captions.jsonl of those kept, quality.jsonl of all.

    Sources done in an earlier call are not read again; those that could not be read are tried again.
    """
    if settings.cut:
        scene_detector(settings.scene_threshold)  # before an hour of work
    _claim(folder, settings)
    errors: dict[str, str] = {}

    def one(item: Item) -> None:
        record = folder / RECORDS / f"{key_of(item.name)}.json"
        if record.is_file():
            return
        try:
            rows = prepare_source(item, folder, settings)
        except (MediaError, OSError) as error:
            if isinstance(error, OSError) and error.filename and str(folder) in str(error.filename):
                raise  # the disk that is written to is no fault of the source
            errors[item.name] = " ".join(str(error).split())
            return
        _write_json(record, rows)

    with ThreadPoolExecutor(num_threads, thread_name_prefix="clips") as pool:
        for done, _ in enumerate(pool.map(one, items), 1):
            callback(done)
    return _conclude(items, folder, thresholds, errors)


def _claim(folder: Path, settings: ClipSettings) -> None:
    path = folder / SETTINGS
    wanted = asdict(settings)
    if not path.is_file():
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(f"'{folder}' holds other files; choose another folder")
        _write_json(path, wanted)
        return
    found = read_json(path)
    if found != wanted:
        names = [name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]]
        raise UserError(
            f"'{folder}' holds clips of other settings ({', '.join(names)}); choose another folder"
        )


def _conclude(items: Sequence[Item], folder: Path, thresholds: Thresholds, errors: dict[str, str]) -> Outcome:
    """Sort the clips by the thresholds, and write both listings."""
    kept: list[dict[str, Any]] = []
    all_rows: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for item in items:
        if item.name in errors:
            reasons["cannot be read"] += 1
            all_rows.append({"source": item.name, "error": errors[item.name]})
            continue
        rows = read_json(folder / RECORDS / f"{key_of(item.name)}.json")
        if not rows:
            reasons["too short"] += 1
            all_rows.append({"source": item.name, "error": "no piece is long enough"})
        for row in rows:
            reason = thresholds.reason(Quality(**{name: row[name] for name in Quality.__slots__}))
            _place(folder, row["file"], dropped=reason is not None)
            all_rows.append({**row, "dropped": reason})
            if reason is None:
                kept.append(row)
            else:
                reasons[reason.split(" ")[0]] += 1
    _write_jsonl(folder / QUALITY, all_rows)
    _write_jsonl(folder / LISTING, kept)
    num_clips = sum("file" in row for row in all_rows)
    return Outcome(len(kept), num_clips - len(kept), dict(reasons), list(errors.values()))


def _place(folder: Path, file: str, *, dropped: bool) -> None:
    """A dropped clip waits in a hidden folder, from which other thresholds may bring it back."""
    here, there = folder / file, folder / DROPPED / Path(file).name
    source, target = (here, there) if dropped else (there, here)
    if source.is_file():
        target.parent.mkdir(exist_ok=True)
        os.replace(source, target)


def _write_json(path: Path, value: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
