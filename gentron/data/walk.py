"""The files of a data set's folder: links followed once, what systems leave behind passed over."""

from __future__ import annotations

import os
from pathlib import Path

LEFT_BEHIND = ("__macosx", "@eadir", "thumbs.db", "desktop.ini", "lost+found")


def is_left_behind(name: str) -> bool:
    """Hidden files (AppleDouble's ._a.png, .DS_Store, .ipynb_checkpoints) and what archivers and NAS add."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def walk_files(folder: Path) -> list[Path]:
    """All files below, sorted by their path. A folder that is reached twice, by a link, counts once.

    Broken links are among them: their names are told when they cannot be read.
    """
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    later: list[Path] = []  # links to folders: real folders first, so that a link never takes their place

    def visit(place: Path) -> None:
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if is_left_behind(entry.name):
                    continue
                path = place / entry.name
                if not entry.is_dir():
                    files.append(path)
                elif entry.is_symlink():
                    later.append(path)
                else:
                    visit(path)

    visit(folder)
    while later:
        visit(later.pop(0))
    return sorted(files)
