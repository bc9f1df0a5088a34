"""Files of rows, one JSON object a line: appended as each is known, whole again after any kill."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.systems.images import write_atomic


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
