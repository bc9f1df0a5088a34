"""Clips made elsewhere: a folder of video files or of folders of frames, with their prompts where known.

manifest.jsonl, if there is one: an object a line with "file" (relative to the folder; a video or a folder of
frames), "prompt" (the text) and, if given, "prompt_id", "sample" and "seed". Without it every video file and
every folder of pictures is a clip, and its prompt the first line of the .txt of its name beside it, if any. A
folder that holds pictures and no clips is one clip. Clips of the same text are samples of one prompt.
"""

# F frames of a clip, H W size of a frame

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.systems import safe_name
from gentron.errors import MediaError, UserError

MANIFEST = "manifest.jsonl"
KEPT_IN_MEMORY = 8  # clips: what reads frames one by one asks for the same one again and again


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Which frames of a clip are measured: all of them, unless a rate or a number is given.

    fps: of the frames taken; None is the file's own mean rate.   num_frames: the first so many.
    """

    fps: float | None = None
    num_frames: int | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be above 0, got {self.fps}")
        if self.num_frames is not None and self.num_frames < 2:
            raise ValueError(f"num_frames must be >= 2, got {self.num_frames}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip that exists.   name: for messages.   seed: -1 if not known.   text: its prompt, if any."""

    name: str
    path: Path
    prompt_id: str
    sample: int = 0
    seed: int = -1
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Frames:
    """pixels: (F, H, W, 3) uint8, not to be written to.   digest: sha256 of their sizes and values."""

    pixels: np.ndarray
    digest: str


# ---- reading ---------------------------------------------------------------------------------------------


def pixels_digest(pixels: np.ndarray) -> str:
    """sha256 of an array's shape and bytes: the same frames have it whatever file they came in."""
    head = json.dumps([*pixels.shape, str(pixels.dtype)]).encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def count_frames(clip: Clip, reading: Reading) -> int:
    """How many frames `read_clip` gives; MediaError for a file that cannot be read."""
    return _window(clip.path, reading)[0]


@lru_cache(maxsize=KEPT_IN_MEMORY)
def read_clip(path: Path, reading: Reading) -> Frames:
    """The frames that are measured; MediaError for a file that cannot be read."""
    from gentron.data.video import read_frames

    num_frames, fps = _window(path, reading)
    pixels = read_frames(path, num_frames=num_frames, fps=fps)
    pixels.flags.writeable = False
    return Frames(pixels, pixels_digest(pixels))


def _window(path: Path, reading: Reading) -> tuple[int, float]:
    from gentron.data.video import read_facts

    if not path.exists():
        raise MediaError(f"cannot read clip {path}: missing")
    facts = read_facts(path)
    fps = facts.fps if reading.fps is None else reading.fps
    there = facts.num_frames if reading.fps is None else max(int(facts.seconds * fps + 1e-6), 1)
    return there if reading.num_frames is None else min(there, reading.num_frames), fps


# ---- finding ---------------------------------------------------------------------------------------------


def find_clips(folder: Path) -> list[Clip]:
    """All clips of a folder, by name or in the manifest's order; UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"no folder '{folder}': give one with clips")
    if (folder / MANIFEST).is_file():
        return _from_manifest(folder)
    paths = _clip_paths(folder)
    if not paths:
        raise UserError(
            f"no clips in '{folder}': expected video files, folders of frames, or pictures, the frames of"
            f" one clip; or a {MANIFEST}"
        )
    entries = []
    for path in paths:
        name = path.relative_to(folder).as_posix() if path != folder else path.resolve().name
        entries.append((name, path, _text_beside(path), None, None, -1))
    return _numbered(entries)


def _clip_paths(folder: Path) -> list[Path]:
    from gentron.data.video import VIDEO_SUFFIXES, frame_files

    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += [path] if frame_files(path) else []
        elif path.suffix.lower() in VIDEO_SUFFIXES and path.suffix.lower() != ".webp":
            found.append(path)
        elif path.suffix.lower() == ".webp" and _is_animated(path):
            found.append(path)
    if not found and len(frame_files(folder)) > 1:
        return [folder]
    return found


def _is_animated(path: Path) -> bool:
    """A .webp is a picture or a clip."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, UnidentifiedImageError):
        return False


def _text_beside(path: Path) -> str | None:
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        return None
    try:
        lines = beside.read_text(encoding="utf-8-sig").strip().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{beside} is not UTF-8 text: {error.reason}") from error
    return lines[0].strip() if lines else None


Entry = tuple[str, Path, str | None, str | None, int | None, int]  # name, path, text, prompt id, sample, seed


def _numbered(entries: list[Entry]) -> list[Clip]:
    """Prompt ids from texts where none is given, and from names where there is no text; samples in order."""
    counts: Counter[str] = Counter()
    clips = []
    for name, path, text, given, sample, seed in entries:
        prompt_id = given or (safe_name(name) if text is None else _id_of(text))
        number = counts[prompt_id] if sample is None else sample
        counts[prompt_id] += 1
        clips.append(Clip(name=name, path=path, prompt_id=prompt_id, sample=number, seed=seed, text=text))
    keys = Counter((clip.prompt_id, clip.sample) for clip in clips)
    twice = next((key for key, count in keys.items() if count > 1), None)
    if twice:
        raise UserError(f"two clips are sample {twice[1]} of '{twice[0]}': expected one")
    return clips


def _id_of(text: str) -> str:
    return f"{safe_name(text)[:40].strip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _from_manifest(folder: Path) -> list[Clip]:
    path = folder / MANIFEST
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line, f"{path}, line {number}")
            entries.append(
                (
                    row["file"],
                    folder / row["file"],
                    row.get("prompt"),
                    row.get("prompt_id"),
                    row.get("sample"),
                    row.get("seed", -1),
                )
            )
    if not entries:
        raise UserError(f"{path} names no clips")
    return _numbered(entries)


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or "\0" in row["file"]:
        raise UserError(f'{where} must be an object with "file" and, if known, "prompt"')
    for name, kind in (("prompt", str), ("prompt_id", str), ("sample", int), ("seed", int)):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise UserError(f"{where}: {name} must be {kind.__name__}, got {value!r}")
    if row.get("prompt_id") is not None and safe_name(row["prompt_id"]) != row["prompt_id"]:
        raise UserError(f"{where}: prompt_id must be letters, digits, - _ and ., got {row['prompt_id']!r}")
    return {name: value for name, value in row.items() if value is not None}
