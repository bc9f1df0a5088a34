"""Folders at the root of the repository, for people to read, that an installed bench has too."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

INSIDE = "shipped_files"  # setup.py copies them there, for wheels alone


def shipped_folder(name: str) -> Path:
    """`protocols`, say: the one inside the installed package, or that of the checkout."""
    package = Path(str(files("bench")))
    carried = package / INSIDE
    return (carried if carried.is_dir() else package.parent) / name
