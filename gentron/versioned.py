"""Stored JSON that may grow: each file says its version, and each version has a way to the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from gentron import textfiles
from gentron.config import from_dict, to_dict
from gentron.errors import UserError

T = TypeVar("T")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]  # the fields of one version -> those of the next


@dataclass(frozen=True, kw_only=True)
class StoredFormat(Generic[T]):
    """A kind of JSON file.

    what: in words, for messages.   version: that is written.   upgrades: from each older version to the next.
    kind: value of the field "kind", where files of several kinds could be taken for each other.
    """

    record: type[T]
    what: str
    version: int
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)
    kind: str | None = None
    name: str = "schema_version"

    def dump(self, record: T) -> bytes:
        return (json.dumps(to_dict(record), indent=1) + "\n").encode()

    def read(self, path: Path) -> T:
        return self.parse(path.read_bytes(), str(path))

    def parse(self, data: bytes, where: str) -> T:
        """The record in these bytes; UserError that begins with `where` for anything else."""
        value = parse_json(data, where)
        if self.kind is not None and (found := _get(value, "kind")) != self.kind:
            raise UserError(f"{where} is not a {self.what}: its kind is {found!r}")
        try:
            return from_dict(self.record, self.upgraded(value, where))
        except (KeyError, TypeError, AttributeError) as error:  # of an upgrade that met something else
            raise UserError(f"{where} is not a {self.what}: {error}") from error
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error

    def upgraded(self, value: Any, where: str) -> Any:
        """The fields as this version has them; UserError for a version that is newer or unknown."""
        version = _get(value, self.name)
        if type(version) is int and version > self.version:  # not True, which is an int
            raise UserError(
                f"{where}: {self.name} {version} is newer than this release, which reads up to"
                f" {self.version}: install a newer one"
            )
        if type(version) is not int or version not in (*self.upgrades, self.version):
            least = min([*self.upgrades, self.version])
            known = f"{least} to {self.version}" if least < self.version else str(self.version)
            raise UserError(f"{where}: {self.name} must be {known}, got {version!r}")
        while version != self.version:
            value = self.upgrades[version](value)
            version += 1
        return {**value, self.name: self.version}


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def parse_json(data: bytes, where: str) -> Any:
    """The value of a file that a program wrote; UserError naming `where` if the bytes are damaged."""
    try:
        return textfiles.parse_json(textfiles.decode_text(data, "line"), "")
    except UserError as error:
        raise UserError(f"{where} is damaged: {str(error).removeprefix(': ')}") from error
