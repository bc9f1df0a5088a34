"""Protocol + system -> images and manifest.jsonl, one row an image, appended as each is safe on the disk.

A killed run goes on where it stopped: rows whose file is there with the right bytes are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.images import encode_png, sha256, write_atomic
from bench.prompts import Prompt
from bench.systems import Collection, Request, System

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """A row of manifest.jsonl; `file` is relative to the manifest's folder, or absolute if made elsewhere."""

    prompt_id: str
    sample: int
    seed: int
    file: str
    sha256: str | None


def image_seed(run_seed: int, prompt_id: str, sample: int) -> int:
    """The seed of an image, in [0, 2^63): a function of these three and nothing else."""
    key = json.dumps([run_seed, prompt_id, sample]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def requests(
    prompts: Iterable[Prompt],
    *,
    images_per_prompt: int,
    seed: int,
    seed_of: Callable[[int, str, int], int] = image_seed,
) -> list[Request]:
    """All images of a run, prompt by prompt.

    seed_of: (run seed, prompt id, sample index) -> the seed of an image, as the protocol says.
    """
    if images_per_prompt < 1:
        raise ValueError(f"images_per_prompt must be >= 1, got {images_per_prompt}")
    return [
        Request(
            id=f"{prompt.id}_{sample:02d}",
            prompt_id=prompt.id,
            sample=sample,
            text=prompt.text,
            seed=seed_of(seed, prompt.id, sample),
        )
        for prompt in prompts
        for sample in range(images_per_prompt)
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl file; none if it is absent. A last line cut off by a kill is dropped."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
    return rows


def read_all_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a .jsonl file and of the parts of it that processes of a shared run left beside it."""
    stem = name.removesuffix(".jsonl")
    parts = sorted(folder.glob(f"{stem}-rank*.jsonl"))
    return [row for path in (folder / name, *parts) for row in read_rows(path)]


def merge_rows(folder: Path, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write the whole file anew in this order, then drop its parts: the same bytes however it was made."""
    write_atomic(folder / name, "".join(json.dumps(row) + "\n" for row in rows).encode())
    for part in folder.glob(f"{name.removesuffix('.jsonl')}-rank*.jsonl"):
        part.unlink()


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line. A line cut off by a kill before it is closed first, so that it spoils nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def read_manifest(folder: Path) -> dict[tuple[str, int], ImageRecord]:
    """Records by (prompt id, sample), of all processes; the last one of each counts."""
    rows = (ImageRecord(**row) for row in read_all_rows(folder, MANIFEST))
    return {(record.prompt_id, record.sample): record for record in rows}


def _is_made(folder: Path, record: ImageRecord | None, request: Request) -> bool:
    if record is None or record.seed != request.seed:
        return False
    path = folder / record.file
    return path.is_file() and sha256(path.read_bytes()) == record.sha256


def generate(
    system: System,
    wanted: list[Request],
    folder: Path,
    *,
    advance: Callable[[int], None],
    manifest_name: str = MANIFEST,
) -> list[ImageRecord]:
    """Make the images that are not there yet; returns the records of all wanted ones.

    advance: told of the number of images that became available.
    manifest_name: file that new rows go to; processes that share the folder have one each.
    """
    manifest = read_manifest(folder)
    missing = [r for r in wanted if not _is_made(folder, manifest.get((r.prompt_id, r.sample)), r)]
    advance(len(wanted) - len(missing))
    if missing:
        for request, image in zip(missing, system.images(missing), strict=True):
            data = encode_png(image)
            file = f"images/{request.id}.png"
            write_atomic(folder / file, data)
            record = ImageRecord(
                prompt_id=request.prompt_id,
                sample=request.sample,
                seed=request.seed,
                file=file,
                sha256=sha256(data),
            )
            append_row(folder / manifest_name, asdict(record))
            manifest[(request.prompt_id, request.sample)] = record
            advance(1)
    return [manifest[(r.prompt_id, r.sample)] for r in wanted]


def collect(collection: Collection, wanted: list[Request]) -> list[ImageRecord]:
    """Records of images made elsewhere. Their seeds are not known: -1."""
    records = []
    for request in wanted:
        path = collection.find(request).resolve()
        digest = sha256(path.read_bytes()) if path.is_file() else None
        records.append(
            ImageRecord(
                prompt_id=request.prompt_id, sample=request.sample, seed=-1, file=str(path), sha256=digest
            )
        )
    return records
