"""How often a source of noun phrases agrees with what is known of the official prompts without running spaCy.

Known are the templates that most prompts are made from, the counts of the benchmark's specification, spaCy's
tokens (its tokeniser needs no model), and two samples annotated by hand. With a second source, its agreement
with the first on every prompt.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.prompts.sets import COMPBENCH, complex_classes, complex_key, load_list, read_file
from bench.scorers.phrases import Parse, PhraseSource
from bench.scorers.phrases.tokens import tokenize
from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.hashing import sha256

PAIR = re.compile(r"((?:an? )?[^,]+?) and ((?:an? )?[^,]+?)\.?")
NO_TEMPLATE = re.compile(r"^The |\b(?:and|with|in|is|are|on|next|to|has|have|sit|sits|sitting|parked|near)\b")
TWO_OBJECTS = re.compile(r"an? (\S+) .+ an? (\S+)")
MAX_WORDS = 5  # in a phrase of a template, with its article
# what the specification counts in the numeracy list: prompts with 1, 2, ... 5 objects
NUM_OBJECTS = {1: 91, 2: 89, 3: 48, 4: 37, 5: 35}
# ... and among the 88 complex prompts to whose score the 2-D relation belongs
COMPLEX_RELATIONS = {
    "on top of": 33,
    "next to": 37,
    "near": 8,
    "on the left of": 6,
    "on the right of": 3,
    None: 1,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: of `count` prompts, `agree` give what is known; the others are listed."""

    what: str
    count: int
    agree: int
    failures: list[str] = field(default_factory=list)


def _row(what: str, checks: Iterable[tuple[bool, str]]) -> Row:
    found = list(checks)
    return Row(what, len(found), sum(ok for ok, _ in found), [text for ok, text in found if not ok])


def _texts(category: str) -> list[str]:
    return [prompt.text for prompt in load_list(COMPBENCH, category)]


def _nouns(parse: Parse) -> list[str]:
    return [token.text for token in parse.tokens if token.pos == "NOUN"]


# ---- templates -------------------------------------------------------------------------------------------


def template(text: str) -> tuple[str, ...] | None:
    """The phrases of a prompt like "a round bagel and a slice of bread"; None for any other prompt."""
    found = PAIR.fullmatch(text)
    if found is None or any(NO_TEMPLATE.search(half) for half in found.groups()):
        return None
    phrases = tuple(phrase for half in found.groups() for phrase in half.split(" of "))
    return phrases if max(len(phrase.split()) for phrase in phrases) <= MAX_WORDS else None


def pair_rows(source: PhraseSource) -> list[Row]:
    """color, shape, texture: the phrases are those of the template, and the last word of each is a noun."""
    rows = []
    for category in ("color", "shape", "texture"):
        checks = []
        for text in _texts(category):
            if (known := template(text)) is None:
                continue
            parse = source.parse(text)
            nouns = {token.text for token in parse.tokens if token.pos in ("NOUN", "PROPN")}
            ok = parse.chunks == known and {phrase.split()[-1] for phrase in known} <= nouns
            checks.append((ok, f"{text} -> {' | '.join(parse.chunks)}"))
        rows.append(_row(f"{category}: all phrases of a template prompt", checks))
    return rows


def object_rows(source: PhraseSource) -> list[Row]:
    """spatial, 3d_spatial: the first and the last NOUN are the two objects."""
    rows = []
    for category in ("spatial", "3d_spatial"):
        checks = []
        for text in _texts(category):
            asked = TWO_OBJECTS.fullmatch(text)
            nouns = _nouns(source.parse(text))
            ok = asked is not None and nouns != [] and (nouns[0], nouns[-1]) == asked.groups()
            checks.append((ok, f"{text} -> {nouns}"))
        rows.append(_row(f"{category}: first and last NOUN are the objects", checks))
    return rows


# ---- counts of the specification -------------------------------------------------------------------------


