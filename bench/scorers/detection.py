"""What a detector says of a picture, and the cache that keeps it: several scorers read the same detections.

A file of detections is named by all that shapes it (network, weights, labels, precision, version of the code)
and by the hash of the image file, so that no old one can be taken for a new one. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.scorers import ScorerRecord
from gentron.atomic import atomic_file
from gentron.config import from_dict, to_dict
from gentron.hashing import json_sha256

if TYPE_CHECKING:
    import numpy as np

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Detection:
    """One object. box: x1, y1, x2, y2 in pixels of the resized picture.   score: in (0.1, 1)."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True, kw_only=True, slots=True)
class Detections:
    """The objects of a picture in descending score; iterating gives them.

    size: width and height of the resized picture that the boxes refer to.   precision: what the network ran
    in.   note: why that is not what was asked for, empty if it is.
    """

    found: tuple[Detection, ...]
    size: tuple[int, int]
    precision: str
    note: str = ""

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


class Detector(Protocol):
    """Finds objects in one picture at a time."""

    @property
    def record(self) -> ScorerRecord:
        """Weights and settings, for the record of the scorer that uses it."""
        ...

    def detect(self, image: np.ndarray, digest: str) -> Detections:
        """image: (H, W, 3) uint8 RGB.   digest: sha256 of its file."""
        ...


@dataclass(frozen=True, slots=True)
class CachedDetector:
    """A detector that looks at a picture once.

    look: the network.   folder: where its detections lie, None to keep none; its subfolders are named by
    `record`, so one folder serves all detectors.
    """

    record: ScorerRecord
    look: Callable[[np.ndarray], Detections]
    folder: Path | None

    def path(self, digest: str) -> Path | None:
        """The file that holds the detections of the picture with this sha256."""
        return None if self.folder is None else cache_path(self.folder, self.record, digest, "json")

    def detect(self, image: np.ndarray, digest: str) -> Detections:
        path = self.path(digest)
        known = None if path is None else read_detections(path, digest)
        if known is not None:
            return known
        seen = self.look(image)
        if path is not None:
            write_detections(path, digest, seen)
        return seen


def cache_path(folder: Path, record: ScorerRecord, digest: str, suffix: str) -> Path:
    """folder/<name>-<hash of the record>/<digest>.<suffix>, two characters of the digest as a folder between.

    digest: sha256 of an image file; ValueError for anything else, which could name another place.
    """
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"digest must be a sha256 in hexadecimal digits, got {digest!r}")
    return folder / f"{record.name}-{record.digest}" / digest[:2] / f"{digest}.{suffix}"


def write_detections(path: Path, digest: str, seen: Detections) -> None:
    """A whole file or none; its own hash is in it, so that a damaged one is noticed."""
    body = {"image_sha256": digest, **to_dict(seen)}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps({"sha256": _hash(body), **body}, ensure_ascii=False) + "\n", "utf-8")


def read_detections(path: Path, digest: str) -> Detections | None:
    """What `write_detections` kept; None if nothing is there or it is damaged: then look again."""
    try:
        body: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if body.pop("sha256") != _hash(body) or body.pop("image_sha256") != digest:
            return None
        return from_dict(Detections, body)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hash(body: dict[str, Any]) -> str:
    return json_sha256(body)
