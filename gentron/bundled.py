"""What the package carries: bundled models, and the parts that they share.

gentron/weights/<model>/ is a checkpoint folder whose config.json may call a part "shared:<name>@<hash>":
the folder gentron/weights/shared/<name>, which lies there once for all models. The hash is checked whenever
a part is looked up, so that no model runs with a part that it was not trained with.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from gentron.errors import UserError
from gentron.hashing import file_sha256, sha256

BUNDLED_MODELS = ("mini", "mini-t2v")
HASH_DIGITS = 16
_REFERENCE = re.compile(rf"shared:([A-Za-z0-9_-]+)@([0-9a-f]{{{HASH_DIGITS}}})")


class SharedPart(NamedTuple):
    """What "shared:<name>@<hash>" says."""

    name: str
    hash: str

    def __str__(self) -> str:
        return f"shared:{self.name}@{self.hash}"


def weights_folder() -> Path:
    """Where the package carries weights."""
    return Path(str(files("gentron"))) / "weights"


def bundled(model: str) -> Path:
    """The checkpoint folder of a bundled model, package data."""
    assert model in BUNDLED_MODELS, f"{model} is not bundled"
    return weights_folder() / model


def bundled_mini() -> Path:
    """The built-in image model."""
    return bundled("mini")


def bundled_part(part: str, *, model: str = "mini") -> Path:
    """The folder of a bundled model's "autoencoder", "clip" or "t5", its own or shared.

    It needs no torch. Raises UserError when the part is absent or another one than the model's.
    """
    folder = bundled(model)
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = config["autoencoder"] if part == "autoencoder" else config["text"][part]
        own = None if is_shared(name) else folder / name
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the bundled model in '{folder}' is damaged: {error}") from error
    found = own or shared_folder(name)
    if not found.is_dir():
        raise UserError(f"the bundled model in '{folder}' lacks its folder '{name}'")
    return found


def is_shared(name: str) -> bool:
    """Whether a part's name in config.json is one of a shared part."""
    return name.startswith("shared:")


def shared_folder(reference: str) -> Path:
    """The folder that "shared:<name>@<hash>" names; UserError when it is absent or of another hash."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UserError(
            f"a shared part must be named shared:<name>@<{HASH_DIGITS} hex digits>, got '{reference}'"
        )
    part = SharedPart(*match.groups())
    folder = weights_folder() / "shared" / part.name
    if not folder.is_dir():
        raise UserError(f"this version of gentron has no shared part '{part.name}' in '{folder}'")
    found = folder_hash(folder)
    if found != part.hash:
        raise UserError(
            f"the model was trained with another '{part.name}' than this version of gentron shares in"
            f" '{folder}': its hash must be {part.hash}, got {found}"
        )
    return folder


def folder_hash(folder: Path) -> str:
    """16 hex digits over names and contents of a folder's files: of the text that sha256sum prints of them.

    By hand: (cd FOLDER && find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum).
    """
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    lines = [f"{file_sha256(path)}  {name}\n" for name, path in sorted(paths.items())]
    return sha256("".join(lines))[:HASH_DIGITS]
