"""manifest.jsonl and the files it names: what was made of each request, without loss, a PNG a frame."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.systems import Media, Request
from bench.systems.images import BadImage, encode_png, is_blank, read_image, write_atomic
from bench.systems.rows import read_all_rows
from gentron.config import from_dict
from gentron.hashing import file_sha256, sha256
from gentron.media import Sample

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A frame on the disk. file: relative to the manifest's folder, or absolute if made elsewhere."""

    file: str
    sha256: str | None
    """None where there was no file when the row was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRecord:
    """A row of manifest.jsonl.   fps: of a video.   files: its frames in order, one of a picture."""

    prompt_id: str
    sample: int
    seed: int
    """-1 where it is not known."""
    kind: Literal["image", "video"] = "image"
    fps: float | None = None
    files: tuple[MediaFile, ...]

    def __post_init__(self) -> None:
        if not self.files or (self.kind == "image" and len(self.files) != 1):
            raise ValueError(
                f"an image is one file, a video at least one, got {len(self.files)} of {self.kind}"
            )
        if (self.kind == "image") != (self.fps is None):
            raise ValueError(f"fps is of videos, and every video has one, got {self.fps} of {self.kind}")

    @property
    def num_frames(self) -> int:
        return len(self.files)

    @property
    def file(self) -> str:
        """The picture, or the first frame: what stands for the sample where one file is shown."""
        return self.files[0].file

    @property
    def sha256(self) -> str | None:
        """Names the sample's content: the hash of a picture's file, or of a clip's rate and frames."""
        digests = [each.sha256 for each in self.files]
        if self.kind == "image":
            return digests[0]
        if None in digests:
            return None
        return sha256(json.dumps([self.fps, digests]))


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """pixels: (H, W, 3) uint8.   sha256: of its file."""

    pixels: np.ndarray
    sha256: str


def media_of(sample: Sample) -> Media:
    return Media() if sample.fps is None else Media("video", sample.num_frames, sample.fps)


# ---- writing ---------------------------------------------------------------------------------------------


def write_sample(sample: Sample, folder: Path, request: Request) -> SampleRecord:
    """The frames as PNG: images/<id>.png, or clips/<id>/0000.png and so on. The caller adds the row."""
    is_clip = sample.fps is not None
    files = []
    for k, frame in enumerate(sample.frames):
        data = encode_png(np.asarray(frame.convert("RGB")))
        file = f"clips/{request.id}/{k:04d}.png" if is_clip else f"images/{request.id}.png"
        write_atomic(folder / file, data)
        files.append(MediaFile(file, sha256(data)))
    return SampleRecord(
        prompt_id=request.prompt_id,
        sample=request.sample,
        seed=request.seed,
        kind="video" if is_clip else "image",
        fps=sample.fps,
        files=tuple(files),
    )


# ---- reading ---------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[tuple[str, int], SampleRecord]:
    """Records by (prompt id, sample), of all processes; the last one of each counts."""
    records = (from_dict(SampleRecord, _upgraded(row)) for row in read_all_rows(folder, MANIFEST))
    return {(record.prompt_id, record.sample): record for record in records}


def manifest_row(record: SampleRecord) -> dict[str, Any]:
    return asdict(record)


def _upgraded(row: dict[str, Any]) -> dict[str, Any]:
    """Rows knew pictures only at first: one file with its hash."""
    if "files" in row or "file" not in row:
        return row
    known = {name: value for name, value in row.items() if name not in ("file", "sha256")}
    return {**known, "kind": "image", "fps": None, "files": [{n: row.get(n) for n in ("file", "sha256")}]}


def is_made(folder: Path, record: SampleRecord | None, request: Request) -> bool:
    """Every file is there with the right bytes, and of the request's seed."""
    if record is None or record.seed != request.seed:
        return False
    paths = [folder / each.file for each in record.files]
    return all(path.is_file() for path in paths) and [file_sha256(path) for path in paths] == [
        each.sha256 for each in record.files
    ]


def read_frames(folder: Path, record: SampleRecord) -> list[Frame]:
    """All frames as they were recorded; BadImage with the reason: missing, corrupt or changed."""
    found = [read_image(folder / each.file) for each in record.files]
    if [digest for _, digest in found] != [each.sha256 for each in record.files]:
        raise BadImage("changed since it was made")
    return [Frame(pixels, digest) for pixels, digest in found]


def frames_at(folder: Path, media: Media) -> list[Path]:
    """The files that a folder of frames shows at the rate asked for, as many as are asked for; one that the
    folder is too short for is named as it would be, and is not there."""
    from gentron.data.video import frame_files, read_facts

    assert media.fps is not None, "pictures have no rate"
    there = frame_files(folder) if folder.is_dir() else []
    fps = read_facts(folder, fps=media.fps).fps if there else media.fps
    places = [math.floor(k / media.fps * fps + 1e-6) for k in range(media.num_frames)]
    return [there[k] if k < len(there) else folder / f"{k:06d}.png" for k in places]


def are_blank(frames: Sequence[Frame]) -> bool:
    """A clip is blank where every frame is; one blank frame among others, as in a fade, is a frame."""
    return all(is_blank(frame.pixels) for frame in frames)


def taken(frames: Sequence[Any], frame: int | None) -> list[Any]:
    """All, or the one asked for; ValueError if there is none of that index."""
    if frame is None:
        return list(frames)
    if not 0 <= frame < len(frames):
        raise ValueError(f"frame must be from 0 to {len(frames) - 1}, got {frame}")
    return [frames[frame]]
