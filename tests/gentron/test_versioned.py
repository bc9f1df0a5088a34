from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from gentron.errors import UserError
from gentron.hashing import file_sha256, json_sha256, sha256
from gentron.versioned import StoredFormat


@dataclass(frozen=True, kw_only=True)
class Note:
    schema_version: int = 3
    kind: str = "note"
    text: str
    tags: list[str]


def _tags(data: dict) -> dict:
    """Version 1 had one tag."""
    return {**{k: v for k, v in data.items() if k != "tag"}, "tags": [data["tag"]]}


def _text(data: dict) -> dict:
    return {**data, "text": data["text"].strip()}


NOTES = StoredFormat(record=Note, what="note", version=3, upgrades={1: _tags, 2: _text}, kind="note")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    note = Note(text="a", tags=["b"])
    (tmp_path / "note.json").write_bytes(NOTES.dump(note))
    assert NOTES.read(tmp_path / "note.json") == note


def test_older_versions_go_through_every_step() -> None:
    old = {"schema_version": 1, "kind": "note", "text": " a ", "tag": "b"}
    assert NOTES.parse(json.dumps(old).encode(), "f") == Note(text="a", tags=["b"])
    middle = {"schema_version": 2, "kind": "note", "text": " a ", "tags": []}
    assert NOTES.parse(json.dumps(middle).encode(), "f") == Note(text="a", tags=[])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "f.json is damaged: "),
        ("\xff", "f.json is damaged: "),
        ("[" * 100_000, "f.json is damaged: "),
        ("[]", "f.json is not a note: its kind is None"),
        ('{"kind": "other"}', "f.json is not a note: its kind is 'other'"),
        ('{"kind": "note", "schema_version": 4}', "f.json: schema_version 4 is newer than this release"),
        ('{"kind": "note", "schema_version": 0}', "f.json: schema_version must be 1 to 3, got 0"),
        ('{"kind": "note", "schema_version": true}', "f.json: schema_version must be 1 to 3, got True"),
        ('{"kind": "note"}', "f.json: schema_version must be 1 to 3, got None"),
        ('{"kind": "note", "schema_version": 1}', "f.json is not a note: 'tag'"),
        ('{"kind": "note", "schema_version": 3, "text": "a"}', "f.json: missing field tags"),
        ('{"kind": "note", "schema_version": 3, "text": 1, "tags": []}', "f.json: text must be a string"),
        (
            '{"kind": "note", "schema_version": 3, "text": "a", "tags": [], "x": 1}',
            "f.json: unknown field x",
        ),
    ],
)
def test_anything_else_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        NOTES.parse(text.encode("latin-1"), "f.json")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_hashes_name_content(tmp_path: Path) -> None:
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256("abc") == sha256(b"abc") == file_sha256(tmp_path / "abc") == abc
    assert json_sha256({"b": 1, "a": [None]}) == json_sha256({"a": [None], "b": 1}) != json_sha256({})
