"""Strict records: what goes out comes back, and a wrong field is named by its path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from gentron.config import from_dict, to_dict


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float
    sizes: tuple[int, ...] = ()
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must be >= 0, got {self.rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    name: str
    mode: Literal["fast", "exact"]
    inner: Inner
    inners: tuple[Inner, ...] = ()
    tags: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    maybe: Inner | None = None
    wide: int | str = 0
    flag: bool = False
    free: Any = None


FULL = Outer(
    name="a",
    mode="exact",
    inner=Inner(rate=0.5, sizes=(1, 2), span=(0.0, 1.0)),
    inners=(Inner(rate=1.0),),
    tags={"x": 1},
    notes=["n"],
    wide="w",
    flag=True,
    free={"anything": [1, None]},
)


def changed(path: str, value: Any) -> dict[str, Any]:
    data = to_dict(FULL)
    *parents, last = path.split(".")
    record = data
    for parent in parents:
        record = record[parent]
    record[last] = value
    return data


def test_a_record_survives_json() -> None:
    assert from_dict(Outer, json.loads(json.dumps(to_dict(FULL)))) == FULL


def test_an_integer_is_a_valid_float() -> None:
    rate = from_dict(Inner, {"rate": 1, "sizes": [], "span": None}).rate
    assert rate == 1.0 and isinstance(rate, float)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("inner.rate", "fast", "inner.rate must be a finite number, got 'fast'"),
        ("inner.rate", float("nan"), "inner.rate must be a finite number, got nan"),
        ("inner.rate", True, "inner.rate must be a finite number, got True"),
        ("inner.sizes", [1, 2.5], "inner.sizes[1] must be an integer, got 2.5"),
        ("inner.span", [0.0], "inner.span must be a list of 2, got [0.0]"),
        ("inner.rat", 1.0, "unknown field inner.rat; known: rate, sizes, span"),
        ("inner.rate", -1.0, "inner: rate must be >= 0, got -1.0"),
        ("inner", 3, "inner must be a mapping of Inner, got 3"),
        ("inners", [{"rate": 1.0}], "missing field inners[0].sizes"),
        ("maybe", {"rate": "x", "sizes": [], "span": None}, "maybe.rate must be a finite number, got 'x'"),
        ("mode", "slow", "mode must be one of ['fast', 'exact'], got 'slow'"),
        ("tags.y", "two", "tags.y must be an integer, got 'two'"),
        ("notes", "n", "notes must be a list, got 'n'"),
        ("wide", 1.5, "wide must be int | str, got 1.5"),
        ("flag", 1, "flag must be true or false, got 1"),
        ("name", None, "name must be a string, got None"),
        ("extra", 1, "unknown field extra"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        from_dict(Outer, changed(path, value))
    assert str(error.value).startswith(message)


def test_a_missing_field_is_refused_even_with_a_default() -> None:
    data = to_dict(FULL)
    del data["inner"]["sizes"]
    with pytest.raises(ValueError, match=r"^missing field model\.inner\.sizes$"):
        from_dict(Outer, data, path="model")


def test_a_value_without_a_json_form_is_refused_by_path() -> None:
    record = Outer(name="a", mode="fast", inner=Inner(rate=0.0), free={"set": {1}})
    with pytest.raises(ValueError, match=r"^free\.set has no JSON form: set$"):
        to_dict(record)
