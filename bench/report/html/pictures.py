"""Pictures of a result, found on this machine, checked, made small and embedded. Decides which are shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.report.entries import Found
from bench.results.record import ScoreLine
from gentron.hashing import sha256

if TYPE_CHECKING:
    from bench.systems.samples import SampleRecord

MAX_SIDE = 256  # pixels of an embedded picture
MAX_PNG = 16_000  # bytes; a larger one is embedded as JPEG
QUALITY = 88
MAX_BYTES = 16_000_000  # of pictures in one page
Key = tuple[str, int]  # prompt id, sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An embedded picture. uri: data:..., holding it.   width, height: of what is embedded."""

    uri: str
    width: int
    height: int


@dataclass(slots=True)
class Album:
    """The pictures of one result, read when they are asked for.

    folder: that holds them, None if they are not here.   absent: why not, for the reader.
    trouble: lines of a score whose picture could not be shown, by reason.
    """

    folder: Path | None
    absent: str
    records: dict[Key, SampleRecord] = field(default_factory=dict)
    trouble: dict[str, int] = field(default_factory=dict)
    read: dict[Key, Picture | None] = field(default_factory=dict)

    def picture(self, line: ScoreLine) -> Picture | None:
        """The picture that was scored, byte for byte, of a clip its frames side by side; None if it is not
        here."""
        key = (line.prompt_id, line.sample)
        if key not in self.read:
            self.read[key] = self._embed(line)
        return self.read[key]

    def _embed(self, line: ScoreLine) -> Picture | None:
        from bench.systems.images import BadImage, side_by_side
        from bench.systems.samples import read_frames

        try:
            record = self.records.get((line.prompt_id, line.sample)) or _record_by_name(line)
            if self.folder is None or any(self._path(each.file) is None for each in record.files):
                raise BadImage("missing")
            if record.sha256 != line.image_sha256:
                raise BadImage("changed since it was scored")
            frames = [frame.pixels for frame in read_frames(self.folder, record)]
        except (BadImage, OSError, ValueError) as error:  # ValueError: an id that is no file name
            reason = str(error) if isinstance(error, BadImage) else "unreadable"
            if reason.startswith("changed"):  # also since it was made, for it was scored then
                reason = "changed since it was scored"
            self.trouble[reason] = self.trouble.get(reason, 0) + 1
            return None
        return embed(frames[0] if len(frames) == 1 else side_by_side(np.stack(frames)))

    def _path(self, file: str) -> Path | None:
        """Where the picture is: as the manifest says, inside the folder unless it was made elsewhere."""
        if self.folder is None:
            return None
        path = self.folder / file
        if Path(file).is_absolute() or path.resolve().is_relative_to(self.folder.resolve()):
            return path
        return None


def album(found: Found) -> Album:
    """Where the pictures of a result are, or why they are not here."""
    said = found.result.provenance.images
    if found.scores is None:
        return Album(None, f"no scores.csv beside {found.path.name}, so its pictures are not known")
    if said is None:
        return Album(None, "the result does not say where its pictures were kept")
    if any(line.image_sha256 is None for line in found.scores):
        return Album(None, "scores.csv has no hashes of the pictures, so they cannot be checked")
    folder = _folder(said, found.path)
    if folder is None:
        return Album(None, f"the pictures are not on this machine: they were kept in {said}")
    return Album(folder, "", _manifest(folder))


def _folder(said: str, path: Path) -> Path | None:
    """As it was said; a relative one from here, else from a folder above the result (its checkout)."""
    places = (
        [Path(said)]
        if Path(said).is_absolute()
        else [Path(said), *(up / said for up in path.resolve().parents)]
    )
    return next((place for place in places if place.is_dir()), None)


def _record_by_name(line: ScoreLine) -> SampleRecord:
    """Of a picture that no manifest names."""
    from bench.systems.samples import MediaFile, SampleRecord

    file = MediaFile(f"images/{line.prompt_id}_{line.sample:02d}.png", line.image_sha256)
    return SampleRecord(prompt_id=line.prompt_id, sample=line.sample, seed=-1, files=(file,))


def _manifest(folder: Path) -> dict[Key, SampleRecord]:
    from bench.systems.samples import read_manifest

    try:
        return read_manifest(folder)
    except (TypeError, ValueError, KeyError, OSError):
        return {}  # of another version: the names are known without it


def embed(image) -> Picture:
    """(H, W, 3) uint8 -> a data URI, at most MAX_SIDE pixels along a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    kind, data = "png", _encoded(picture, "PNG", optimize=True)
    if len(data) > MAX_PNG:
        kind, data = "jpeg", _encoded(picture, "JPEG", quality=QUALITY)
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(uri=uri, width=picture.width, height=picture.height)


def _encoded(picture, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# ---- which ones ------------------------------------------------------------------------------------------


def shuffled_place(line: ScoreLine) -> str:
    """A place in an order that has nothing to do with scores, and is the same for every system."""
    return sha256(f"{line.prompt_id}/{line.sample}")


@dataclass(frozen=True, slots=True)
class Shown:
    line: ScoreLine
    picture: Picture


def pick(lines: Sequence[ScoreLine], album: Album, count: int) -> dict[str, list[Shown]]:
    """`count` worst, best and random lines that have a picture; none twice, ties in a shuffled order."""
    taken: set[Key] = set()
    orders = {
        "lowest": sorted(lines, key=lambda line: (line.score, shuffled_place(line))),
        "highest": sorted(lines, key=lambda line: (-line.score, shuffled_place(line))),
        "random": sorted(lines, key=shuffled_place),
    }
    return {name: _first(order, album, count, taken) for name, order in orders.items()}


def _first(lines: Iterable[ScoreLine], album: Album, count: int, taken: set[Key]) -> list[Shown]:
    shown: list[Shown] = []
    tries = 0
    for line in lines:
        if len(shown) == count or tries == 10 * count:  # a folder that was emptied is not read to its end
            break
        if (line.prompt_id, line.sample) in taken:
            continue
        tries += 1
        if picture := album.picture(line):
            taken.add((line.prompt_id, line.sample))
            shown.append(Shown(line, picture))
    return shown


def common(albums: Sequence[tuple[Sequence[ScoreLine], Album]], count: int) -> list[list[Shown]]:
    """Up to `count` random prompts that every system was scored on: a row a prompt, a picture a system."""
    tables = [{(line.prompt_id, line.sample): line for line in lines} for lines, _ in albums]
    rows: list[list[Shown]] = []
    keys = set.intersection(*(set(table) for table in tables)) if tables else set()
    for first in sorted((tables[0][key] for key in keys), key=shuffled_place)[: 10 * count]:
        key = (first.prompt_id, first.sample)
        if len(rows) == count:
            break
        row = [
            Shown(table[key], picture)
            for table, (_, album) in zip(tables, albums, strict=True)
            if (picture := album.picture(table[key]))
        ]
        if len(row) == len(tables):
            rows.append(row)
    return rows
