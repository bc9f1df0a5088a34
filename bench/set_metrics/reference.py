"""Features of a set of images in a file, whole or as mean and covariance: what a set is measured against.

An .npz of plain arrays, read without pickle. `meta` is JSON that says what each array is; `sha256` is of
`meta` and of all arrays, so that a damaged or edited file is noticed. One file may hold a set's features from
several extractors.
"""

# N images, D numbers of a feature

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.results.record import ReferenceRecord
from bench.set_metrics import check_features
from bench.set_metrics.features import ExtractorRecord
from bench.set_metrics.frechet import Moments, checked_moments, moments
from gentron.atomic import atomic_file
from gentron.config import to_dict
from gentron.errors import UserError
from gentron.hashing import sha256
from gentron.versioned import StoredFormat

SCHEMA_VERSION = 1


class FeatureSet:
    """What one extractor makes of a set: features (N, D) float32, or only their moments."""

    def __init__(
        self, record: ExtractorRecord, *, features: np.ndarray | None = None, summary: Moments | None = None
    ) -> None:
        assert (features is None) != (summary is None)
        self.record, self.features, self._summary = record, features, summary

    @cached_property
    def moments(self) -> Moments:
        if self._summary is not None:
            return self._summary
        assert self.features is not None
        return moments(self.features, what=self.record.label)

    @property
    def for_frechet(self) -> np.ndarray | Moments:
        """The form in which the distance is cheapest and most precise."""
        if self.features is None or len(self.features) > self.features.shape[1]:
            return self.moments
        return self.features


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set of images as extractors see it.

    id: where it comes from, in words.   images_sha256: of the sorted hashes of the image files.
    prepared: what was done to the images before any extractor saw them.   sets: by the extractor's label.
    """

    id: str
    num_images: int
    images_sha256: str
    prepared: str
    sets: Mapping[str, FeatureSet]

    @property
    def reference(self) -> ReferenceRecord:
        return ReferenceRecord(id=self.id, sha256=self.images_sha256, num_images=self.num_images)

    def get(self, record: ExtractorRecord, *, prepared: str, needs_features: bool) -> FeatureSet:
        """The features of this very extractor; UserError that names the first field that is another."""
        found = self.sets.get(record.label)
        if found is None:
            same = next((s.record for s in self.sets.values() if s.record.name == record.name), None)
            if same is not None:
                raise UserError(_differs(self.id, "mode", record.mode, same.mode))
            held = ", ".join(self.sets)
            raise UserError(_differs(self.id, "extractor", record.label, held))
        wanted, got = to_dict(record), to_dict(found.record)
        for name in wanted:
            if wanted[name] != got[name]:
                raise UserError(_differs(self.id, name, wanted[name], got[name]))
        if prepared != self.prepared:
            raise UserError(_differs(self.id, "prepared", prepared or "nothing", self.prepared or "nothing"))
        if needs_features and found.features is None:
            raise UserError(
                f"'{self.id}' holds mean and covariance of {record.label} only, and this metric needs every"
                " image's features: make the file again from the images with all metrics named in --metrics"
            )
        return found


def _differs(where: str, name: str, wanted: Any, got: Any) -> str:
    return f"the reference '{where}' is of another {name}: expected {wanted}, got {got}: not comparable"


def hash_of_set(digests: Iterable[str]) -> str:
    """sha256 of the sorted hashes of image files: the same for any order and any names."""
    return sha256("\n".join(sorted(digests)))


# ---- the file --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    extractor: ExtractorRecord
    kind: Literal["features", "moments"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meta:
    schema_version: int
    id: str
    num_images: int
    images_sha256: str
    prepared: str
    sections: dict[str, _Section]


META = StoredFormat(record=_Meta, what="file of reference statistics", version=SCHEMA_VERSION)
ARRAYS = {"features": ("features",), "moments": ("mean", "covariance")}


def _content_hash(meta: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def write_image_set(path: Path, image_set: ImageSet, *, whole: Iterable[str]) -> None:
    """Write the file, whole or not at all.

    whole: labels of the extractors whose features are kept; of the others only mean and covariance, which
    take less space at large N.
    """
    if path.suffix != ".npz":
        raise ValueError(f"'{path}' must end in .npz")
    sections, arrays = {}, {}
    for label, found in image_set.sets.items():
        keeps = label in set(whole) and found.features is not None
        sections[label] = _Section(extractor=found.record, kind="features" if keeps else "moments")
        if keeps:
            arrays[f"{label}.features"] = np.asarray(found.features)
        else:
            arrays[f"{label}.mean"] = found.moments.mean
            arrays[f"{label}.covariance"] = found.moments.covariance
    meta = _Meta(
        schema_version=SCHEMA_VERSION,
        id=image_set.id,
        num_images=image_set.num_images,
        images_sha256=image_set.images_sha256,
        prepared=image_set.prepared,
        sections=sections,
    )
    text = json.dumps(to_dict(meta), sort_keys=True)
    content = {"meta": np.array(text), "sha256": np.array(_content_hash(text, arrays)), **arrays}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)


def read_image_set(path: Path) -> ImageSet:
    """The inverse of `write_image_set`; UserError that says what is wrong with any other file."""
    try:
        # opened here: np.load leaves the file of a broken archive open
        with path.open("rb") as file:
            data = np.load(file, allow_pickle=False)
            if isinstance(data, np.ndarray):
                raise ValueError("it is a single array")
            names = set(data.files)
            if "meta" not in names:
                raise UserError(
                    f"'{path}' was not written by gentron-bench: it does not say extractor, mode and number"
                    " of images; make it from the images with --save-reference"
                )
            arrays = {name: data[name] for name in names}
    except FileNotFoundError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError) as error:
        raise UserError(f"'{path}' is no file of reference statistics: {error}") from error
    text = str(arrays.pop("meta"))
    meta = _read_meta(path, text)
    stored = str(arrays.pop("sha256", ""))
    expected = {f"{label}.{a}" for label, section in meta.sections.items() for a in ARRAYS[section.kind]}
    if set(arrays) != expected:
        difference = ", ".join(sorted(set(arrays) ^ expected))
        raise UserError(f"'{path}' does not hold the arrays that its meta names: {difference}")
    if _content_hash(text, arrays) != stored:
        raise UserError(f"'{path}' is damaged or was edited: its content does not have the sha256 it carries")
    sets = {label: _read_section(path, label, meta, arrays) for label in meta.sections}
    return ImageSet(meta.id, meta.num_images, meta.images_sha256, meta.prepared, sets)


def _read_meta(path: Path, text: str) -> _Meta:
    return META.parse(text.encode(), f"'{path}'")


def _read_section(path: Path, label: str, meta: _Meta, arrays: Mapping[str, np.ndarray]) -> FeatureSet:
    section = meta.sections[label]
    record, what = section.extractor, f"'{path}' ({label})"
    if section.kind == "moments":
        summary = checked_moments(
            arrays[f"{label}.mean"], arrays[f"{label}.covariance"], meta.num_images, what=what
        )
        shape: tuple[int, ...] = summary.mean.shape
        found = FeatureSet(record, summary=summary)
    else:
        features = check_features(arrays[f"{label}.features"], what=what)
        shape = features.shape[1:]
        if len(features) != meta.num_images:
            raise UserError(f"{what} must hold features of {meta.num_images} images, got {len(features)}")
        found = FeatureSet(record, features=features)
    if shape != (record.num_features,):
        raise UserError(f"{what} must hold {record.num_features} numbers a feature, got {shape[0]}")
    return found
