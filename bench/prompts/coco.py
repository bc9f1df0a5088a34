"""COCO-30K: prompts and reference pictures from a local copy of COCO val2014, chosen by a rule over its ids.

Nothing of the data set is shipped. The rule needs no random generator: images are ordered by
sha256("<seed>:<image id>") and the first 30,000 taken; of each image's captions, the one with the smallest
sha256("<seed>:<annotation id>"). The list is sorted by image id. Its sha256 is recorded in every result, and
checked where the protocol pins it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.prompts import Prompt
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.hashing import sha256

NAME = "coco-30k_v1"
CATEGORY = "captions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    num_images: int
    seed: int
    ids_sha256: str | None
    """Of the chosen ids; None until it is pinned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What is done to every picture, drawn or real, before a metric's own resize."""

    crop: Literal["centre"]
    size: int
    filter: Literal["bicubic"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoConfig:
    """The YAML file, field by field."""

    name: str
    kind: Literal["captions"]
    annotations: str
    """Name of the official annotation file."""
    selection: Selection
    reference: Literal["all"]
    """The pictures measured against: all of the annotation file."""
    prepared: Prepared
    images_per_prompt: int
    seed: int


@dataclass(frozen=True, slots=True)
class CocoProtocol:
    config: CocoConfig
    sha256: str

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True, slots=True)
class Captions:
    """prompts: of the chosen images.   ids_sha256: names the choice.   files: of all images, by name."""

    prompts: list[Prompt]
    ids_sha256: str
    files: list[str]


def read_protocol(path: Path) -> CocoProtocol:
    """A protocol of this kind; UserError if the file is not one."""
    data = path.read_bytes()
    try:
        config = from_dict(CocoConfig, yaml.safe_load(data))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    return CocoProtocol(config, sha256(data))


def _key(seed: int, id: int) -> str:
    return sha256(f"{seed}:{id}")


def choose(captions: dict[int, list[tuple[int, str]]], selection: Selection) -> list[tuple[int, int, str]]:
    """(image id, annotation id, caption), by image id. captions: (annotation id, text) by image id."""
    images = sorted(captions, key=lambda id: _key(selection.seed, id))[: selection.num_images]
    chosen = []
    for image in sorted(images):
        annotation, text = min(captions[image], key=lambda row: _key(selection.seed, row[0]))
        chosen.append((image, annotation, text))
    return chosen


def read_captions(path: Path, protocol: CocoProtocol) -> Captions:
    """The protocol's prompts from the official annotation file; UserError if it is another one."""
    data = _read(path)
    captions: dict[int, list[tuple[int, str]]] = defaultdict(list)
    try:
        files = {int(row["id"]): str(row["file_name"]) for row in data["images"]}
        for row in data["annotations"]:
            text = " ".join(str(row["caption"]).split())
            captions[int(row["image_id"])].append((int(row["id"]), text))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is no COCO caption file: {type(error).__name__} {error}") from error
    selection = protocol.config.selection
    if strangers := set(captions) - set(files):
        raise UserError(f"'{path}' has captions of an image that it does not list: {min(strangers)}")
    if len(captions) < selection.num_images:
        raise UserError(
            f"{protocol.name} takes {selection.num_images} images with captions, and '{path}' has"
            f" {len(captions)}: give {protocol.config.annotations}"
        )
    if unsafe := [name for name in files.values() if Path(name).name != name or name in ("", ".", "..")]:
        raise UserError(f"'{path}': file_name must be a plain name, got {unsafe[0]!r}")
    chosen = choose(captions, selection)
    digest = sha256("".join(f"{image} {id}\n" for image, id, _ in chosen))
    if selection.ids_sha256 not in (None, digest):
        raise UserError(
            f"{protocol.name} pins another choice of images: expected sha256 {selection.ids_sha256}, got"
            f" {digest} from '{path}': give the official {protocol.config.annotations}"
        )
    prompts = [Prompt(id=f"coco-{image:012d}", category=CATEGORY, text=text) for image, _, text in chosen]
    return Captions(prompts, digest, sorted(files.values()))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"'{path}' is no COCO caption file: expected an object with images and annotations")
    return data
