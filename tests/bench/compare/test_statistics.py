from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bench.compare.statistics import (
    detectable_drop,
    holm,
    holm_levels,
    interval,
    intervals,
    minimum_detectable_effect,
    power_of,
    prompts_needed,
    sign_flip_p,
    spread,
)

RNG = np.random.default_rng(0)
DENSE = RNG.normal(-0.02, 0.3, 120)


# ---- closed forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sd", "expected"), [(0.15, 0.024), (0.25, 0.040), (0.35, 0.057)])
def test_minimum_detectable_effect_of_300_prompts(sd: float, expected: float) -> None:
    assert round(minimum_detectable_effect(sd, 300), 3) == expected


def test_power_at_the_minimum_detectable_effect_is_the_stated_one() -> None:
    for power in (0.5, 0.8, 0.95):
        effect = minimum_detectable_effect(0.3, 77, power=power)
        assert power_of(effect, 0.3, 77) == pytest.approx(power, abs=1e-12)
        assert power_of(-effect, 0.3, 77) == pytest.approx(power, abs=1e-12)


def test_prompts_needed_inverts_it() -> None:
    needed = prompts_needed(0.04, 0.25)
    assert minimum_detectable_effect(0.25, needed) <= 0.04 < minimum_detectable_effect(0.25, needed - 1)


def test_a_gate_can_find_no_drop_within_its_tolerance() -> None:
    for tolerance in (0.0, 0.01, 0.1, 0.3):
        assert (detectable_drop(DENSE, 0.07, tolerance=tolerance) or 0) > max(tolerance, 0.07)
    assert detectable_drop(np.zeros(50), 0.07, tolerance=0.02) is None


def test_a_drop_brings_spread_of_its_own() -> None:
    """Prompts that fail outright: found as often as stated only because the statement reckons with it."""
    rng = np.random.default_rng(0)
    before = rng.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.8, 0.1])
    reach = interval(before)[1] - before.mean()
    stated = detectable_drop(before, reach, tolerance=0)
    naive = minimum_detectable_effect(float(before.std(ddof=1)), 300)
    assert stated is not None and naive * 1.1 < stated < naive * 1.5


def test_spread_in_closed_form() -> None:
    found = spread([0.0, 1.0, 0.0, 1.0])
    assert (found.mean, found.num_prompts, found.num_differ) == (0.5, 4, 2)
    assert found.sd == pytest.approx(math.sqrt(1 / 3)) and found.stderr == pytest.approx(math.sqrt(1 / 12))
    assert spread([0.3]).stderr is None


# ---- sign flips ------------------------------------------------------------------------------------------


def every_swap(values: list[float]) -> float:
    """The definition, by enumeration."""
    observed = abs(sum(values))
    swaps = list(itertools.product((1, -1), repeat=len(values)))
    return sum(
        abs(sum(s * v for s, v in zip(swap, values, strict=True))) >= observed - 1e-12 for swap in swaps
    ) / len(swaps)


@pytest.mark.parametrize(
    "values", [[1.0], [1, 1, 1, 1, 1], [0.5, -0.25, 1, 1, -1, 0.125], [0.1, 0.2, 0.3, 0.4, -0.9, 0.7, 0.7]]
)
def test_few_prompts_are_tested_exactly(values: list[float]) -> None:
    assert sign_flip_p(values) == pytest.approx(every_swap(values))
    assert sign_flip_p([0.0, *values, 0.0]) == pytest.approx(every_swap(values))


