"""KID, CMMD, precision and recall against other implementations and by their mathematics; stored features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.set_metrics import cmmd as cmmd_module
from bench.set_metrics import precision_recall as pr_module
from bench.set_metrics.cmmd import cmmd
from bench.set_metrics.features import ExtractorRecord
from bench.set_metrics.frechet import frechet_distance
from bench.set_metrics.kid import kid, unbiased_mmd2
from bench.set_metrics.precision_recall import precision_recall
from bench.set_metrics.reference import FeatureSet, ImageSet, hash_of_set, read_image_set, write_image_set
from gentron.errors import UserError
from tests.golden.set_metrics import cases
from tests.parity import Compare

GOLDEN = Path(__file__).parents[2] / "golden" / "set_metrics"
STORED = json.loads((GOLDEN / "statistics.json").read_text())


def pair(count: int, reference: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return cases.features(count, width, 1), cases.features(reference, width, 2)


# ---- KID -------------------------------------------------------------------------------------------------


def test_kid_is_torch_fidelitys_subset_by_subset(parity: Compare) -> None:
    x, y = pair(*cases.KERNEL_CASE)
    found = kid(x, y, subsets=cases.KID_SUBSETS, subset_size=cases.KID_SUBSET_SIZE)
    stored, ours = STORED["kid"], [found.mean / 1000, found.spread / 1000]
    theirs = [stored["torch-fidelity mean"], stored["torch-fidelity std"]]
    parity("KID", "mean and spread of subsets", ours, theirs, against="torch-fidelity (stored)", rtol=1e-9)


def test_kid_of_whole_sets_is_torchmetrics(parity: Compare) -> None:
    x, y = pair(*cases.KERNEL_CASE)
    found = kid(x[: len(y)], y, subsets=1, subset_size=len(y))
    stored = STORED["kid"]["torchmetrics whole"]
    parity("KID", "of whole sets", found.mean / 1000, stored, against="torchmetrics (stored)", rtol=1e-9)


def test_kid_is_unbiased_pair_by_pair() -> None:
    x, y = pair(5, 5, 4)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    others = [(i, j) for i in range(5) for j in range(5) if i != j]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in others) / 20
    across = sum(k(a, b) for a in x for b in y) / 25
    assert unbiased_mmd2(x, y) == pytest.approx(within - 2 * across, rel=1e-12)


def test_kid_of_a_set_with_itself_is_below_zero() -> None:
    x = cases.features(60, 8, 1)
    assert kid(x, x, subsets=1, subset_size=60).mean < 0


def test_kid_needs_a_whole_subset() -> None:
    x, y = pair(20, 30, 4)
    with pytest.raises(UserError, match="subsets of 1000 and there are 20 images"):
        kid(x, y)
    with pytest.raises(UserError, match="30 reference images"):
        kid(np.vstack([x, x]), y, subset_size=31)
    with pytest.raises(ValueError, match="subsets must be >= 1"):
        kid(x, y, subsets=0)


# ---- CMMD ------------------------------------------------------------------------------------------------


def test_cmmd_is_the_authors(parity: Compare) -> None:
    stored = json.loads((GOLDEN / "cmmd.json").read_text())["cmmd"]
    ours = cmmd(*pair(*cases.EMBEDDING_CASE))
    parity("CMMD", "from embeddings", ours, stored, against="google-research/cmmd (stored)", rtol=1e-9)


def test_cmmd_by_hand_and_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(9, 7, 5)
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.exp(-((p - q) ** 2).sum() / 200) for p in a for q in b]))

    wanted = 1000 * (mean(u, u) + mean(v, v) - 2 * mean(u, v))
    assert cmmd(x, y) == pytest.approx(wanted, rel=1e-9)
    monkeypatch.setattr(cmmd_module, "BLOCK", 4)
    assert cmmd(x, y) == pytest.approx(wanted, rel=1e-9)
    assert cmmd(5 * x, y) == pytest.approx(wanted, rel=1e-9)  # only directions count
    assert cmmd(x, x) == 0


def test_cmmd_refuses_an_embedding_of_no_length() -> None:
    x, y = pair(4, 4, 3)
    x[2] = 0
    with pytest.raises(UserError, match="embeddings of the images must not be 0: row 2 is"):
        cmmd(x, y)


# ---- precision and recall --------------------------------------------------------------------------------


def test_precision_and_recall_are_torch_fidelitys(parity: Compare) -> None:
    found = precision_recall(*pair(*cases.KERNEL_CASE))
    stored, ours = STORED["precision_recall"], [found.precision, found.recall]
    theirs = [stored["precision"], stored["recall"]]
    parity("Precision, recall", "k = 3", ours, theirs, against="torch-fidelity (stored)", atol=1e-6)


def test_precision_and_recall_by_hand_and_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(40, 30, 3)

    def share(points: np.ndarray, centres: np.ndarray) -> float:
        radii = [np.sort(np.linalg.norm(centres - c, axis=1))[2] for c in centres]
        inside = [
            any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points
        ]
        return float(np.mean(inside))

    wanted = share(x, y), share(y, x)
    assert 0 < min(wanted) and max(wanted) < 1
    assert precision_recall(x, y, neighbours=2) == pytest.approx(wanted, abs=1e-12)
    monkeypatch.setattr(pr_module, "BLOCK", 7)
    assert precision_recall(x, y, neighbours=2) == pytest.approx(wanted, abs=1e-12)


def test_precision_and_recall_at_their_ends() -> None:
    x, y = pair(20, 20, 4)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    # the images are a small part of the reference: all lie in it, and cover little of it
    found = precision_recall(y[:4] * 0.001 + y.mean(axis=0), y)
    assert found.precision == 1 and found.recall < 0.5
    with pytest.raises(UserError, match="at least 4 images, got 3"):
        precision_recall(x[:3], y)


# ---- stored features -------------------------------------------------------------------------------------


def record(**changes: object) -> ExtractorRecord:
    fields = {
        "name": "inception",
        "version": 1,
        "mode": "clean",
        "resize": "words",
        "layer": "pool",
        "num_features": 6,
        "weights": {"inception": "a" * 64},
    }
    return ExtractorRecord(**(fields | changes))  # type: ignore[arg-type]


def image_set(features: np.ndarray, **changes: object) -> ImageSet:
    found = record(num_features=features.shape[1], **changes)
    sets = {found.label: FeatureSet(found, features=features.astype(np.float32))}
    return ImageSet("photos", len(features), hash_of_set(map(str, range(len(features)))), "", sets)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    x, path = cases.features(30, 6, 1), tmp_path / "stats.npz"
    kept = image_set(x)
    for whole in ((), ("inception-clean",)):
        write_image_set(path, kept, whole=whole)
        found = read_image_set(path)
        assert found.reference == kept.reference
        section = found.get(record(), prepared="", needs_features=bool(whole))
        y = cases.features(20, 6, 2)
        assert frechet_distance(y, section.for_frechet) == pytest.approx(frechet_distance(y, x), rel=1e-5)
        assert (section.features is not None) == bool(whole)
    first = path.read_bytes()
    write_image_set(path, kept, whole=("inception-clean",))
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "tf"}, "another mode: expected tf, got clean: not comparable"),
        ({"name": "dinov2", "mode": None}, "another extractor: expected dinov2, got inception-clean"),
        ({"weights": {"inception": "b" * 64}}, "another weights"),
        ({"resize": "others"}, "another resize: expected others, got words"),
        ({"version": 2}, "another version"),
        ({"random_weights": True}, "another random_weights"),
    ],
)
def test_other_features_are_refused_by_the_field(changes: dict[str, object], message: str) -> None:
    kept = image_set(cases.features(30, 6, 1))
    with pytest.raises(UserError, match=message):
        kept.get(record(**changes), prepared="", needs_features=False)


def test_what_a_file_lacks_is_said(tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    write_image_set(path, image_set(cases.features(30, 6, 1)), whole=())
    found = read_image_set(path)
    with pytest.raises(UserError, match="holds mean and covariance of inception-clean only"):
        found.get(record(), prepared="", needs_features=True)
    with pytest.raises(UserError, match="another prepared: expected centre-bicubic-256, got nothing"):
        found.get(record(), prepared="centre-bicubic-256", needs_features=False)
    with pytest.raises(ValueError, match="must end in .npz"):
        write_image_set(tmp_path / "stats.txt", image_set(cases.features(4, 6, 1)), whole=())


def rewrite(path: Path, **changes: np.ndarray | None) -> None:
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files} | changes
    kept: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    np.savez(path, **kept)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    write_image_set(path, image_set(cases.features(30, 6, 1)), whole=("inception-clean",))
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match="is no file of reference statistics"):
        read_image_set(path)
    path.write_bytes(good)
    rewrite(path, **{"inception-clean.features": np.zeros((30, 6), np.float32)})
    with pytest.raises(UserError, match="damaged or was edited"):
        read_image_set(path)
    rewrite(path, **{"inception-clean.features": None})
    with pytest.raises(
        UserError, match="does not hold the arrays that its meta names: inception-clean.features"
    ):
        read_image_set(path)
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))  # as other tools write them
    with pytest.raises(UserError, match="was not written by gentron-bench"):
        read_image_set(path)
    np.savez(path, meta=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="is no file of reference statistics"):
        read_image_set(path)
    with pytest.raises(FileNotFoundError):
        read_image_set(tmp_path / "none.npz")


def test_a_newer_file_asks_for_a_newer_release(tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    write_image_set(path, image_set(cases.features(30, 6, 1)), whole=())
    with np.load(path) as data:
        meta = json.loads(str(data["meta"]))
    rewrite(path, meta=np.array(json.dumps(meta | {"schema_version": 2})))
    with pytest.raises(UserError, match="schema_version 2 is newer than this release"):
        read_image_set(path)
    rewrite(path, meta=np.array(json.dumps(meta | {"more": 1})))
    with pytest.raises(UserError, match="unknown field more"):
        read_image_set(path)


def test_stored_features_that_are_nan_are_named(tmp_path: Path) -> None:
    features = cases.features(30, 6, 1)
    features[4, 1] = np.nan
    path = tmp_path / "stats.npz"
    write_image_set(path, image_set(features), whole=("inception-clean",))
    with pytest.raises(UserError, match="are NaN or infinite in 1 of 30 rows: 4"):
        read_image_set(path)
