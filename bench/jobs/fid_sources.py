"""Where sets of images come from: folders, systems asked with a protocol's prompts, the shapes world, files
of features. Each becomes a side that set_metrics/measure.py measures."""

# N images of a set

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bench.prompts import Prompt
from bench.prompts.coco import Captions, CocoProtocol, Prepared, read_protocol
from bench.prompts.protocol import Protocol, protocols_folder
from bench.prompts.shapes import realise
from bench.results.record import SystemRecord, system_record
from bench.set_metrics.features.extract import DrawnPicture, FilePicture, Picture, Prepare
from bench.set_metrics.features.resize import centre_square
from bench.set_metrics.measure import Side, stored_side
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import Collection, Request, System, safe_name
from bench.systems.generate import images_folder, make_images, work_folder
from bench.systems.requests import requests
from gentron.data.walk import walk_files
from gentron.errors import UserError
from gentron.hashing import sha256
from gentron.shapes import render, sample_scene
from gentron.shapes.scene import WORLD_VERSION, scene_rng

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
IMAGE_SET = "image-set"  # the protocol's name where there are no prompts
IMAGE_SET_WORDS = "image-set: the pictures of a folder, all of them or as many as are asked for, by name"
SHAPES_SEED = 20231207  # of the world's pictures as a reference
FLOOR_SEED = SHAPES_SEED + 1  # of a second set, to see what the first is from itself


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The images' side and what a result says about it.

    shapes: for each image the prompt whose true pictures it can be measured against, if it has one.
    """

    side: Side
    protocol: str
    protocol_sha256: str
    editions: dict[str, str] = field(default_factory=dict)
    suite: str = "all"
    seed: int = 0
    images_per_prompt: int = 1
    system: SystemRecord
    device: str = "none"
    folder: Path | None = None
    shapes: Sequence[tuple[Prompt, int]] = ()


def chosen_names(names: Sequence[str], num_images: int | None, *, where: str) -> list[str]:
    """All names, or as many as asked for: those whose sha256 is smallest, in the order they came.

    A prefix would take one category of prompts, or one class of a sorted folder.
    """
    if num_images is None:
        return list(names)
    if num_images < 2:
        raise ValueError(f"num_images must be >= 2, got {num_images}")
    if len(names) < num_images:
        raise UserError(f"{where} must hold at least {num_images} images, got {len(names)}")
    ranked = sorted(names, key=lambda name: sha256(name))
    kept = set(ranked[:num_images])
    return [name for name in names if name in kept]


def _suite(num_images: int | None) -> str:
    return "all" if num_images is None else f"sample-{num_images}"


# ---- folders ---------------------------------------------------------------------------------------------


def folder_pictures(folder: Path, num_images: int | None = None) -> list[Picture]:
    """The pictures in a folder and below it, by name; UserError if there are none or too few.

    Links are followed, and a folder that several links lead to counts once.
    """
    if not folder.is_dir():
        raise UserError(f"no folder '{folder}'")
    found = {
        path.relative_to(folder).as_posix(): path
        for path in walk_files(folder)
        if path.suffix.lower() in SUFFIXES
    }
    if not found:
        raise UserError(f"no images in '{folder}': expected files that end in {', '.join(SUFFIXES)}")
    names = chosen_names(sorted(found), num_images, where=f"'{folder}'")
    return [FilePicture(name, found[name], prompt_id=name) for name in names]


def measured_folder(path: Path, num_images: int | None) -> Measured:
    """Images made elsewhere, or the features of some in a file that `--features` wrote."""
    name = safe_name(path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_file():
        if num_images is not None:
            raise ValueError("--num-images has no effect on a file of features")
        side, kind = stored_side(path), "features"
    else:
        pictures = folder_pictures(path, num_images)
        side, kind = Side(id=name, num_images=len(pictures), pictures=lambda: pictures), "folder"
    return Measured(
        side=side,
        protocol=IMAGE_SET,
        protocol_sha256=sha256(IMAGE_SET_WORDS),
        suite=_suite(num_images),
        system=SystemRecord(
            kind=kind, name=name, weights_sha256=None, untrained=False, settings={"folder": name}
        ),
    )


# ---- systems ---------------------------------------------------------------------------------------------


def measured_system(
    system: System | Collection,
    protocol: Protocol,
    num_images: int | None,
    *,
    work: Path,
    stage: Stage,
    shard: Shard,
) -> Measured:
    """Images of a protocol's prompts, made or found where `compbench` has them too."""
    config, seed = protocol.config, protocol.config.seed
    prompts = protocol.select("all", limit=None)
    wanted = requests(
        prompts, images_per_prompt=config.images_per_prompt, seed=seed, seed_of=config.image_seed
    )
    wanted = _chosen(wanted, num_images, protocol.name)
    folder = work_folder(work, protocol, system.info, seed=seed)
    by_id = {prompt.id: prompt for prompt in prompts}
    shapes = [(by_id[r.prompt_id], r.sample) for r in wanted if by_id[r.prompt_id].description is not None]
    return Measured(
        side=Side(
            id=system.info.name,
            num_images=len(wanted) * system.info.media.num_frames,
            pictures=lambda: _made(system, wanted, prompts, folder, stage, shard),
        ),
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        editions=protocol.editions,
        suite=_suite(num_images),
        seed=seed,
        images_per_prompt=config.images_per_prompt,
        system=system_record(system.info),
        device=system.info.device,
        folder=folder,
        shapes=shapes if len(shapes) == len(wanted) and system.info.media.kind == "image" else (),
    )