def test_scipy_agrees_on_many_prompts() -> None:
    reference = stats.permutation_test(
        (DENSE, np.zeros_like(DENSE)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    assert sign_flip_p(DENSE) == pytest.approx(reference.pvalue, abs=0.02)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_p(np.zeros(50)) == 1.0
    assert sign_flip_p([0.5, -0.5]) == 1.0


def test_p_is_never_zero_and_knows_no_direction() -> None:
    clear = np.full(100, 0.3)
    assert 0 < sign_flip_p(clear) < 0.001
    assert sign_flip_p(DENSE) == sign_flip_p(-DENSE)


# ---- Holm ------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_levels_are_those_at_which_holm_rejects() -> None:
    for _ in range(50):
        p_values = {str(k): float(p) for k, p in enumerate(RNG.beta(0.3, 3, 6))}
        adjusted, levels = holm(p_values), holm_levels(p_values)
        for name, p in p_values.items():
            assert (adjusted[name] <= 0.05) == (p <= 1 - levels[name] + 1e-15)
            assert 0.95 <= levels[name] <= 1 - 0.05 / 6 + 1e-15


# ---- intervals -------------------------------------------------------------------------------------------


def test_interval_is_close_to_student_where_nothing_is_skewed() -> None:
    t = stats.t.interval(0.95, len(DENSE) - 1, DENSE.mean(), stats.sem(DENSE))
    low, high = interval(DENSE)
    assert low <= t[0] + 1e-12 and high >= t[1] - 1e-12
    assert high - low < 1.08 * (t[1] - t[0])


def test_higher_levels_are_wider() -> None:
    found = intervals(DENSE, [0.8, 0.95, 0.99, 0.999])
    widths = [high - low for low, high in found]
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_interval_follows_skew() -> None:
    skewed = -(RNG.random(200) < 0.12).astype(float)
    low, high = interval(skewed)
    assert skewed.mean() - low > high - skewed.mean()


def test_nothing_seen_is_not_certainty() -> None:
    """The rule of three: of N prompts without a change, a share of 3 / N may still have one."""
    for count in (20, 50, 300):
        low, high = interval(np.zeros(count))
        assert low == pytest.approx(-high)
        assert 2.5 / count < high < 4.5 / count


def test_same_seed_same_numbers() -> None:
    assert interval(DENSE, seed=3) == interval(DENSE, seed=3)
    assert sign_flip_p(DENSE, seed=3) == sign_flip_p(DENSE, seed=3)
    assert interval(DENSE, seed=3) != interval(DENSE, seed=4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = interval(DENSE), sign_flip_p(DENSE)
    monkeypatch.setattr("bench.compare.statistics.CHUNK", 10_000)
    parts = interval(DENSE), sign_flip_p(DENSE)
    assert parts == whole


def test_constant_differences_have_no_width() -> None:
    low, high = interval(np.full(40, -0.25))
    assert low == pytest.approx(-0.25) and high == pytest.approx(-0.25)


# draw of n differences, true mean
SHAPES = {
    "normal": (lambda rng, n: rng.normal(-0.03, 0.25, n), -0.03),
    "right or wrong": (lambda rng, n: (rng.random(n) < 0.83) * 1.0 - (rng.random(n) < 0.88), -0.05),
    "one-sided 5 %": (lambda rng, n: -1.0 * (rng.random(n) < 0.05), -0.05),
    "one-sided 10 %": (lambda rng, n: -1.0 * (rng.random(n) < 0.10), -0.10),
    "rare": (lambda rng, n: rng.choice([-1.0, 1.0, 0.0], n, p=[0.03, 0.01, 0.96]), -0.02),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [20, 100])
def test_intervals_cover_at_their_level(shape: str, count: int) -> None:
    """300 of them: 95 % less three standard errors of that share. Full size: docs/simulations.md."""
    draw, truth = SHAPES[shape]
    rng = np.random.default_rng([count, *shape.encode()])
    ends = [interval(draw(rng, count), resamples=400, seed=k) for k in range(300)]
    covered = np.mean([low <= truth + 1e-12 and truth - 1e-12 <= high for low, high in ends])
    assert covered >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


def test_percentile_intervals_would_not_cover() -> None:
    """The reason for the work: the plain bootstrap misses one-sided losses at 20 prompts."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        values = -1.0 * (rng.random(20) < 0.05)
        drawn = values[rng.integers(0, 20, (400, 20))].mean(axis=1)
        missed += not np.quantile(drawn, 0.025) <= -0.05 <= np.quantile(drawn, 0.975)
    assert missed / 300 > 0.2


# ---- bad input -------------------------------------------------------------------------------------------


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="must be finite, got nan"):
        interval([0.1, math.nan])
    with pytest.raises(ValueError, match="one number a prompt"):
        sign_flip_p([])
    with pytest.raises(ValueError, match="at least 2 prompts, got 1"):
        interval([0.1])
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        interval([0.1, 0.2], level=95)
    with pytest.raises(ValueError, match="sd >= 0"):
        minimum_detectable_effect(-1, 300)
    with pytest.raises(ValueError, match="effect must not be 0"):
        prompts_needed(0, 0.3)
