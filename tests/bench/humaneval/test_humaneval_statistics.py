"""Intervals, agreement and the sign test against textbook values, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.humaneval.simulate import Truth, draw_votes
from bench.humaneval.statistics import (
    cluster_variance,
    krippendorff_alpha,
    overlaps,
    prompt_bootstrap,
    sign_test,
    two_way_interval,
)


def ratings(*observers: str) -> list[tuple[int, int]]:
    """(unit, value) pairs of rows of observers; * is missing."""
    return [
        (unit, int(value))
        for observer in observers
        for unit, value in enumerate(observer.split())
        if value != "*"
    ]


# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C: nominal .743, ordinal .815
EXAMPLE_C = ratings(
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
)
# the example of Wikipedia's article: nominal .691
EXAMPLE_W = ratings(
    "* * * * * 3 4 1 2 1 1 3 3 * 3",
    "1 * 2 1 3 3 4 3 * * * * * * *",
    "* * 2 1 3 4 4 * 2 1 1 3 3 * 4",
)
# the same 2011 text, example A (binary, two observers): .095
EXAMPLE_A = ratings("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")


def test_alpha_gives_the_textbook_values() -> None:
    assert krippendorff_alpha(EXAMPLE_C) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(EXAMPLE_C, order=[1, 2, 3, 4, 5]) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(EXAMPLE_W) == pytest.approx(0.691, abs=5e-4)
    assert krippendorff_alpha(EXAMPLE_A) == pytest.approx(0.095, abs=5e-4)


def test_alpha_is_one_for_agreement_and_none_where_nothing_can_be_said() -> None:
    assert krippendorff_alpha([(0, "a"), (0, "a"), (1, "b"), (1, "b")]) == 1.0
    assert krippendorff_alpha([(0, "a"), (1, "b")]) is None
    assert krippendorff_alpha([(0, "a"), (0, "a"), (1, "a"), (1, "a")]) is None


def test_alpha_does_not_depend_on_the_order_of_rows() -> None:
    shuffled = [EXAMPLE_C[k] for k in np.random.default_rng(0).permutation(len(EXAMPLE_C))]
    assert krippendorff_alpha(shuffled) == pytest.approx(krippendorff_alpha(EXAMPLE_C) or 0)


def test_ordinal_alpha_forgives_neighbours() -> None:
    near = [(k, v) for k in range(20) for v in (k % 3, min(k % 3 + 1, 2))]
    nominal, ordinal = krippendorff_alpha(near), krippendorff_alpha(near, order=[0, 1, 2])
    assert nominal is not None and ordinal is not None and ordinal > nominal + 0.2


def test_cluster_variance_of_equal_clusters_is_that_of_their_means() -> None:
    values = np.random.default_rng(0).normal(size=(30, 7))
    found, count = cluster_variance(values.ravel(), np.repeat(np.arange(30), 7))
    assert count == 30
    assert found == pytest.approx(values.mean(axis=1).var(ddof=1) / 30)


def test_independent_votes_give_wilsons_interval() -> None:
    votes = (np.random.default_rng(1).uniform(size=4000) < 0.3).astype(float)
    found = two_way_interval(votes, np.arange(4000), np.zeros(4000))
    expected = stats.binomtest(int(votes.sum()), 4000).proportion_ci(method="wilson")
    assert found is not None
    assert found == pytest.approx((expected.low, expected.high), abs=2e-4)


def test_votes_that_all_agree_still_have_an_interval() -> None:
    prompts, raters = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    found = two_way_interval(np.ones(100), prompts, raters)
    assert found is not None and found.high == 1.0 and 0.2 < found.low < 0.9


def test_one_prompt_has_no_interval() -> None:
    assert two_way_interval(np.array([0.0, 1.0]), np.zeros(2), np.arange(2)) is None


def test_raters_are_a_cluster_only_where_they_overlap() -> None:
    prompts = np.arange(6)
    assert not overlaps(prompts, np.zeros(6))
    assert not overlaps(prompts, np.arange(6))
    assert overlaps(prompts, prompts % 2)


def test_an_interval_of_net_preference_mirrors_when_systems_change_places() -> None:
    votes = draw_votes(Truth(win=0.5, draw=0.2, lose=0.3), prompts=30, raters=4, rng=np.random.default_rng(2))
    prompts, raters = np.repeat(np.arange(30), 4), np.tile(np.arange(4), 30)
    one = two_way_interval(votes.ravel().astype(float), prompts, raters, low=-1.0)
    other = two_way_interval(-votes.ravel().astype(float), prompts, raters, low=-1.0)
    assert one is not None and other is not None
    assert one == pytest.approx((-other.high, -other.low))


def test_the_bootstrap_agrees_with_the_clustered_error() -> None:
    votes = draw_votes(
        Truth(win=0.5, draw=0.2, lose=0.3), prompts=200, raters=5, rng=np.random.default_rng(3)
    )
    values, prompts = (votes.ravel() > 0).astype(float), np.repeat(np.arange(200), 5)
    (interval,) = prompt_bootstrap(values[:, None], prompts)
    error = np.sqrt(cluster_variance(values, prompts)[0])
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert prompt_bootstrap(values[:, None], prompts) == [interval]


def test_the_sign_test_counts_prompts_and_drops_ties() -> None:
    net = np.array([1, 1, -1, 1, 0, 0, -1, 1, -1, 1, 1, 1])
    prompts = np.array(list("aaabbccddefg"))
    found = sign_test(net.astype(float), prompts)
    assert (found.for_a, found.tied, found.for_b) == (5, 1, 1)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6)
    assert sign_test(np.zeros(4), np.arange(4)).p == 1.0


def test_drawn_votes_have_the_asked_shares_whatever_the_spread() -> None:
    for prompt_sd, rater_sd in ((0.0, 0.0), (2.0, 0.0), (0.5, 1.0)):
        truth = Truth(win=0.51, draw=0.2, lose=0.29, prompt_sd=prompt_sd, rater_sd=rater_sd)
        votes = draw_votes(truth, prompts=3000, raters=1500, rng=np.random.default_rng(4))
        shares = [(votes == value).mean() for value in (1, 0, -1)]
        assert shares == pytest.approx([0.51, 0.2, 0.29], abs=0.02)


@pytest.mark.parametrize("rater_sd", [0.0, 0.4])
def test_intervals_cover_when_prompts_and_raters_are_correlated(rater_sd: float) -> None:
    truth = Truth(win=0.5, draw=0.2, lose=0.3, prompt_sd=0.7, rater_sd=rater_sd)
    prompts, raters = np.repeat(np.arange(50), 6), np.tile(np.arange(6), 50)
    rng = np.random.default_rng(5)
    repeats = 250
    covered = {"win": 0, "draw": 0, "lose": 0, "net": 0, "prompts alone": 0}
    for _ in range(repeats):
        votes = draw_votes(truth, prompts=50, raters=6, rng=rng).ravel()
        for name, values, true, low in (
            ("win", votes > 0, 0.5, 0.0),
            ("draw", votes == 0, 0.2, 0.0),
            ("lose", votes < 0, 0.3, 0.0),
            ("net", votes, 0.2, -1.0),
        ):
            found = two_way_interval(values.astype(float), prompts, raters, low=low)
            assert found is not None
            covered[name] += found.low <= true <= found.high
        ((low, high),) = prompt_bootstrap((votes > 0)[:, None].astype(float), prompts, resamples=300)
        covered["prompts alone"] += low <= 0.5 <= high
    # at 95 % and 250 repeats, fewer than 226 has a probability of 2e-3
    assert all(covered[name] >= 226 for name in ("win", "draw", "lose", "net")), covered
    if rater_sd:  # why raters are a cluster too
        assert covered["prompts alone"] < 0.85 * repeats, covered
