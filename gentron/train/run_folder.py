"""A run folder's config.json: claimed by a new run, compared by a resumed one, upgraded where it is old."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.train.state import list_checkpoints

CONFIG_FILE = "config.json"
RUN_FORMAT_VERSION = 2

Config = dict[str, Any]


def _from_1(config: Config) -> Config:
    """Version 1 had no number, no mixtures of scenes at first, no video, and flat crop schedules.

    What a field meant while it did not exist is written out here: defaults may change later, this may not.
    """
    recipe = config.get("recipe")
    if isinstance(recipe, dict):  # of the denoiser; the small runs store their recipe itself
        recipe.setdefault(
            "scenes", {"kinds": [0.10, 0.27, 0.27, 0.18, 0.18], "interactions": [1 / 3, 1 / 3, 1 / 3]}
        )
        recipe.setdefault("video", None)
        if isinstance(recipe.get("model"), dict):
            recipe["model"].setdefault("temporal", None)
    crops = ("crop_steps", "crop_size", "crop_batch_size", "picture_steps", "picture_batch_size")
    if all(name in config for name in crops):
        config["schedule"] = {name: config.pop(name) for name in crops}
    return config


UPGRADES: dict[int, Callable[[Config], Config]] = {1: _from_1}
"""From a version to the next one."""


def upgraded(config: Config) -> Config:
    """A stored configuration in today's format; ValueError if it is of a later version or of none."""
    config = copy.deepcopy(config)
    version = config.pop("format_version", 1)
    if not isinstance(version, int) or not 1 <= version <= RUN_FORMAT_VERSION:
        raise ValueError(f"format_version must be 1..{RUN_FORMAT_VERSION}, got {version!r}")
    for step in range(version, RUN_FORMAT_VERSION):
        config = UPGRADES[step](config)
    return {"format_version": RUN_FORMAT_VERSION, **config}


def check_run_folder(out: Path, *, resume: bool) -> None:
    """UserError unless `out` is free, or holds a run that is to be resumed."""
    if (out / CONFIG_FILE).exists():
        if not resume:
            raise UserError(f"{out} holds a run already: add --resume auto, or choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a run: choose another --out")


def start_run(out: Path, config: Config, *, resume: bool) -> Path | None:
    """Claim the run folder and store the configuration; the checkpoint to go on from, None for a new run.

    Raises UserError where check_run_folder does, and if the run there has another configuration.
    """
    check_run_folder(out, resume=resume)
    path = out / CONFIG_FILE
    wanted = {"format_version": RUN_FORMAT_VERSION, **json.loads(json.dumps(config))}
    if path.exists():
        wrong = sorted(_differences(_read(path), wanted))
        if wrong:
            raise UserError(
                f"{out} holds a run with another configuration ({'; '.join(wrong[:3])}): choose another --out"
            )
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n", "utf-8")
    checkpoints = list_checkpoints(out)
    return checkpoints[-1] if checkpoints else None


def _read(path: Path) -> Config:
    try:
        stored = json.loads(path.read_text("utf-8"))
        if not isinstance(stored, dict):
            raise ValueError(f"expected a mapping, got {type(stored).__name__}")
        return upgraded(stored)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; choose another --out") from None


def _differences(stored: object, wanted: object, path: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in stored.keys() | wanted.keys():
            yield from _differences(stored.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
    elif stored != wanted:
        yield f"{path}: {stored!r} there, {wanted!r} now"
