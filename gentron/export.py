"""A checkpoint as one file, back again, and to a hub; nothing is lost on the way, to the last byte.

The single file is a safetensors file. Its data begin with those of model.safetensors, untouched and under
the same names, so that any reader of safetensors gets the weights; after them every other file of the
checkpoint (config.json, autoencoder, text encoders, tokenizers, model card) is a tensor of bytes named
"file:<path>". The metadata hold the config, and the header of model.safetensors as it was. Files are copied
piece by piece: a model of any size passes through a few MB of memory, and torch is not needed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

from gentron.atomic import atomic_file, atomic_folder
from gentron.checkpoint import CONFIG_FILE, WEIGHTS_FILE, find_checkpoint, read_config, resolve_part
from gentron.errors import UserError
from gentron.model_card import write_card

SUFFIX = ".safetensors"
FORMAT = "gentron-checkpoint"
FORMAT_VERSION = 1
FILE_PREFIX = "file:"
MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
PIECE = 1 << 22


# ---- folders -----------------------------------------------------------------------------------------------


def export(model: str, to: Path, *, checkpoint: Path | None = None) -> Path:
    """A preset's weights, a checkpoint folder or a single file -> a single file (.safetensors) or a folder.

    A folder gets the parts that bundled models share, and a model card. An existing file or checkpoint is
    replaced, another folder is refused.
    """
    if to.is_dir() and any(to.iterdir()) and not (to / CONFIG_FILE).is_file():
        raise UserError(f"--to '{to}' is a folder with other files in it; choose another name")
    source = Path(model)
    if checkpoint is None and source.suffix == SUFFIX and source.is_file():
        if to.suffix == SUFFIX:
            raise UserError(f"'{model}' is a single file already: give a folder to unpack it to")
        return unpack(source, to)
    folder = find_checkpoint(model, checkpoint=checkpoint)
    if to.suffix == SUFFIX:
        if to.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--to '{to}' lies inside the checkpoint; choose another place")
        with TemporaryDirectory() as scratch:
            return pack(complete(folder, Path(scratch) / "model"), to)
    if to.resolve() == folder.resolve():
        raise UserError(f"--to '{to}' is the checkpoint itself; choose another name")
    return complete(folder, to)


def complete(folder: Path, to: Path) -> Path:
    """Copy a checkpoint with all that it needs: shared parts under their own names, and a model card."""
    config = read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"the checkpoint '{folder}' lacks {WEIGHTS_FILE}")
    data: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    with atomic_folder(to) as temporary:
        for place, name in (
            (data, "autoencoder"),
            *((data["text"], encoder) for encoder in ("clip", "t5") if data["text"][encoder] is not None),
        ):
            part = resolve_part(folder, place[name])
            if isinstance(part, Path):
                _copy_files(part, temporary / name)
                place[name] = name
        for file in (WEIGHTS_FILE, "README.md"):
            if (folder / file).is_file():
                shutil.copyfile(folder / file, temporary / file)
        if data == json.loads((folder / CONFIG_FILE).read_text("utf-8")):
            shutil.copyfile(folder / CONFIG_FILE, temporary / CONFIG_FILE)
        else:
            (temporary / CONFIG_FILE).write_text(json.dumps(data, indent=2) + "\n", "utf-8")
        write_card(temporary, config)
    return to


def _copy_files(source: Path, to: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = to / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


# ---- one file ----------------------------------------------------------------------------------------------


class Header(NamedTuple):
    """Of a safetensors file. text: as it stands there, padding included. data_start: byte of the data."""

    text: str
    entries: dict[str, Any]
    metadata: dict[str, str]
    data_start: int

    @property
    def data_size(self) -> int:
        return max((entry["data_offsets"][1] for entry in self.entries.values()), default=0)


def read_header(path: Path) -> Header:
    """The header of a safetensors file; UserError where it is none, or not as long as it says."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                raise ValueError("its header has no length")
            text = file.read(length).decode("utf-8")
            entries = json.loads(text)
            metadata = entries.pop("__metadata__", {})
            header = Header(text, entries, metadata, 8 + length)
            if path.stat().st_size != header.data_start + header.data_size:
                raise ValueError("it is cut short or too long")
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"'{path}' is no safetensors file, or damaged: {error}") from error
    return header


