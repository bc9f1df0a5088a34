from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from bench.cli import app
from bench.compare.comparison import compare
from bench.compare.effects import higher_is_better
from bench.compare.sets import Unjudged, jackknife
from bench.results.evidence import load
from bench.results.record import SetMetric
from bench.set_metrics.features import ExtractorRecord
from bench.set_metrics.frechet import frechet_distance
from bench.set_metrics.kid import kid
from bench.set_metrics.precision_recall import precision_recall
from bench.set_metrics.reference import FeatureSet, ImageSet, write_image_set
from gentron.errors import UserError
from gentron.hashing import sha256
from tests.bench.compare.measured import write_scores

N, D = 120, 6
RECORD = ExtractorRecord(name="made", version=1, resize="none", layer="last", num_features=D)
RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(200, D)).astype(np.float32)
BEFORE = (REFERENCE[:N] * 1.1 + RNG.normal(0, 0.3, (N, D))).astype(np.float32)


def image_set(name: str, features: np.ndarray) -> ImageSet:
    digest = sha256(features.tobytes())
    return ImageSet(name, len(features), digest, "", {"made": FeatureSet(RECORD, features=features)})


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    write_image_set(tmp_path / "reference.npz", image_set("reference", REFERENCE), whole=["made"])
    return tmp_path / "reference.npz"


def measured(tmp_path: Path, name: str, features: np.ndarray, *, keep: bool = True, **changes: Any) -> Path:
    """A result of four distances of these features, as `gentron-bench fid` writes one."""
    images, file = image_set(name, features), tmp_path / f"{name}.npz"
    write_image_set(file, images, whole=["made"])
    pr = precision_recall(features, REFERENCE)
    values = {
        "fd_made": frechet_distance(features, REFERENCE),
        "kd_made": kid(features, REFERENCE, subset_size=50).mean,
        "precision_made": pr.precision,
        "fd_infinity_made": 1.0,
        **changes,
    }
    settings: dict[str, Any] = {"extractor": "made", "mode": None, "statistic": "Fréchet distance, float64"}
    if keep:
        settings["features"] = file.as_posix()
    metrics = [
        SetMetric(
            name=metric,
            value=value,
            num_images=len(features),
            reference=image_set("reference", REFERENCE).reference,
            settings=settings,
        )
        for metric, value in values.items()
    ]
    system: dict[str, object] = {"images_sha256": images.images_sha256}
    return write_scores(tmp_path / name, {}, name=name, set_metrics=metrics, settings=system)


def by_name(base: Path, other: Path, *references: Path):
    found = compare(load(base), load(other), references=references)
    return {delta.metric: delta for delta in found.deltas}


def test_a_far_set_is_worse_and_the_rest_is_said(tmp_path: Path, reference: Path) -> None:
    far = (BEFORE + 0.8).astype(np.float32)
    found = by_name(measured(tmp_path, "a", BEFORE), measured(tmp_path, "b", far), reference)
    for name in ("fd_made", "kd_made"):
        delta = found[name]
        assert delta.verdict == "worse" and delta.difference > 0
        assert delta.interval and delta.interval[0] < delta.difference < delta.interval[1]
    assert found["precision_made"].difference < 0 and found["precision_made"].p is not None
    assert found["fd_infinity_made"].verdict == "not judged"
    assert "extrapolated from random parts" in found["fd_infinity_made"].note


def test_a_small_change_of_every_image_is_seen_because_images_are_paired(
    tmp_path: Path, reference: Path
) -> None:
    """The same change drowns if the candidate's images are those of other prompts."""
    near = (BEFORE * 1.05).astype(np.float32)
    shuffled = near[np.random.default_rng(1).permutation(N)]
    base = measured(tmp_path, "a", BEFORE)
    paired = by_name(base, measured(tmp_path, "b", near), reference)["fd_made"]
    unpaired = by_name(base, measured(tmp_path, "c", shuffled), reference)["fd_made"]
    assert paired.difference == pytest.approx(unpaired.difference)
    assert paired.interval and unpaired.interval
    assert np.ptp(paired.interval) < np.ptp(unpaired.interval) / 2


def test_the_same_images_are_identical_without_any_features(tmp_path: Path) -> None:
    a = measured(tmp_path, "a", BEFORE, keep=False)
    b = measured(tmp_path, "b", BEFORE, keep=False)
    assert {delta.verdict for delta in by_name(a, b).values()} == {"identical pictures"}


