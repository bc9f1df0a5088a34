"""Images made elsewhere: a folder with a manifest, or with files named by prompt.

manifest.jsonl: one object a line with "file" (relative to the folder) and either "prompt_id" or "prompt" (the
text), and "sample" where there are several images of a prompt (default: in order). manifest.json, as
`gentron sample` writes it, holds the same rows in a list "images".
Without either: <prompt id>_<sample>.png, <prompt text>_<number>.png as T2I-CompBench names them (sorted by
that number), or <prompt text>.png; jpg, jpeg and webp too.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.systems import Request, SystemInfo, SystemOptions, safe_name
from gentron.errors import UserError
from gentron.hashing import sha256

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MANIFEST = "manifest.jsonl"
SAMPLE_MANIFEST = "manifest.json"  # of `gentron sample`


class FolderSystem:
    """Finds images by prompt id or text; never writes."""

    def __init__(self, folder: Path, options: SystemOptions) -> None:
        options.refuse(
            "images made elsewhere",
            *("num_inference_steps", "guidance_scale", "sampler", "batch_size"),
            *("random_weights", "checkpoint", "image_size"),
        )
        if not folder.is_dir():
            raise UserError(f"no folder '{folder}': give one with images as folder:DIR")
        self._folder = folder
        self._files = _find_files(folder)
        if not self._files:
            raise UserError(f"no images in '{folder}': expected {MANIFEST} or files named by prompt or id")
        listing = json.dumps({key: [path.name for path in paths] for key, paths in self._files.items()})
        name = safe_name(folder.resolve().name)
        self.info = SystemInfo(
            kind="folder",
            name=name,
            weights_sha256=None,
            untrained=False,
            settings={"folder": name, "listing_sha256": sha256(listing.encode())},
            device="none",
        )

    def find(self, request: Request) -> Path:
        for key in (request.prompt_id, _key(request.text)):
            paths = self._files.get(key, [])
            if request.sample < len(paths):
                return paths[request.sample]
        return self._folder / f"{request.id}.png"


def _key(text: str) -> str:
    """Prompts are compared without case, surrounding space and final full stop."""
    return text.strip().rstrip(".").lower()


def _from_names(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[tuple[int, str, Path]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        text, underscore, number = path.stem.rpartition("_")
        if not underscore:
            text, number = path.stem, "0"
        place = int(number) if re.fullmatch(r"\d{1,18}", number) else 0
        found[_key(text)].append((place, path.name, path))
    return {key: [path for _, _, path in sorted(entries)] for key, entries in found.items()}


def _find_files(folder: Path) -> dict[str, list[Path]]:
    if (folder / MANIFEST).is_file():
        lines = _read(folder / MANIFEST).splitlines()
        places = [(f"{folder / MANIFEST}, line {k}", line) for k, line in enumerate(lines, 1) if line.strip()]
        return _from_rows(folder, [_row(_parse(line, where), where) for where, line in places])
    path = folder / SAMPLE_MANIFEST
    if path.is_file():
        data = _parse(_read(path), str(path))
        images = data.get("images") if isinstance(data, dict) else None
        if not isinstance(images, list):
            raise UserError(f'{path} must hold a list "images"')
        return _from_rows(folder, [_row(row, f"{path}, image {k}") for k, row in enumerate(images)])
    return _from_names(folder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error


def _from_rows(folder: Path, rows: list[dict[str, Any]]) -> dict[str, list[Path]]:
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for row in rows:
        key = row["prompt_id"] if isinstance(row.get("prompt_id"), str) else _key(row["prompt"])
        sample = row.get("sample", len(found[key]))
        found[key][sample] = folder / row["file"]
    return {key: _dense(paths, folder) for key, paths in found.items()}


def _dense(paths: dict[int, Path], folder: Path) -> list[Path]:
    """By sample index; a hole is a file that does not exist."""
    return [paths.get(k, folder / "missing") for k in range(max(paths) + 1)]


def _row(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or "\0" in row["file"]:
        raise UserError(f'{where} must be an object with "file" and "prompt_id" or "prompt"')
    if not any(isinstance(row.get(name), str) for name in ("prompt_id", "prompt")):
        raise UserError(f'{where} must have "prompt_id" or "prompt"')
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or not 0 <= sample < 100_000:
        raise UserError(f"{where}: sample must be an integer from 0, got {sample!r}")
    return row
