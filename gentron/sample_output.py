"""Samples into files: where they go, and what is written, by the name that --out gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gentron.atomic import atomic_file, check_writable
from gentron.data.clip_writer import CLIP_WRITERS, check_frame_folder, contact_sheet, write_clip
from gentron.errors import UserError
from gentron.media import Sample

MANIFEST = "manifest.json"
PICTURE_SUFFIXES = (".png",)
CLIP_SUFFIXES = tuple(suffix for suffix in CLIP_WRITERS if suffix)
CLIPS_IN_FOLDER = ".mp4"
"""What several clips are written as: the one that is watched everywhere."""


class Target(NamedTuple):
    """Where samples go."""

    path: Path
    is_folder: bool
    """Of files by number and a manifest. (A single clip may also be a folder, of its frames.)"""


def choose_target(out: Path | None, *, count: int, grid: bool, clips: bool = False) -> Target:
    """One sample or a grid may be a file, by its suffix; several samples are a folder of files.

    Pictures and grids are .png. A clip is .mp4, .webm, .gif, .webp, .png (a contact sheet), or without a
    suffix a folder of its frames. Raises UserError.
    """
    single = grid or count == 1
    if out is None:
        file = Path("out.mp4" if clips and not grid else "out.png")
        out = file if single else Path("samples")
    is_frames = clips and single and not grid and not out.suffix
    is_folder = (out.is_dir() or not out.suffix) and not is_frames
    suffixes = CLIP_SUFFIXES if clips and not grid else PICTURE_SUFFIXES
    if grid and is_folder:
        raise UserError(f"--out must be a .png file for a grid, got '{out}'")
    if not is_folder and not is_frames and out.suffix.lower() not in suffixes:
        raise UserError(f"--out must be a {_one_of(suffixes)} file or a folder, got '{out}'")
    if out.exists() and not out.is_dir() and (is_folder or is_frames or not out.is_file()):
        raise UserError(f"--out '{out}' is a file already; choose another name")
    if not is_folder and not single:
        noun = "clips" if clips else "pictures"
        raise UserError(f"--out '{out}' is one file for {count} {noun}: give a folder, or --grid")
    if is_frames:
        check_frame_folder(out)
    try:
        check_writable(out)
    except OSError as error:
        raise UserError(f"--out '{out}' cannot be written: {error.strerror} in '{error.filename}'") from None
    return Target(out, is_folder)


def _one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def write_samples(
    samples: Iterable[Sample], target: Target, texts: Sequence[dict[str, str]] | None = None
) -> list[Path]:
    """Each sample to its file, whole or not at all, as it comes; the files.

    texts: PNG text chunks of pictures.
    """
    if target.is_folder:
        (target.path / MANIFEST).unlink(missing_ok=True)  # of earlier samples; the new one comes last
    paths = []
    for k, sample in enumerate(samples):
        suffix = ".png" if sample.fps is None else CLIPS_IN_FOLDER
        path = target.path / f"{k:06d}{suffix}" if target.is_folder else target.path
        if sample.fps is None:
            write_picture(sample.image, path, {} if texts is None else texts[k])
        else:
            write_clip(path, sample.frames, sample.fps)
        paths.append(path)
    return paths


def write_picture(image: Image.Image, path: Path, text: dict[str, str] | None = None) -> None:
    """A PNG file, `text` as its text chunks."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=info if text else None)


def make_grid(samples: Sequence[Sample], *, columns: int | None = None) -> Image.Image:
    """Samples in reading order, lines between them: about as many rows as columns; clips a row each."""
    if samples[0].num_frames > 1:
        columns = samples[0].num_frames
    columns = columns or round(len(samples) ** 0.5 + 0.49)
    return contact_sheet([frame for sample in samples for frame in sample.frames], columns=columns)


def write_manifest(
    target: Target, paths: Sequence[Path], rows: Sequence[tuple[str, int]], *, model: str, untrained: bool
) -> None:
    """manifest.json: which file shows which prompt with which seed; a folder with one is complete."""
    kind = "clips" if paths[0].suffix == CLIPS_IN_FOLDER else "images"
    manifest: dict[str, Any] = {
        "model": model,
        "weights": "untrained" if untrained else "trained",
        kind: [
            {"file": path.name, "prompt": prompt, "seed": seed}
            for path, (prompt, seed) in zip(paths, rows, strict=True)
        ],
    }
    with atomic_file(target.path / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
