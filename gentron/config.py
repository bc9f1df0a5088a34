"""Frozen dataclasses <-> plain dicts, strictly: a wrong field is an error that names its dotted path."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def to_dict(cfg: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON-able values; nested dataclasses become dicts and tuples lists."""
    if not dataclasses.is_dataclass(cfg) or isinstance(cfg, type):
        raise ValueError(f"to_dict needs a dataclass instance, got {type(cfg).__name__}")
    return {field.name: _plain(getattr(cfg, field.name), field.name) for field in dataclasses.fields(cfg)}


def _plain(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{path}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _plain(item, f"{path}.{key}") for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{path} has no JSON form: {type(value).__name__}")


def from_dict(cls: type[T], data: Any, *, path: str = "") -> T:
    """The dataclass that `data` describes, field by field.

    Every field must be there, also those with a default: a stored config is complete, and a silent
    default would change an old checkpoint's meaning. Raises ValueError that names the dotted path of
    the first unknown, missing or ill-typed field, or of the record whose own checks refuse its values.
    """
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"from_dict needs a dataclass type, got {cls!r}")
    where = path or cls.__name__
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be a mapping of {cls.__name__}, got {_show(data)}")
    hints = _hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    _check_names(names, data, path)
    values = {name: _typed(hints[name], data[name], _join(path, name)) for name in names}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Resolving them takes longer than reading a record, and a file can hold thousands."""
    return typing.get_type_hints(cls)


def _check_names(names: list[str], data: dict[Any, Any], path: str) -> None:
    for key in data:
        if key not in names:
            raise ValueError(f"unknown field {_join(path, str(key))}; known: {', '.join(names)}")
    for name in names:
        if name not in data:
            raise ValueError(f"missing field {_join(path, name)}")


def _typed(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type, lists as tuples where the annotation says so."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path=path)
    if origin is typing.Literal:
        return _literal(hint, value, path)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, path)
    if hint is tuple or origin is tuple:
        return _tuple(hint, value, path)
    if hint is list or origin is list:
        _require(isinstance(value, list | tuple), "a list", value, path)
        (item,) = typing.get_args(hint) or (Any,)
        return [_typed(item, element, f"{path}[{i}]") for i, element in enumerate(value)]
    if hint is dict or origin is dict:
        return _mapping(hint, value, path)
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if hint in (None, type(None)):
        _require(value is None, "null", value, path)
        return None
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        _require(is_number and math.isfinite(value), "a finite number", value, path)
        return float(value)
    if hint is int:
        _require(isinstance(value, int) and not isinstance(value, bool), "an integer", value, path)
        return value
    if hint in (bool, str):
        _require(isinstance(value, hint), "true or false" if hint is bool else "a string", value, path)
        return value
    raise ValueError(f"{path} has an annotation that configs do not support: {hint!r}")


def _literal(hint: Any, value: Any, path: str) -> Any:
    for choice in typing.get_args(hint):
        if type(choice) is type(value) and choice == value:
            return choice
    raise ValueError(f"{path} must be one of {list(typing.get_args(hint))}, got {_show(value)}")


def _union(hint: Any, value: Any, path: str) -> Any:
    members = typing.get_args(hint)
    if value is None and type(None) in members:
        return None
    others = [member for member in members if member is not type(None)]
    errors: list[ValueError] = []
    for member in others:
        try:
            return _typed(member, value, path)
        except ValueError as error:
            errors.append(error)
    if len(others) == 1:  # Optional[X]: what is wrong with X says more than "no member fits"
        raise errors[0]
    raise ValueError(f"{path} must be {hint}, got {_show(value)}")


def _tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
    _require(isinstance(value, list | tuple), "a list", value, path)
    members = typing.get_args(hint)
    if not members:
        return tuple(value)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    _require(len(members) == len(value), f"a list of {len(members)}", value, path)
    return tuple(
        _typed(member, element, f"{path}[{i}]")
        for i, (member, element) in enumerate(zip(members, value, strict=True))
    )


def _mapping(hint: Any, value: Any, path: str) -> dict[str, Any]:
    _require(isinstance(value, dict), "a mapping", value, path)
    _, item = typing.get_args(hint) or (str, Any)
    for key in value:
        _require(isinstance(key, str), "a mapping with string keys", value, path)
    return {key: _typed(item, element, f"{path}.{key}") for key, element in value.items()}


def _require(holds: bool, expected: str, value: Any, path: str) -> None:
    if not holds:
        raise ValueError(f"{path} must be {expected}, got {_show(value)}")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
