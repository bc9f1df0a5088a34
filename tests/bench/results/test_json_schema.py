"""The committed JSON Schema is the dataclasses', and accepts just what the reader accepts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from bench.results.record import Result, dump_result, read_result
from bench.results.schema import dump_schema, result_schema, schema_of, schema_path
from gentron.config import from_dict, to_dict
from tests.bench.results.made_results import make_result

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[3]
COMMITTED = sorted(ROOT.glob("results/*/*/*/result.json")) + sorted(ROOT.glob("results/reference/*.json"))


def errors(data: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(result_schema())
    return [error.json_path for error in validator.iter_errors(data)]


def written() -> dict[str, Any]:
    return json.loads(dump_result(make_result(limit=4, skip=["complex"])))


def test_the_committed_schema_is_the_dataclasses() -> None:
    committed = schema_path().read_text("utf-8")
    assert committed == dump_schema(), (
        f"run: python -m bench.results.schema > {schema_path().relative_to(ROOT)}"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


def test_what_is_written_validates() -> None:
    assert errors(written()) == []


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "/".join(path.parts[-4:]))
def test_every_committed_result_validates_once_it_is_read(path: Path) -> None:
    assert errors(to_dict(read_result(path))) == []


def remove(data: dict[str, Any]) -> None:
    del data["provenance"]["date"]


def add(data: dict[str, Any]) -> None:
    data["system"]["colour"] = "red"


def mistype(data: dict[str, Any]) -> None:
    data["metrics"][0]["score"]["mean"] = "0.9"


def shorten(data: dict[str, Any]) -> None:
    data["metrics"][0]["score"]["interval"] = [0.1]


def truth_for_a_count(data: dict[str, Any]) -> None:
    data["counts"]["missing"] = True


def nothing_for_text(data: dict[str, Any]) -> None:
    data["protocol"] = None


@pytest.mark.parametrize("edit", [remove, add, mistype, shorten, truth_for_a_count, nothing_for_text])
def test_schema_and_reader_refuse_the_same(edit: Any) -> None:
    data = written()
    assert from_dict(Result, data)
    edit(data)
    assert errors(data)
    with pytest.raises(ValueError):
        from_dict(Result, data)


def test_another_version_is_refused() -> None:
    assert errors({**written(), "schema_version": 1}) == ["$.schema_version"]


@dataclass(frozen=True)
class Leaf:
    kind: Literal["a", "b"]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    leaves: list[Leaf]
    extra: dict[str, Any]
    below: Tree | None


def test_every_annotation_that_configs_know_has_a_schema() -> None:
    schema = schema_of(Tree)
    good = {"leaves": [{"kind": "a", "sizes": [1, 2]}], "extra": {"x": [1]}, "below": None}
    jsonschema.validate({**good, "below": good}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, "leaves": [{"kind": "c", "sizes": []}]}, schema)


def test_an_annotation_without_a_json_form_is_an_error() -> None:
    @dataclass(frozen=True)
    class Odd:
        at: complex

    with pytest.raises(ValueError, match="no JSON Schema for the annotation"):
        schema_of(Odd)