def count_rows() -> list[Row]:
    """What depends on tokens and lists only: classes of complex, relations, objects of numeracy."""
    from bench.scorers.pairs import first_named
    from bench.scorers.spatial import RELATIONS

    spatial, action = complex_classes()
    keys = {text: complex_key(text) for text in _texts("complex")}
    classes = Counter(
        "spatial" if k in spatial else "action" if k in action else "both" for k in keys.values()
    )
    found = Counter(first_named(text, RELATIONS) for text, key in keys.items() if key not in action)
    rows = [
        _counted("complex: classes 58 / 212 / 30", classes, {"spatial": 58, "action": 212, "both": 30}),
        _counted("complex: relations of the 88 prompts with one", found, COMPLEX_RELATIONS),
    ]
    try:
        lines = read_file(COMPBENCH, "new_objects.txt")
    except UserError:
        return rows  # a copy of the lists may lack it
    return [*rows, _counted("numeracy: prompts by number of objects", _num_objects(lines), NUM_OBJECTS)]


def _counted(what: str, found: Counter[Any], known: Mapping[Any, int]) -> Row:
    agree = sum(min(found[key], count) for key, count in known.items())
    return Row(what, sum(known.values()), agree, [] if found == known else [f"got {dict(found)}"])


def _num_objects(lines: Sequence[str]) -> Counter[int]:
    from bench.scorers.numeracy import ObjectNames, asked_objects

    pairs = [line.lower().split(" - ") for line in lines]
    names = ObjectNames(*(tuple(pair[i].strip() for pair in pairs) for i in (0, 1)))
    return Counter(len(asked_objects(text, names)) for text in _texts("numeracy"))


def relation_row(source: PhraseSource) -> Row:
    """complex: two nouns around the relation in each of the 87 prompts that name one."""
    from bench.scorers.pairs import first_named
    from bench.scorers.spatial import RELATIONS, complex_objects

    action = complex_classes()[1]
    checks = []
    for text in _texts("complex"):
        if complex_key(text) in action or first_named(text, RELATIONS) is None:
            continue
        objects = complex_objects(text, source.parse(text).tokens)
        checks.append((None not in objects, f"{text} -> {objects}"))
    return _row("complex: two nouns around the relation", checks)


# ---- tokens of spaCy, samples by hand --------------------------------------------------------------------


def tokens_sha256(texts: Sequence[str], cut: Callable[[str], list[str]] = tokenize) -> str:
    """Hash of all tokens of a list."""
    return sha256(json.dumps([cut(text) for text in texts], ensure_ascii=False))


def token_row(golden: Path) -> Row:
    """Lists whose tokens are spaCy's, by the hashes in tokens.json."""
    known = json.loads((golden / "tokens.json").read_text())["sha256"]
    checks = [(tokens_sha256(_texts(category)) == known[category], category) for category in known]
    return _row("tokens: whole lists equal to spaCy 3.5.3's tokeniser", checks)


def hand_rows(source: PhraseSource, golden: Path) -> list[Row]:
    """The two samples of by_hand.json: all phrases of a prompt, and all its adjectives."""
    rows = []
    for sample, lists in json.loads((golden / "by_hand.json").read_text())["samples"].items():
        phrases, adjectives = [], []
        for category, prompts in lists.items():
            texts = _texts(category)
            for place, known in prompts.items():
                text = texts[int(place)]
                parse = source.parse(text)
                wanted = _spans_to_texts(text, [token.text for token in parse.tokens], known["chunks"])
                phrases.append((list(parse.chunks) == wanted, f"{text} -> {' | '.join(parse.chunks)}"))
                found = {i for i, token in enumerate(parse.tokens) if token.pos == "ADJ"}
                ok = found - set(known["either"]) == set(known["adjectives"])
                adjectives.append((ok, f"{text} -> {[parse.tokens[i].text for i in sorted(found)]}"))
        rows.append(_row(f"{sample} sample by hand: all phrases of the prompt", phrases))
        rows.append(_row(f"{sample} sample by hand: all adjectives of the prompt", adjectives))
    return rows


def _spans_to_texts(text: str, tokens: Sequence[str], spans: Sequence[Sequence[int]]) -> list[str]:
    places, end = [], 0
    for token in tokens:
        start = text.index(token, end)
        end = start + len(token)
        places.append((start, end))
    return [text[places[first][0] : places[last - 1][1]] for first, last in spans]


