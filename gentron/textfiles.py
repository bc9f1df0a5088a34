"""One reader for every text file people bring: UTF-8 with or without BOM, LF or CRLF, strict JSON, CSV.

Every error is one UserError with the file and, where there is one, the line. bench reads through this too.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gentron.errors import UserError

DELIMITERS = (",", ";", "\t")
MAX_FIELD = 2**24  # characters of a CSV field; the module's own limit, 131,072, is below a long prompt list


class Row(NamedTuple):
    """A row of a table and the line of the file it begins on, counted from 1."""

    line: int
    values: dict[str, Any]


def decode_text(data: bytes, name: str) -> str:
    """UTF-8 bytes as text without a byte order mark; `name` is what an error calls them."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start}); "
            f"save it as UTF-8"
        ) from None


def read_text(path: Path) -> str:
    """The whole file; its absence is an OSError with the path."""
    return decode_text(path.read_bytes(), str(path))


def split_lines(text: str) -> list[str]:
    """Lines ended by LF or CRLF and nothing else.

    str.splitlines also cuts at U+2028, NEL, form feed and others, which people's captions and JSON contain.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_lines(path: Path) -> list[str]:
    return split_lines(read_text(path))


# ---- JSON --------------------------------------------------------------------------------------------------


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond any float")
    return number


def parse_json(text: str, where: str) -> Any:
    """Strict JSON: no key twice, no NaN or Infinity, no half of a surrogate pair. where: file and line."""
    try:
        value = json.loads(
            text, object_pairs_hook=_no_duplicates, parse_constant=_refuse, parse_float=_finite
        )
        if "\\u" in text:  # half a pair is no text: it could be written nowhere
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = f" in line {error.lineno}" if "\n" in text.strip() else ""
        raise UserError(f"{where}: not JSON: {error.msg} at column {error.colno}{line}") from None
    except RecursionError:
        raise UserError(f"{where}: not JSON that can be read: nested too deeply") from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: not JSON that can be read: half of a surrogate pair") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON that can be read: {error}") from None
    return value


def read_json(path: Path) -> Any:
    return parse_json(read_text(path), str(path))


def read_jsonl(path: Path) -> Iterator[Row]:
    """Each line that is not blank, as an object."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        value = parse_json(line, f"{path}:{number}")
        if not isinstance(value, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, got {line[:80]!r}")
        yield Row(number, value)


# ---- CSV ---------------------------------------------------------------------------------------------------


def parse_csv(text: str, where: str, *, delimiter: str | None = None) -> Iterator[Row]:
    """Rows by the names of the header; delimiter: the one the header has most of (comma, semicolon, tab).

    A row with more fields than the header, or a header with a name twice, is an error; missing fields at the
    end of a row are "".
    """
    header_line = text[: text.find("\n")] if "\n" in text else text
    delimiter = delimiter or max(DELIMITERS, key=header_line.count)
    limit = csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header: list[str] | None = None
        begin = 1
        for fields in reader:
            line, begin = begin, reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = _header(fields, f"{where}:{line}")
                continue
            if len(fields) > len(header):
                raise UserError(
                    f"{where}:{line}: expected at most {len(header)} fields as in the header, "
                    f"got {len(fields)}; put a field that holds {delimiter!r} into quotes"
                )
            yield Row(line, dict(zip(header, fields + [""] * (len(header) - len(fields)), strict=True)))
    except csv.Error as error:
        raise UserError(f"{where}:{reader.line_num}: not CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _header(fields: list[str], where: str) -> list[str]:
    names = [field.strip() for field in fields]
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{where}: the column {name!r} stands in the header twice")
    return names


def read_csv(path: Path, *, delimiter: str | None = None) -> Iterator[Row]:
    return parse_csv(read_text(path), str(path), delimiter=delimiter)
