"""Protocol + system -> samples and manifest.jsonl, one row a sample, appended as each is safe on the disk.

A killed run goes on where it stopped: rows whose file is there with the right bytes are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.prompts import Prompt
from bench.prompts.protocol import Protocol
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import Collection, Request, System, SystemInfo
from bench.systems.rows import append_row, merge_rows
from bench.systems.samples import (
    MANIFEST,
    MediaFile,
    SampleRecord,
    frames_at,
    is_made,
    manifest_row,
    read_manifest,
    write_sample,
)
from gentron.hashing import file_sha256, json_sha256


def generate(
    system: System,
    wanted: list[Request],
    folder: Path,
    *,
    advance: Callable[[int], None],
    manifest_name: str = MANIFEST,
) -> list[SampleRecord]:
    """Make the images that are not there yet; returns the records of all wanted ones.

    advance: told of the number of images that became available.
    manifest_name: file that new rows go to; processes that share the folder have one each.
    """
    manifest = read_manifest(folder)
    missing = [r for r in wanted if not is_made(folder, manifest.get((r.prompt_id, r.sample)), r)]
    advance(len(wanted) - len(missing))
    if missing:
        for request, sample in zip(missing, system.samples(missing), strict=True):
            record = write_sample(sample, folder, request)
            append_row(folder / manifest_name, manifest_row(record))
            manifest[(request.prompt_id, request.sample)] = record
            advance(1)
    return [manifest[(r.prompt_id, r.sample)] for r in wanted]


def collect(collection: Collection, wanted: list[Request], prompts: Sequence[Prompt]) -> list[SampleRecord]:
    """Records of images made elsewhere. Their seeds are not known: -1.

    prompts: all of the lists in order, see `Collection.find`.
    """
    media = collection.info.media
    records = []
    for request, place in zip(wanted, collection.find(wanted, prompts), strict=True):
        path = place.resolve()
        files = frames_at(path, media) if media.kind == "video" else [path]
        records.append(
            SampleRecord(
                prompt_id=request.prompt_id,
                sample=request.sample,
                seed=-1,
                kind=media.kind,
                fps=media.fps,
                files=tuple(MediaFile(str(f), file_sha256(f) if f.is_file() else None) for f in files),
            )
        )
    return records


def images_folder(
    parent: Path, info: SystemInfo, *, before: Sequence[Any] = (), after: Sequence[Any] = ()
) -> Path:
    """Where images and rows of this system lie.

    Its name holds a hash of all that shapes an image, so the same command finds its images again, a longer
    run those of a shorter one and another evaluator those of the first, but never those of other weights or
    settings.   before, after: what was asked, of values that JSON can hold.
    """
    system = [info.kind, info.name, info.weights_sha256, info.settings, info.untrained]
    return parent / f"{info.name}-{json_sha256([*before, *system, *after])[:8]}"


def work_folder(work: Path, protocol: Protocol, info: SystemInfo, *, seed: int) -> Path:
    """Of a system asked with a protocol's prompts."""
    return images_folder(work / protocol.images_name, info, before=protocol.images_key, after=[seed])


def make_images(
    system: System | Collection,
    wanted: list[Request],
    folder: Path,
    shard: Shard,
    stage: Stage,
    *,
    prompts: Sequence[Prompt],
) -> list[SampleRecord]:
    """Records of all images, once every process has made its share.

    prompts: all of the lists in order, also those of which nothing is wanted.
    """
    mine = shard.mine(wanted)
    with stage("images", len(mine)) as advance:
        if isinstance(system, Collection):
            records = collect(system, wanted, prompts)
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
        merge_rows(folder, MANIFEST, (manifest_row(known[key]) for key in sorted(known)))
    shard.barrier()
    return records