# ---- all -------------------------------------------------------------------------------------------------


def agreement_rows(source: PhraseSource, other: PhraseSource) -> list[Row]:
    """Prompt by prompt, what enters a score: phrases where they are asked, nouns and adjectives elsewhere."""
    rows = []
    for category, views in _ENTERS.items():
        parses = [(text, source.parse(text), other.parse(text)) for text in _texts(category)]
        for what, view in views.items():
            checks = [
                (view(ours) == view(theirs), f"{text} -> {view(ours)}, {other.name}: {view(theirs)}")
                for text, ours, theirs in parses
            ]
            rows.append(_row(f"{category}: {what} as {other.name}", checks))
    return rows


def _chunks(parse: Parse) -> list[str]:
    return list(parse.chunks)


def _ends(parse: Parse) -> list[str]:
    nouns = _nouns(parse)
    return [*nouns[:1], *nouns[-1:]]


def _adjectives(parse: Parse) -> list[str]:
    return [token.text for token in parse.tokens if token.pos == "ADJ"]


_ENTERS: dict[str, dict[str, Callable[[Parse], list[str]]]] = {
    "color": {"phrases": _chunks},
    "shape": {"phrases": _chunks},
    "texture": {"phrases": _chunks},
    "spatial": {"first and last noun": _ends},
    "3d_spatial": {"first and last noun": _ends},
    "complex": {"phrases": _chunks, "nouns": _nouns, "adjectives": _adjectives},
}


def measure(
    source: PhraseSource, *, golden: Path | None = None, against: PhraseSource | None = None
) -> list[Row]:
    """All rows; those of tokens and samples where the folder of golden files is given."""
    rows = [*pair_rows(source), *object_rows(source), relation_row(source), *count_rows()]
    if golden is not None:
        rows += [token_row(golden), *hand_rows(source, golden)]
    return rows + (agreement_rows(source, against) if against is not None else [])


def markdown(rows: Sequence[Row], *, max_failures: int = 40) -> str:
    """The table, and under it every failure."""
    lines = ["| what | prompts | agree |", "|---|---:|---:|"]
    lines += [f"| {row.what} | {row.count} | {row.agree} |" for row in rows]
    for row in rows:
        if row.failures:
            lines += ["", f"{row.what}:", ""]
            lines += [f"- {failure}" for failure in row.failures[:max_failures]]
            if len(row.failures) > max_failures:
                lines.append(f"- and {len(row.failures) - max_failures} more")
    return "\n".join(lines) + "\n"


def disagreements(sources: Mapping[str, PhraseSource]) -> str:
    """Of each category, the prompts that two sources read otherwise; what no score reads is in brackets."""
    pairs = [*combinations(sources, 2)]
    heads = [f"{first} / {second}" for first, second in pairs]
    lines = [f"| category | what | {' | '.join(heads)} |", "|---|---" + "|---:" * len(pairs) + "|"]
    for category, views in {**_ENTERS, **_READ_BY_NO_SCORE}.items():
        texts = _texts(category)
        parses = {name: [source.parse(text) for text in texts] for name, source in sources.items()}
        for what, view in views.items():
            cells = []
            for pair in pairs:
                both = zip(*(parses[name] for name in pair), strict=True)
                cells.append(str(sum(view(ours) != view(theirs) for ours, theirs in both)))
            shown = f"({what})" if category in _READ_BY_NO_SCORE else what
            lines.append(f"| {category} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_READ_BY_NO_SCORE: dict[str, dict[str, Callable[[Parse], list[str]]]] = {
    "numeracy": {"phrases": _chunks},
    "non_spatial": {"phrases": _chunks},
}


def write_between_marks(page: Path, text: str, *, name: str = "measured") -> None:
    """Replace what stands between the two marks of this name in a page."""
    marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin, rest = page.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise UserError(f"{page} must hold the marks {' and '.join(marks)}, got a page without them")
    with atomic_file(page) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}{end}{after}")
