"""The Fréchet step: its mathematics, every way through it, and the tools people quote."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from bench.set_metrics import frechet
from bench.set_metrics.fid import frechet_infinity, infinity_sizes, label, small_n_warning
from bench.set_metrics.frechet import Moments, checked_moments, frechet_distance, moments, nuclear_norm
from bench.set_metrics.resampling import groups, jackknife_interval
from gentron.errors import UserError
from tests.golden.set_metrics import cases
from tests.parity import Compare

GOLDEN = Path(__file__).parents[2] / "golden" / "set_metrics"


def by_square_root(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, through the principal square root of S1 S2."""
    (m, s), (n, t) = ((a.mean(axis=0), np.cov(a, rowvar=False)) for a in (x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # singular: precise to 1e-7 all the same
        root = np.real(np.trace(scipy.linalg.sqrtm(s @ t)))
    return float(((m - n) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root)


@pytest.mark.parametrize("case", range(len(cases.FRECHET_CASES)))
def test_equals_what_every_tool_says(case: int, parity: Compare) -> None:
    stored = json.loads((GOLDEN / "statistics.json").read_text())["frechet"][case]
    num_images, num_reference, width = cases.FRECHET_CASES[case]
    x, y = cases.features(num_images, width, 1), cases.features(num_reference, width, 2)
    for tool, value in stored.items():
        what = f"{num_images} against {num_reference} features of {width}"
        ours = frechet_distance(x, y)
        parity("Fréchet distance", what, ours, value, against=f"{tool} (stored)", rtol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 200), (200, 20), (200, 150), (24, 24), (25, 25)])
def test_every_way_is_the_definition(n: int, m: int) -> None:
    x, y = cases.features(n, 24, 3), cases.features(m, 24, 4)
    wanted = by_square_root(x, y)
    for a in (x, moments(x)):
        for b in (y, moments(y)):
            assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6)


def test_gaussians_in_closed_form() -> None:
    rng = np.random.RandomState(0)
    rotation = np.linalg.qr(rng.randn(12, 12))[0]
    a, b = rng.rand(12) + 0.1, rng.rand(12) + 0.1  # commuting covariances: the root is sqrt(a b)
    shift = rng.randn(12)
    x = Moments(np.zeros(12), (rotation * a) @ rotation.T, 100)
    y = Moments(shift, (rotation * b) @ rotation.T, 100)
    wanted = shift @ shift + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("n", [10, 30, 100])
def test_a_set_is_nothing_from_itself(n: int) -> None:
    x = cases.features(n, 30, 5)
    assert frechet_distance(x, x.copy()) <= 1e-10 * np.var(x, axis=0).sum()


def test_symmetry_order_scale_and_rotation() -> None:
    x, y = cases.features(30, 40, 6), cases.features(80, 40, 7)
    value = frechet_distance(x, y)
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(x[::-1], y) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-12)
    rotation = np.linalg.qr(np.random.RandomState(1).randn(40, 40))[0]
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(x + 5, y + 5) == pytest.approx(value, rel=1e-10)


def test_float32_features_are_summed_in_float64() -> None:
    x, y = cases.features(300, 16, 6).astype(np.float32), cases.features(200, 16, 7).astype(np.float32)
    far = np.float32(1000)
    wanted = by_square_root((x + far).astype(np.float64), (y + far).astype(np.float64))
    assert frechet_distance(x + far, y + far) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0, 8.0])
def test_nuclear_norm_keeps_its_digits_on_steep_spectra(decay: float) -> None:
    rng = np.random.RandomState(2)
    left, right = (np.linalg.qr(rng.randn(60, 60))[0] for _ in range(2))
    values = (1.0 + np.arange(60)) ** -decay
    matrix = (left * values) @ right
    assert nuclear_norm(matrix) == pytest.approx(values.sum(), rel=1e-11)
    assert nuclear_norm(matrix[:, :40]) == pytest.approx(np.linalg.svd(matrix[:, :40])[1].sum(), rel=1e-10)
    assert nuclear_norm(np.zeros((4, 7))) == 0


def test_steep_spectra_take_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = np.linalg.svd
    monkeypatch.setattr(frechet.np.linalg, "svd", lambda *a, **k: taken.append(1) or real(*a, **k))
    nuclear_norm(np.diag(1.0 / np.arange(1, 9)))
    assert not taken
    nuclear_norm(np.diag(10.0 ** -np.arange(0, 16, 2)))
    assert taken


@pytest.mark.parametrize(("n", "m"), [(12, 15), (12, 90), (90, 80)])
def test_repeated_images_and_dead_features(n: int, m: int) -> None:
    x, y = cases.features(n, 20, 8), cases.features(m, 20, 9)
    x[1:4] = x[0]
    x[:, 3] = y[:, 3] = 0
    y[:, 7] = y[:, 8]
    assert frechet_distance(x, y) == pytest.approx(by_square_root(x, y), rel=1e-6)


