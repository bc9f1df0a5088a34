"""Noun phrases and parts of speech of prompts, from one of several sources that are never mixed.

frozen      the user's own table, made once (`gentron-bench prompts parse`), as by the spaCy that the official
            evaluator pins
spacy-3.6   a table that comes with this package, of all official prompts by spaCy 3.6: the nearest to the pin
spacy-3.8   another one, by spaCy 3.8
spacy       spaCy itself, where it is installed (the extra `phrases`)
rules       our own rule-based parser, for other prompts and machines: an approximation of spaCy

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
    """name: a kind, see `KINDS`.   record: what a result says of it: source, versions, hashes."""

    name: str
    record: dict[str, Any]

    def parse(self, text: str) -> Parse:
        """UserError for a text that the source cannot answer for."""
        ...


AUTO, FROZEN, SPACY, RULES = "auto", "frozen", "spacy", "rules"
KINDS = (FROZEN, "spacy-3.6", "spacy-3.8", SPACY, RULES)


def phrase_source(
    kind: str = AUTO, *, table: Path | None = None, texts: Sequence[str] | None = None
) -> PhraseSource:
    """The one source of a run.

    kind: one of `KINDS`; or "auto", the first of these that can answer here: the user's own table if it is
    there and holds all of `texts`, the table of spaCy 3.6 if it does, spaCy if it is installed, the rules.
    table: the user's own, if not where `bench.scorers.phrases.frozen.table_path` says.
    texts: all that will be asked: a table without one of them is refused at once.
    """
    from bench.scorers.phrases.frozen import SHIPPED, FrozenSource, read_table, shipped, table_path
    from bench.scorers.phrases.rules import RulesSource
    from bench.scorers.phrases.spacy import is_available, live

    path = table_path() if table is None else table
    if kind == AUTO:
        kind = _first_that_can(path, texts, is_available)
    if kind == SPACY:
        return live()
    if kind == RULES:
        return RulesSource()
    if kind == FROZEN:
        source = FrozenSource(read_table(path), path)
    elif kind in SHIPPED:
        source = FrozenSource(shipped(kind), f"the table {kind}", kind)
    else:
        raise ValueError(f"phrases must be {AUTO}, {', '.join(KINDS)}, got '{kind}'")
    source.check(texts or ())
    return source


def _first_that_can(path: Path, texts: Sequence[str] | None, spacy_runs: Callable[[], bool]) -> str:
    """A user's table that is there but broken is chosen all the same: its error is for a person to see."""
    from bench.scorers.phrases.frozen import SHIPPED, read_table, shipped

    if path.is_file() and (texts is None or set(texts) <= set(read_table(path).parses)):
        return FROZEN
    if texts and set(texts) <= set(shipped(SHIPPED[0]).parses):
        return SHIPPED[0]
    return SPACY if spacy_runs() else RULES


def described(record: dict[str, Any]) -> str:
    """What a person is told of a source, from its record."""
    if record["source"] == RULES:
        return "rules (approximate)"
    if "spacy" not in record:
        return str(record["source"])
    how = "" if record["source"] == SPACY else f"table {record['source']}: "
    facts = [f"{record['model']} {record['model_version']}"]
    facts += ["a third-party upload"] if record.get("third_party") else []
    facts.append("the official pin" if record.get("pinned") else "not the official pin, 3.5.3")
    return f"{how}spaCy {record['spacy']} ({', '.join(facts)})"
