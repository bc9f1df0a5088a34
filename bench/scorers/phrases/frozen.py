"""Tables of parses made once with spaCy and kept: prompt text -> tokens and noun chunks.

They make scores independent of what is installed. Two are shipped (`SHIPPED`), of spaCy 3.6 and 3.8; a third
is the user's own, of the official pin or any other spaCy. A prompt that a table does not hold is an error,
never a guess.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.scorers.phrases import Parse, Token
from bench.scorers.phrases.spacy import is_pinned
from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.hashing import sha256

ENVIRONMENT = "GENTRON_PHRASES"
FILE_NAME = "phrases.json"
SCHEMA_VERSION = 2
TABLES = Path(__file__).parent / "tables"
SHIPPED = ("spacy-3.6", "spacy-3.8")  # the nearest to the official pin, 3.5, first
WAY_ON = (
    "make it with: gentron-bench prompts parse --python PYTHON (of an environment with the pinned spaCy), or"
    f" choose --phrases {', '.join(SHIPPED)} or rules"
)


def table_path() -> Path:
    """The user's own: GENTRON_PHRASES, or phrases.json in the folder of the prompt sets."""
    from bench.prompts.sets import prompts_folder

    if given := os.environ.get(ENVIRONMENT):
        return Path(given).expanduser()
    return prompts_folder() / FILE_NAME


@dataclass(frozen=True, slots=True)
class Table:
    """made_with: versions of spaCy, model and Python, hash of the model.   sha256: of parses and versions."""

    made_with: dict[str, Any]
    parses: Mapping[str, Parse]

    @property
    def sha256(self) -> str:
        fields = [{k: v for k, v in self.made_with.items() if k != "python"}, self._rows()]
        return sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False))

    def _rows(self) -> dict[str, list[str]]:
        return {text: to_row(text, parse) for text, parse in self.parses.items()}

    def write(self, path: Path) -> None:
        """One prompt a line, so that two tables can be compared by eye."""
        lines = [
            f"{json.dumps(text, ensure_ascii=False)}: {json.dumps(row, ensure_ascii=False)}"
            for text, row in sorted(self._rows().items())
        ]
        head = json.dumps(
            {"schema_version": SCHEMA_VERSION, "made_with": self.made_with, "sha256": self.sha256}
        )
        body = head[:-1] + ', "prompts": {\n' + ",\n".join(lines) + "\n}}\n"
        with atomic_file(path) as temporary:
            temporary.write_text(body, encoding="utf-8")


# ---- a row -----------------------------------------------------------------------------------------------


def to_row(text: str, parse: Parse) -> list[str]:
    """[parts of speech, noun chunks as ranges of tokens, lengths of the tokens unless they are the words].

    A token may be followed by one blank, which belongs to none, as in spaCy.
    """
    tokens = [token.text for token in parse.tokens]
    row = [" ".join(token.pos for token in parse.tokens), " ".join(_ranges(text, tokens, parse.chunks))]
    return row if tokens == _words(text) else [*row, " ".join(str(len(token)) for token in tokens)]


def to_parse(text: str, row: list[str]) -> Parse:
    """The inverse of `to_row`; ValueError if the row is not one of this text."""
    parts, ranges, lengths = row if len(row) == 3 else (*row, None)
    tokens = _words(text) if lengths is None else _cut(text, [int(length) for length in lengths.split()])
    starts = _starts(text, tokens)
    chunks = []
    for pair in ranges.split():
        first, last = (int(end) for end in pair.split("-"))
        chunks.append(text[starts[first] : starts[last - 1] + len(tokens[last - 1])])
    pos = parts.split()
    return Parse(tuple(Token(*pair) for pair in zip(tokens, pos, strict=True)), tuple(chunks))


def _words(text: str) -> list[str]:
    return text.split(" ") if text else []


def _cut(text: str, lengths: Iterable[int]) -> list[str]:
    tokens, end = [], 0
    for length in lengths:
        tokens.append(text[end : end + length])
        end += length + (text[end + length : end + length + 1] == " ")
    if end != len(text):
        raise ValueError(f"{end} of {len(text)} characters of '{text}' are tokens")
    return tokens


def _starts(text: str, tokens: Iterable[str]) -> list[int]:
    starts, end = [], 0
    for token in tokens:
        starts.append(text.index(token, end))
        end = starts[-1] + len(token)
    return starts


def _ranges(text: str, tokens: list[str], chunks: Iterable[str]) -> list[str]:
    """The first ranges of tokens, in order, whose texts are these."""
    starts = _starts(text, tokens)
    ends = [start + len(token) for start, token in zip(starts, tokens, strict=True)]
    ranges, place = [], 0
    for chunk in chunks:
        first = next(
            i
            for i in range(place, len(tokens))
            if text.startswith(chunk, starts[i]) and starts[i] + len(chunk) in ends
        )
        place = ends.index(starts[first] + len(chunk)) + 1
        ranges.append(f"{first}-{place}")
    return ranges


# ---- reading ---------------------------------------------------------------------------------------------


def read_table(path: Path) -> Table:
    """UserError if there is no table, if it is not one, or if it was changed after it was made."""
    if not path.is_file():
        raise UserError(f"no table of noun phrases at '{path}'; {WAY_ON}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(f"{path}: schema_version must be {SCHEMA_VERSION}, got {version}; {WAY_ON}")
        table = Table(
            made_with=dict(fields["made_with"]),
            parses={text: to_parse(text, row) for text, row in fields["prompts"].items()},
        )
        pinned = fields["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not a table of noun phrases ({error}); {WAY_ON}") from error
    if table.sha256 != pinned:
        got = f"{table.sha256[:16]}..."
        raise UserError(f"{path}: was changed: sha256 must be {pinned[:16]}..., got {got}; {WAY_ON}")
    return table


@cache
def shipped(name: str) -> Table:
    """A table of `SHIPPED`."""
    return read_table(TABLES / f"{name}.json")


class FrozenSource:
    """Answers from a table.

    name: "frozen" for the user's own, else that of the shipped one.   where: for messages.
    """

    def __init__(self, table: Table, where: Path | str, name: str = "frozen") -> None:
        self.table, self.where, self.name = table, where, name
        self.record: dict[str, Any] = {
            "source": self.name,
            "sha256": table.sha256,
            **{name: value for name, value in table.made_with.items() if name != "python"},
            "pinned": is_pinned(table.made_with),
        }

    def parse(self, text: str) -> Parse:
        if text not in self.table.parses:
            raise UserError(f"{self.where} does not hold '{text}'; {WAY_ON}")
        return self.table.parses[text]

    def check(self, texts: Iterable[str]) -> None:
        """UserError that counts and shows the prompts which the table does not hold."""
        missing = [text for text in texts if text not in self.table.parses]
        if missing:
            shown = ", ".join(f"'{text}'" for text in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise UserError(f"{self.where} does not hold {shown}{more}; {WAY_ON}")
