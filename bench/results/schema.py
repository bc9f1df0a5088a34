"""The JSON Schema of result.json, from the very dataclasses that are written and read.

`python -m bench.results.schema` prints it; the committed copy is bench/results/result-<version>.schema.json.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.results.record import SCHEMA_VERSION, Result

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", None: "null"}


def schema_of(cls: type) -> dict[str, Any]:
    """The schema of a dataclass as to_dict writes it: every field required, no other allowed."""
    records: dict[str, Any] = {}
    root = _schema(cls, records)
    return {"$schema": DIALECT, **root, "$defs": dict(sorted(records.items()))}


def _record(cls: type, records: dict[str, Any]) -> dict[str, Any]:
    """A reference to the record's schema, which is added to `records` when it is met first."""
    if cls.__name__ not in records:
        records[cls.__name__] = {}  # so that a record may hold itself
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        fields = {name: _schema(hints[name], records) for name in names}
        records[cls.__name__] = {
            "type": "object",
            "properties": fields,
            "required": names,
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _schema(hint: Any, records: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type, hint), records)
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(arg, records) for arg in args]}
    if origin is list:
        return {"type": "array", "items": _schema(args[0], records)}
    if origin is tuple:
        return _tuple(args, records)
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], records)}
    if hint in SCALARS:
        return {"type": SCALARS[hint]}
    raise ValueError(f"no JSON Schema for the annotation {hint!r}")


def _tuple(args: tuple[Any, ...], records: dict[str, Any]) -> dict[str, Any]:
    if len(args) == 2 and args[1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0], records)}
    items = [_schema(arg, records) for arg in args]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def result_schema() -> dict[str, Any]:
    """The schema of today's result.json."""
    schema = schema_of(Result)
    schema["$defs"]["Result"]["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": schema.pop("$schema"),
        "title": f"gentron-bench result, version {SCHEMA_VERSION}",
        **schema,
    }


def schema_path(version: int = SCHEMA_VERSION) -> Path:
    """The committed schema of a version: package data."""
    return Path(str(files("bench"))) / "results" / f"result-{version}.schema.json"


def dump_schema() -> str:
    return json.dumps(result_schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(dump_schema(), end="")