def coco_protocol(name: str) -> CocoProtocol:
    """A published protocol over COCO's captions."""
    return read_protocol(protocols_folder() / "captions" / f"{name}.yaml")


def measured_captions(
    system: System | Collection,
    protocol: CocoProtocol,
    captions: Captions,
    num_images: int | None,
    *,
    work: Path,
    stage: Stage,
    shard: Shard,
) -> Measured:
    """Images of the captions that the protocol chose from a local annotation file."""
    config = protocol.config
    wanted = requests(captions.prompts, images_per_prompt=config.images_per_prompt, seed=config.seed)
    wanted = _chosen(wanted, num_images, protocol.name)
    info = system.info
    folder = images_folder(work / protocol.name, info, before=[protocol.sha256, captions.ids_sha256])
    name, prepare = preparation(config.prepared)
    return Measured(
        side=Side(
            id=info.name,
            num_images=len(wanted) * system.info.media.num_frames,
            pictures=lambda: _made(system, wanted, captions.prompts, folder, stage, shard),
            prepared=name,
            prepare=prepare,
        ),
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        editions={"ids": captions.ids_sha256},
        suite=_suite(num_images),
        seed=config.seed,
        images_per_prompt=config.images_per_prompt,
        system=system_record(info),
        device=info.device,
        folder=folder,
    )


def _chosen(wanted: list[Request], num_images: int | None, where: str) -> list[Request]:
    kept = set(chosen_names([request.id for request in wanted], num_images, where=where))
    return [request for request in wanted if request.id in kept]


def _made(
    system: System | Collection,
    wanted: list[Request],
    prompts: Sequence[Prompt],
    folder: Path,
    stage: Stage,
    shard: Shard,
) -> list[Picture]:
    """Pictures of all requests, once every process has made its share; of a clip, every frame is one."""
    pictures: list[Picture] = []
    for r in make_images(system, wanted, folder, shard, stage, prompts=prompts):
        for k, each in enumerate(r.files):
            name = f"{r.prompt_id}_{r.sample:02d}" + (f"_frame{k}" if r.kind == "video" else "")
            path = folder / each.file
            pictures.append(FilePicture(name, path, r.prompt_id, r.sample, expected=each.sha256))
    return pictures


def preparation(prepared: Prepared) -> tuple[str, Prepare]:
    """Its name in caches and results, and what it does."""

    def prepare(image: np.ndarray) -> np.ndarray:
        square = Image.fromarray(centre_square(image))
        if square.size == (prepared.size, prepared.size):
            return np.asarray(square)
        return np.asarray(square.resize((prepared.size, prepared.size), Image.Resampling.BICUBIC))

    return f"{prepared.crop}-{prepared.filter}-{prepared.size}", prepare


# ---- references ------------------------------------------------------------------------------------------


def reference_side(where: str, images: Measured, *, files: Sequence[str] | None = None) -> Side:
    """`shapes`, a folder of pictures, or a file that `--save-reference` wrote.

    files: the names that the folder must hold, where a protocol says so. Its pictures are prepared like the
    images.
    """
    if where == "shapes":
        return shapes_side(images, seed=SHAPES_SEED)
    return folder_side(where, files, images.side.prepared, images.side.prepare)


def folder_side(
    where: str, files: Sequence[str] | None = None, prepared: str = "", prepare: Prepare | None = None
) -> Side:
    """A folder of pictures, or a file that `--save-reference` wrote; see `reference_side`."""
    path = Path(where)
    if path.is_file():
        return stored_side(path)
    if not path.is_dir():
        raise UserError(
            f"no reference '{where}': give a folder, a file that --save-reference wrote, or shapes"
        )
    named = None if files is None else [FilePicture(name, path / name, prompt_id=name) for name in files]
    pictures: Sequence[Picture] = folder_pictures(path) if named is None else named
    return Side(
        id=safe_name(path.resolve().name),
        num_images=len(pictures),
        pictures=lambda: pictures,
        prepared=prepared,
        prepare=prepare,
    )


def shapes_side(images: Measured, *, seed: int) -> Side:
    """As many pictures as there are images, drawn by the shapes world.

    For images of the world's own prompts: a true picture of each prompt, what a perfect system would draw.
    For others: scenes as training draws them.
    """
    side = images.side
    pictures: list[Picture]
    if images.shapes:
        pictures = [
            DrawnPicture(f"{prompt.id}_{k:02d}", prompt.id, k, partial(_true_picture, prompt, k, seed))
            for prompt, k in images.shapes
        ]
        name = images.protocol
    else:
        pictures = [
            DrawnPicture(f"scene-{k}", f"scene-{k}", 0, partial(_any_picture, k, seed))
            for k in range(side.num_images)
        ]
        name = "scenes"
    return Side(
        id=f"shapes world {WORLD_VERSION}: {name}, seed {seed}",
        num_images=len(pictures),
        pictures=lambda: pictures,
        prepared=side.prepared,
        prepare=side.prepare,
    )


def _true_picture(prompt: Prompt, sample: int, seed: int) -> np.ndarray:
    scene = realise(prompt.claim, np.random.default_rng([seed, sample, *prompt.id.encode()]))
    assert scene is not None, f"no scene is as the prompt says: {prompt.text}"
    return render(scene)


def _any_picture(index: int, seed: int) -> np.ndarray:
    return render(sample_scene(scene_rng(seed, index)))