def test_without_features_or_reference_nothing_is_judged(tmp_path: Path, reference: Path) -> None:
    near = (BEFORE + 0.1).astype(np.float32)
    a, b = measured(tmp_path, "a", BEFORE), measured(tmp_path, "b", near)
    delta = by_name(a, b)["fd_made"]
    assert delta.verdict == "not judged" and "was not given with --reference" in delta.note
    assert delta.difference == pytest.approx(delta.candidate - delta.baseline)
    bare = measured(tmp_path, "c", (BEFORE + 0.2).astype(np.float32), keep=False)
    assert "features were not kept (--features FILE)" in by_name(a, bare, reference)["fd_made"].note
    (tmp_path / "b.npz").unlink()
    assert "are not on this machine" in by_name(a, b, reference)["fd_made"].note
    write_image_set(tmp_path / "b.npz", image_set("x", near + 1), whole=["made"])
    assert "the features of other images" in by_name(a, b, reference)["fd_made"].note


def test_a_reference_of_other_pictures_is_not_taken(tmp_path: Path) -> None:
    near = (BEFORE + 0.1).astype(np.float32)
    write_image_set(tmp_path / "r.npz", image_set("reference", REFERENCE + 1), whole=["made"])
    a, b = measured(tmp_path, "a", BEFORE), measured(tmp_path, "b", near)
    assert "was not given" in by_name(a, b, tmp_path / "r.npz")["fd_made"].note


def test_a_value_that_its_features_do_not_give_is_refused(tmp_path: Path, reference: Path) -> None:
    a = measured(tmp_path, "a", BEFORE)
    b = measured(tmp_path, "b", (BEFORE + 0.1).astype(np.float32), fd_made=0.001)
    with pytest.raises(UserError, match="gives fd_made as 0.001, its features give"):
        by_name(a, b, reference)


def test_the_gate_judges_a_distance(tmp_path: Path, reference: Path) -> None:
    a = measured(tmp_path, "a", BEFORE)
    b = measured(tmp_path, "b", (BEFORE + 0.8).astype(np.float32))
    where = ["--baseline", a, "--family", "fd_made", "--tolerance", "fd_made=0.5", "--reference", reference]
    for candidate, code, words in ((b, 1, "regression: fd_made +"), (a, 0, "pass: 1 of 1")):
        done = CliRunner().invoke(app, ["gate", *map(str, where), "--candidate", str(candidate)])
        assert done.exit_code == code, done.output
        assert words in done.stdout


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Where there are as many groups as prompts it is the closed form; images of a prompt stay together."""
    values = np.repeat(np.random.default_rng(0).normal(size=20), 3)
    found = jackknife(0.5, lambda rows: float(values[rows].mean()), 60, block=3)
    stderr = values[::3].std(ddof=1) / math.sqrt(20)
    assert found.stderr == pytest.approx(stderr)
    assert found.p == pytest.approx(2 * stats.t.sf(0.5 / stderr, 19))


def test_differences_that_are_none_are_rarely_found() -> None:
    """60 pairs of sets of one distribution: 5 % plus three standard errors of that share."""
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        common = rng.normal(size=(80, D))
        x, y = (0.2 + 0.9 * common + 0.5 * rng.normal(size=(80, D)) for _ in range(2))
        full = frechet_distance(y, REFERENCE) - frechet_distance(x, REFERENCE)

        def of_rows(rows: np.ndarray, x=x, y=y) -> float:
            return frechet_distance(y[rows], REFERENCE) - frechet_distance(x[rows], REFERENCE)

        found += jackknife(full, of_rows, 80).p <= 0.05
    assert found <= 60 * 0.05 + 3 * math.sqrt(60 * 0.05 * 0.95)


def test_too_few_images_are_not_judged() -> None:
    with pytest.raises(Unjudged, match="4 prompts are too few"):
        jackknife(0.1, lambda rows: float(rows.mean()), 8, block=2)


def test_distances_are_better_small() -> None:
    for name in ("fid_clean", "fd_mini-autoencoder", "kid_tf", "kd_mini-autoencoder", "cmmd", "clip_fid"):
        assert not higher_is_better(name)
    for name in ("precision_inception-clean", "clip_cosine", "color", "fidelity"):
        assert higher_is_better(name)
