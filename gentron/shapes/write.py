"""Write pictures and captions of the world to disk, as a folder or WebDataset shards; resumes by itself."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.shapes.captions import caption
from gentron.shapes.render import render
from gentron.shapes.scene import WORLD_VERSION, sample_scene, scene_rng

SHARD_SIZE = 1000
RECORD = "shapes.json"


class Example(NamedTuple):
    """One picture of the data set: its PNG bytes, its caption and the scene it shows, as JSON."""

    png: bytes
    caption: str
    scene: str


def make_example(seed: int, index: int) -> Example:
    """Example `index`, a function of (seed, index) alone."""
    rng = scene_rng(seed, index)
    scene = sample_scene(rng)
    text = caption(scene, rng)
    buffer = io.BytesIO()
    Image.fromarray(render(scene)).save(buffer, format="PNG")
    return Example(buffer.getvalue(), text, json.dumps(asdict(scene)))


def write_folder(
    folder: Path, *, count: int, seed: int, callback: Callable[[int], None] = lambda done: None
) -> None:
    """folder/images/000/000000.png ... and, last, captions.jsonl with {"file", "caption", "scene"} a line."""
    claim(folder, {"world": WORLD_VERSION, "seed": seed, "format": "folder"})
    rows = []
    for index in range(count):
        path = folder / "images" / f"{index // SHARD_SIZE:03d}" / f"{index:06d}.png"
        example = make_example(seed, index)
        if not path.is_file():
            write_file(path, example.png)
        scene = json.loads(example.scene)
        rows.append({"file": str(path.relative_to(folder)), "caption": example.caption, "scene": scene})
        callback(index + 1)
    write_file(folder / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_webdataset(
    folder: Path, *, count: int, seed: int, callback: Callable[[int], None] = lambda done: None
) -> None:
    """folder/shapes-000000.tar ...: 1000 samples a shard, each as .png, .txt (caption) and .json (scene)."""
    claim(folder, {"world": WORLD_VERSION, "seed": seed, "format": "webdataset"})
    for start in range(0, count, SHARD_SIZE):
        stop = min(start + SHARD_SIZE, count)
        path = folder / f"shapes-{start // SHARD_SIZE:06d}.tar"
        if not path.is_file() or _samples_in(path) < stop - start:
            with atomic_file(path) as temporary, tarfile.open(temporary, "w") as shard:
                for index in range(start, stop):
                    _add(shard, f"{index:06d}", make_example(seed, index))
                    callback(index + 1)
        callback(stop)


def claim(folder: Path, wanted: dict[str, int | str]) -> None:
    """Note what the folder holds; a folder of another seed, format or world must not be continued, nor one
    of other files, whose captions.jsonl would be replaced."""
    path = folder / RECORD
    if not path.is_file():
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(f"'{folder}' holds files of another kind; choose another folder")
        write_file(path, (json.dumps(wanted) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; choose another folder") from error
    if found != wanted:
        raise UserError(f"'{folder}' holds other data: expected {wanted}, got {found}; choose another folder")


def write_file(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _samples_in(path: Path) -> int:
    """0 for a damaged shard, which is then written again."""
    try:
        with tarfile.open(path) as shard:
            return len(shard.getnames()) // 3
    except tarfile.TarError:
        return 0


def _add(shard: tarfile.TarFile, key: str, example: Example) -> None:
    """Without times and owners, so that a shard is the same bytes wherever it is written."""
    parts = {"png": example.png, "txt": example.caption.encode(), "json": example.scene.encode()}
    for suffix, content in parts.items():
        entry = tarfile.TarInfo(f"{key}.{suffix}")
        entry.size = len(content)
        shard.addfile(entry, io.BytesIO(content))