def test_two_images_are_enough_and_one_is_not() -> None:
    x, y = cases.features(2, 10, 1), cases.features(2, 10, 2)
    assert frechet_distance(x, y) == pytest.approx(by_square_root(x, y), rel=1e-6)
    with pytest.raises(UserError, match="the images must hold at least 2 images, got 1"):
        frechet_distance(x[:1], y)


def test_rows_that_are_not_finite_are_named() -> None:
    x, y = cases.features(9, 5, 1), cases.features(9, 5, 2)
    x[3, 2], x[7, 0] = np.nan, np.inf
    with pytest.raises(UserError, match="the images are NaN or infinite in 2 of 9 rows: 3, 7$"):
        frechet_distance(x, y)
    with pytest.raises(UserError, match="the reference are NaN"):
        frechet_distance(y, x)
    with pytest.raises(UserError, match=r"as many numbers as the reference's \(4\), got 5"):
        frechet_distance(y, y[:, :4])
    with pytest.raises(UserError, match="must be floats of shape"):
        frechet_distance(np.zeros((3, 3), int), y)


def test_moments_from_elsewhere_are_checked() -> None:
    good = moments(cases.features(9, 3, 1))
    bent = good.covariance.copy()
    bent[0, 1] += 1
    for mean, covariance, count, message in (
        (good.mean, bent, 9, "must be symmetric"),
        (good.mean, -good.covariance, 9, "diagonal >= 0"),
        (good.mean[:2], good.covariance, 9, r"must be \(D,\) and \(D, D\)"),
        (good.mean * np.nan, good.covariance, 9, "must be finite"),
        (good.mean, good.covariance, 1, "at least 2 images"),
    ):
        with pytest.raises(UserError, match=message):
            checked_moments(mean, covariance, count, what="file")
    assert checked_moments(good.mean, good.covariance, 9, what="file").num_images == 9


def test_blocks_do_not_change_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cases.features(50, 6, 1)
    whole = moments(x)
    monkeypatch.setattr(frechet, "BLOCK", 7)
    np.testing.assert_allclose(moments(x).covariance, whole.covariance, rtol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-12)


# ---- extrapolation and intervals --------------------------------------------------------------------------


def gaussian(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randn(count, width)


def test_extrapolation_takes_the_bias_away() -> None:
    reference = Moments(np.zeros(32), np.eye(32), 10**6)  # known exactly: the distance is 0
    at_n = [frechet_distance(gaussian(1000, 32, k), reference) for k in range(6)]
    endless = [frechet_infinity(gaussian(1000, 32, k), reference).value for k in range(6)]
    assert np.mean(at_n) > 0.25
    assert abs(np.mean(endless)) < 0.1 * np.mean(at_n)


def test_extrapolation_is_the_same_for_the_same_seed() -> None:
    x, reference = cases.features(60, 8, 1), moments(cases.features(60, 8, 2))
    first, again = (frechet_infinity(x, reference) for _ in range(2))
    assert first == again and len(first.points) == 15
    assert first.points[-1] == (60, frechet_distance(x, reference))
    assert frechet_infinity(x, reference, seed=1).value != first.value


def test_sizes_of_the_extrapolation() -> None:
    assert infinity_sizes(30_000).tolist()[:2] == [3000, 4928]
    assert infinity_sizes(100_000)[0] == 5000 and infinity_sizes(100_000)[-1] == 100_000
    with pytest.raises(UserError, match="too few"):
        infinity_sizes(12)


@pytest.mark.parametrize(("n", "width"), [(60, 90), (400, 12)])
def test_jackknife_knows_the_spread(n: int, width: int) -> None:
    """The half-width over many draws against the spread of the distance itself, below and above N = D."""
    reference = moments(gaussian(2000, width, 1000) * 1.3)
    values, reaches = [], []
    for k in range(40):
        x = gaussian(n, width, k)
        value = frechet_distance(x, reference)
        low, high = jackknife_interval(value, lambda rows, x=x: frechet_distance(x[rows], reference), n)
        values.append(value)
        reaches.append((high - low) / 2)
    stderr = np.mean(reaches) / 2.262  # t on 9 degrees of freedom
    assert 0.75 < stderr / np.std(values, ddof=1) < 1.5


def test_groups_hold_each_image_once() -> None:
    parts = groups(23, 10)
    assert sorted(np.concatenate(parts).tolist()) == list(range(23))
    assert {len(part) for part in parts} == {2, 3}
    with pytest.raises(ValueError, match="groups must be from 2"):
        groups(5, 10)


def test_names_carry_n_and_small_n_is_warned_of() -> None:
    assert label("fid_clean", 300) == "fid_clean-300"
    assert "only 300 images" in (small_n_warning(300, 50_000) or "")
    assert small_n_warning(30_000, 40_504) is None
