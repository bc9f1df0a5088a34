"""Rows that papers published, as data with their source; read strictly. No torch here.

The files are in results/published, which the wheel carries, so that an installed bench has them too. A row
carries the protocol (evaluator version) that it was made with, and shows up only beside results of that very
protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.shipped import shipped_folder
from gentron.config import from_dict
from gentron.errors import UserError

Certainty = Literal["certain", "likely", "unknown"]
SCALES = {"percent": 100.0, "fraction": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    title: str
    authors: str
    venue: str
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluator:
    """Which protocol the numbers were made with, how sure that is, and why."""

    protocol: str | None
    certainty: Certainty
    why: str

    def __post_init__(self) -> None:
        if (self.protocol is None) != (self.certainty == "unknown"):
            raise ValueError(
                f"certainty must be 'unknown' just where protocol is null, got '{self.certainty}'"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLists:
    """editions: by category, the list that was used where it is not today's."""

    editions: dict[str, str]
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row as printed, in the table's unit."""

    system: str
    settings: dict[str, str]
    values: dict[str, float]
    mean: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """A file of results/published."""

    id: str
    paper: Paper
    table: str
    transcription: str
    """How the digits came here."""
    evaluator: Evaluator
    prompts: PromptLists
    unknown: list[str]
    """What the paper does not say and would have to, for the numbers to be comparable."""
    unit: Literal["percent", "fraction", "as named"]
    rows: list[Row]

    def __post_init__(self) -> None:
        if self.evaluator.protocol is None:
            return
        if self.unit not in SCALES:
            raise ValueError(f"unit must be one of {', '.join(SCALES)} in a table with a protocol")
        for row in self.rows:
            for category, value in row.values.items():
                if not 0 <= value <= SCALES[self.unit]:
                    raise ValueError(f"{row.system}, {category}: {value} is no score in {self.unit}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Of the answers to one question, in percent."""

    win: float
    draw: float
    lose: float

    def __post_init__(self) -> None:
        if abs(self.win + self.draw + self.lose - 100) > 0.15:  # three figures of one decimal each
            raise ValueError(f"win, draw and lose must add up to 100, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """a against b, as people saw them."""

    a: str
    b: str
    prompts: str
    num_responses: int
    questions: dict[str, Shares]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedStudy:
    id: str
    paper: Paper
    table: str
    transcription: str
    evaluator: Evaluator
    prompts: PromptLists
    unknown: list[str]
    unit: Literal["percent"]
    study: Study


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """A row ready to stand beside results: scores as fractions, with where they are from.

    certainty: of the protocol.   editions: prompt lists other than today's, by category.
    """

    protocol: str
    system: str
    settings: dict[str, str]
    scores: dict[str, float]
    mean: float | None
    decimals: int
    """That the source gives, of the fraction."""
    paper: str
    tables: tuple[str, ...]
    certainty: Certainty
    why: str
    editions: dict[str, str]


def published_folder() -> Path:
    return shipped_folder("results/published")


def _read(path: Path) -> PublishedTable | PublishedStudy:
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = PublishedStudy if isinstance(data, dict) and "study" in data else PublishedTable
        found = from_dict(kind, data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    if found.id != path.stem:
        raise UserError(f"{path}: id must be '{path.stem}', got '{found.id}'")
    return found


def read_all(folder: Path | None = None) -> list[PublishedTable | PublishedStudy]:
    """Every file of results/published, by name; UserError that names the file and field of what is wrong."""
    return [_read(path) for path in sorted((folder or published_folder()).glob("*.yaml"))]


def tables(folder: Path | None = None) -> list[PublishedTable]:
    return [found for found in read_all(folder) if isinstance(found, PublishedTable)]


def studies(folder: Path | None = None) -> list[PublishedStudy]:
    """Human pairwise studies."""
    return [found for found in read_all(folder) if isinstance(found, PublishedStudy)]


def rows_for(protocol: str, folder: Path | None = None) -> list[PublishedRow]:
    """The rows that may stand beside results of this protocol, and no others.

    A row that two tables share is given once, with the names of both.
    """
    found: dict[tuple[Any, ...], PublishedRow] = {}
    for table in tables(folder):
        if table.evaluator.protocol != protocol:
            continue
        for row in table.rows:
            ready = _ready(table, row, protocol)
            key = (row.system, *sorted(ready.scores.items()))
            known = found.get(key)
            found[key] = replace(known, tables=known.tables + ready.tables) if known else ready
    return list(found.values())


def _ready(table: PublishedTable, row: Row, protocol: str) -> PublishedRow:
    scale = SCALES[table.unit]
    return PublishedRow(
        protocol=protocol,
        system=row.system,
        settings=row.settings,
        scores={category: round(value / scale, 6) for category, value in row.values.items()},
        mean=None if row.mean is None else round(row.mean / scale, 6),
        decimals=4,  # percent with two decimals, fractions with four: the same
        paper=f"{table.paper.authors}, {table.paper.venue}, {table.paper.id}",
        tables=(table.table,),
        certainty=table.evaluator.certainty,
        why=table.evaluator.why,
        editions=table.prompts.editions,
    )
