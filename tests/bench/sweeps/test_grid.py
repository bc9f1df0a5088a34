"""Values of a sweep as people write them; the Pareto front."""

from __future__ import annotations

import pytest

from bench.sweeps.grid import MINI_LAMBDA_M, Cell, cells, pareto_front, parse_values


def test_ranges_hold_both_ends_and_round_numbers() -> None:
    assert parse_values("1.0:1.3:0.05", name="lambda_m") == [1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]
    assert parse_values("2, 0.5:1:0.25,1", name="lambda_m") == [0.5, 0.75, 1.0, 2.0]
    assert len(parse_values(MINI_LAMBDA_M, name="lambda_m")) == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nan", "lambda_m must be finite and >= 0, got nan"),
        ("-1", "lambda_m must be finite and >= 0, got -1"),
        ("inf", "finite"),
        ("a", "must be numbers and ranges start:stop:step, got 'a'"),
        ("", "got ''"),
        ("1:2", "got '1:2'"),
        ("1:2:0", "start <= stop and step > 0"),
        ("2:1:0.1", "start <= stop"),
        ("0:1:0.000001", "at most 100 values, got 1000001"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_values(text, name="lambda_m")


def test_the_base_comes_first_and_is_always_there() -> None:
    assert cells([1.3, 0.0], [2.0, 1.0]) == [
        *(Cell(2.0, 1.0), Cell(2.0, 0.0), Cell(2.0, 1.3)),
        *(Cell(1.0, 1.0), Cell(1.0, 0.0), Cell(1.0, 1.3)),
    ]


def test_pareto_front() -> None:
    """The corner and both ends of a staircase; a point under it, and one beaten in one alone, are not."""
    assert pareto_front([(0, 3), (2, 2), (3, 0), (1, 1), (2, 1)]) == [0, 1, 2]
    assert pareto_front([(1, 1), (1, 1)]) == [0, 1]
    assert pareto_front([]) == []
