"""Protocol + system -> images or clips and manifest.jsonl, a row each, appended as each is safe on the disk.

A killed run goes on where it stopped: rows whose file (of a clip, whose folder of frames) is there with the
right bytes are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.prompts.protocol import Protocol
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import Collection, Request, System, SystemInfo
from bench.systems.images import digest_of, encode_png, write_atomic, write_clip
from bench.systems.rows import append_row, merge_rows, read_all_rows

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """A row of manifest.jsonl; `file` is relative to the manifest's folder, or absolute if made elsewhere."""

    prompt_id: str
    sample: int
    seed: int
    file: str
    sha256: str | None


def read_manifest(folder: Path) -> dict[tuple[str, int], ImageRecord]:
    """Records by (prompt id, sample), of all processes; the last one of each counts."""
    rows = (ImageRecord(**row) for row in read_all_rows(folder, MANIFEST))
    return {(record.prompt_id, record.sample): record for record in rows}


def _is_made(folder: Path, record: ImageRecord | None, request: Request) -> bool:
    if record is None or record.seed != request.seed:
        return False
    return record.sha256 is not None and digest_of(folder / record.file) == record.sha256


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
            file = _save(image, request, folder, system.info)
            record = ImageRecord(
                prompt_id=request.prompt_id,
                sample=request.sample,
                seed=request.seed,
                file=file,
                sha256=digest_of(folder / file),
            )
            append_row(folder / manifest_name, asdict(record))
            manifest[(request.prompt_id, request.sample)] = record
            advance(1)
    return [manifest[(r.prompt_id, r.sample)] for r in wanted]


def _save(image: np.ndarray, request: Request, folder: Path, info: SystemInfo) -> str:
    """Write a picture (H, W, 3) or the frames of a clip (F, H, W, 3); the name of its file or folder."""
    if image.ndim == 3:
        file = f"images/{request.id}.png"
        write_atomic(folder / file, encode_png(image))
    else:
        file = f"clips/{request.id}"
        write_clip(folder / file, image, fps=info.settings["fps"])
    return file


def collect(collection: Collection, wanted: list[Request]) -> list[ImageRecord]:
    """Records of images made elsewhere. Their seeds are not known: -1."""
    records = []
    for request in wanted:
        path = collection.find(request).resolve()
        records.append(
            ImageRecord(
                prompt_id=request.prompt_id,
                sample=request.sample,
                seed=-1,
                file=str(path),
                sha256=digest_of(path),
            )
        )
    return records


def work_folder(work: Path, protocol: Protocol, info: SystemInfo, *, seed: int) -> Path:
    """Where images and rows of this system lie.

    Its name holds a hash of all that shapes an image, so the same command finds its images again, a longer
    run those of a shorter one and another evaluator those of the first, but never those of other weights or
    settings.
    """
    key = [
        *protocol.images_key,
        info.kind,
        info.name,
        info.weights_sha256,
        info.settings,
        info.untrained,
        seed,
    ]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return work / protocol.images_name / f"{info.name}-{digest[:8]}"


def make_images(
    system: System | Collection, wanted: list[Request], folder: Path, shard: Shard, stage: Stage
) -> list[ImageRecord]:
    """Records of all images, once every process has made its share."""
    mine = shard.mine(wanted)
    with stage("images", len(mine)) as advance:
        if isinstance(system, Collection):
            records = collect(system, wanted)
            advance(len(mine))
        else:
            generate(system, mine, folder, advance=advance, manifest_name=shard.file_name(MANIFEST))
            shard.barrier()
            made = read_manifest(folder)
            records = [made[r.prompt_id, r.sample] for r in wanted]
    shard.barrier()  # the parts are read by all before the first process drops them
    if shard.is_first:
        known = {} if isinstance(system, Collection) else read_manifest(folder)
        known.update({(r.prompt_id, r.sample): r for r in records})
        merge_rows(folder, MANIFEST, (asdict(known[key]) for key in sorted(known)))
    shard.barrier()
    return records
