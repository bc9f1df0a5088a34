"""Noun phrases and parts of speech of prompts, from one of three sources that are never mixed.

frozen   a table made once with the spaCy that the official evaluator pins (`gentron-bench prompts parse`)
spacy    spaCy itself, where it is installed
rules    our own rule-based parser, for machines without spaCy: its phrases are not always spaCy's

A result names its source; scores with different sources do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Token:
    """text: as written.   pos: coarse universal part of speech, as spaCy's `pos_`: NOUN, PROPN, ADJ, ..."""

    text: str
    pos: str


@dataclass(frozen=True, slots=True)
class Parse:
    """chunks: the texts of spaCy's `noun_chunks`, in order, none left out."""

    tokens: tuple[Token, ...]
    chunks: tuple[str, ...]


class PhraseSource(Protocol):
    """record: what a result says of it: source, versions, hashes."""

    name: str
    record: dict[str, Any]

    def parse(self, text: str) -> Parse:
        """UserError for a text that the source cannot answer for."""
        ...


KINDS = ("frozen", "spacy", "rules")


def phrase_source(
    kind: str = "auto", *, table: Path | None = None, texts: Sequence[str] | None = None
) -> PhraseSource:
    """The one source of a run.

    kind: "frozen", "spacy", "rules"; or "auto", the first of them that can answer here: a frozen table if it
    is there and holds all of `texts`, spaCy if it is the pinned one, else the rules.
    table: the frozen table, if not where `bench.scorers.phrases.frozen.table_path` says.
    texts: all that will be asked: a frozen table without one of them is refused at once.
    """
    from bench.scorers.phrases.frozen import FrozenSource, read_table, table_path
    from bench.scorers.phrases.rules import RulesSource
    from bench.scorers.phrases.spacy import is_available, live

    path = table_path() if table is None else table
    if kind == "auto":
        kind = _first_that_can(path, texts, is_available)
    if kind == "frozen":
        source = FrozenSource(read_table(path), path)
        source.check(texts or ())
        return source
    if kind == "spacy":
        return live()
    if kind == "rules":
        return RulesSource()
    raise ValueError(f"phrases must be auto, {', '.join(KINDS)}, got '{kind}'")


def _first_that_can(path: Path, texts: Sequence[str] | None, spacy_runs: Callable[[], bool]) -> str:
    """A table that is there but broken is chosen all the same: its error is for a person to see."""
    from bench.scorers.phrases.frozen import read_table

    if path.is_file() and (texts is None or set(texts) <= set(read_table(path).parses)):
        return "frozen"
    return "spacy" if spacy_runs() else "rules"