def pack(folder: Path, to: Path) -> Path:
    """A complete checkpoint folder -> one safetensors file."""
    weights = read_header(folder / WEIGHTS_FILE)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    files.remove(folder / WEIGHTS_FILE)
    entries, end = dict(weights.entries), weights.data_size
    for path in files:
        size = path.stat().st_size
        name = FILE_PREFIX + path.relative_to(folder).as_posix()
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": (folder / CONFIG_FILE).read_text("utf-8"),
        "weights_header": weights.text,
    }
    text = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8, as the library writes them
    if len(text) > MAX_HEADER:
        raise UserError(f"'{folder}' has too many tensors and files for one header")
    with atomic_file(to) as temporary, open(temporary, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        _append(folder / WEIGHTS_FILE, out, start=weights.data_start)
        for path in files:
            _append(path, out)
    return to


def unpack(file: Path, to: Path) -> Path:
    """One file that `pack` wrote -> the checkpoint folder that it was, byte by byte."""
    header = read_header(file)
    if header.metadata.get("format") != FORMAT:
        raise UserError(
            f"'{file}' is no GenTron checkpoint: it has no metadata of `gentron export`; weights alone go"
            " into a checkpoint folder as model.safetensors"
        )
    if header.metadata.get("format_version") != str(FORMAT_VERSION):
        version = header.metadata.get("format_version")
        raise UserError(f"'{file}': format_version must be {FORMAT_VERSION}, got {version!r}")
    stored = {name: entry for name, entry in header.entries.items() if name.startswith(FILE_PREFIX)}
    weights = header.metadata["weights_header"].encode()
    size = header.data_size - sum(end - start for start, end in _spans(stored))
    with atomic_folder(to) as temporary:
        with open(temporary / WEIGHTS_FILE, "wb") as out:
            out.write(len(weights).to_bytes(8, "little") + weights)
            _append(file, out, start=header.data_start, size=size)
        for name, (start, end) in zip(stored, _spans(stored), strict=True):
            path = temporary / _inside(name.removeprefix(FILE_PREFIX), file)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as out:
                _append(file, out, start=header.data_start + start, size=end - start)
        read_header(temporary / WEIGHTS_FILE)
        read_config(temporary)
    return to


def _spans(entries: dict[str, Any]) -> Iterator[tuple[int, int]]:
    return ((entry["data_offsets"][0], entry["data_offsets"][1]) for entry in entries.values())


def _inside(name: str, file: Path) -> str:
    """A relative path that stays in the folder it is unpacked to."""
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts
    if leaves or path.parts == (WEIGHTS_FILE,):
        raise UserError(f"'{file}' is damaged: it holds a file named '{name}'")
    return name


def _append(source: Path, out: BinaryIO, *, start: int = 0, size: int | None = None) -> None:
    with open(source, "rb") as file:
        file.seek(start)
        left = size
        while left is None or left > 0:
            piece = file.read(PIECE if left is None else min(PIECE, left))
            if not piece:
                break
            out.write(piece)
            left = None if left is None else left - len(piece)


# ---- a hub -------------------------------------------------------------------------------------------------


def push(model: str, repo: str, *, checkpoint: Path | None = None, private: bool = True) -> str:
    """Upload a complete checkpoint with its model card to a hub repository; returns its address.

    The only place that writes to a network. The token is huggingface_hub's own (`hf auth login`, HF_TOKEN).
    """
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"--repo must be OWNER/NAME, got '{repo}'")
    folder = find_checkpoint(model, checkpoint=checkpoint)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with TemporaryDirectory() as scratch:
        complete(folder, Path(scratch) / "model")
        api = HfApi()
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            told: Any = api.upload_folder(
                repo_id=repo, folder_path=Path(scratch) / "model", commit_message="Upload a GenTron checkpoint"
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"cannot push to '{repo}': {reason}; log in with `hf auth login`, or set HF_TOKEN"
            ) from error
    return getattr(told, "commit_url", None) or f"https://huggingface.co/{repo}"
