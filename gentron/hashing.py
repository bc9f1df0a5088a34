"""sha256, in hex, of what is named by its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256(data: bytes | str) -> str:
    """Of bytes, or of a text in UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def file_sha256(path: Path) -> str:
    """Of a whole file, however large; an absent one is an OSError with its path."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Of a value that JSON can hold, whatever the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True))
