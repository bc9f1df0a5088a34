"""A table of parses made once with spaCy and kept: prompt text -> tokens and noun chunks.

It makes scores independent of what is installed. A prompt that it does not hold is an error, never a guess.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.scorers.phrases import Parse
from bench.scorers.phrases.spacy import is_pinned, to_parse
from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.hashing import sha256

ENVIRONMENT = "GENTRON_PHRASES"
FILE_NAME = "phrases.json"
SCHEMA_VERSION = 1
WAY_ON = "make it with: gentron-bench prompts parse (where the pinned spaCy is), or choose --phrases rules"


def table_path() -> Path:
    """GENTRON_PHRASES, or phrases.json in the folder of the prompt sets."""
    from bench.prompts.sets import prompts_folder

    if given := os.environ.get(ENVIRONMENT):
        return Path(given).expanduser()
    return prompts_folder() / FILE_NAME


@dataclass(frozen=True, slots=True)
class Table:
    """made_with: versions of spaCy, its model and Python.   sha256: of parses and versions."""

    made_with: dict[str, Any]
    parses: Mapping[str, Parse]

    @property
    def sha256(self) -> str:
        fields = [{k: v for k, v in self.made_with.items() if k != "python"}, self._prompts()]
        return sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False))

    def _prompts(self) -> dict[str, Any]:
        return {
            text: {"tokens": [[t.text, t.pos] for t in parse.tokens], "chunks": list(parse.chunks)}
            for text, parse in self.parses.items()
        }

    def write(self, path: Path) -> None:
        """One prompt a line, so that two tables can be compared by eye."""
        lines = [
            f"{json.dumps(text, ensure_ascii=False)}: {json.dumps(fields, ensure_ascii=False)}"
            for text, fields in sorted(self._prompts().items())
        ]
        head = json.dumps(
            {"schema_version": SCHEMA_VERSION, "made_with": self.made_with, "sha256": self.sha256}
        )
        body = head[:-1] + ', "prompts": {\n' + ",\n".join(lines) + "\n}}\n"
        with atomic_file(path) as temporary:
            temporary.write_text(body, encoding="utf-8")


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
            parses={text: to_parse(parse) for text, parse in fields["prompts"].items()},
        )
        pinned = fields["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a table of noun phrases ({error}); {WAY_ON}") from error
    if table.sha256 != pinned:
        got = f"{table.sha256[:16]}..."
        raise UserError(f"{path}: was changed: sha256 must be {pinned[:16]}..., got {got}; {WAY_ON}")
    return table


class FrozenSource:
    """Answers from a table."""

    name = "frozen"

    def __init__(self, table: Table, path: Path) -> None:
        self.table, self.path = table, path
        self.record: dict[str, Any] = {
            "source": self.name,
            "sha256": table.sha256,
            **{name: value for name, value in table.made_with.items() if name != "python"},
            "pinned": is_pinned(table.made_with),
        }

    def parse(self, text: str) -> Parse:
        if text not in self.table.parses:
            raise UserError(f"{self.path} does not hold '{text}'; {WAY_ON}")
        return self.table.parses[text]

    def check(self, texts: Iterable[str]) -> None:
        """UserError that counts and shows the prompts which the table does not hold."""
        missing = [text for text in texts if text not in self.table.parses]
        if missing:
            shown = ", ".join(f"'{text}'" for text in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise UserError(f"{self.path} does not hold {shown}{more}; {WAY_ON}")
