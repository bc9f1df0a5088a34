"""Noun phrases and parts of speech by rule, for machines without spaCy: own tokens, own lexicon, own grammar.

Three steps: every word gets the tags it can have (lexicon.py); the cheapest sequence of tags is
found, each pair of neighbours having a cost (Viterbi); noun phrases are read off the tags. It follows spaCy's
conventions (what a chunk holds, which part of speech a word gets), not spaCy's mistakes. How often it agrees
with what is known: docs/phrases.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from bench.scorers.phrases import Parse, Token
from bench.scorers.phrases.lexicon import BE_AFTER, POS, Costs, closed_classes, costs
from bench.scorers.phrases.tokens import tokenize
from gentron.hashing import sha256

VERSION = 1
OWN_FILES = ("tokens.py", "words.txt", "lexicon.txt", "lexicon.py", "grammar.txt", "rules.py")

NO_FINITE_VERB = 0.7  # a sentence that ends in a full stop and has no verb with a tense
VERB_IN_TITLE = 0.6  # a verb without ending in a text without full stop: "a soda can" rather than "can"
SINGULAR_WITH_BASE = 1.5  # the dog play
PLURAL_WITH_PRES = 1.0  # the dogs plays
PLURAL_BEFORE_NOUN = 0.8  # watching people walk: rather not a "people walk"
GERUND_AFTER = frozenset("by for of about after before at on without".split())  # skilled at making things
RICH = 0.9  # an adjective as a noun: the rich
PARALLEL = -1.0  # is looking at a rainbow and feeling: -ing again behind "and" or a comma
PLURALS = frozenset("people men women children mice geese feet teeth sheep fish deer".split())
FINITE = frozenset(["past", "pres", "base", "be", "have", "do", "modal"])


def _data(name: str) -> str:
    return (files("bench.scorers.phrases") / name).read_text(encoding="utf-8")


@cache
def transitions() -> dict[str, tuple[float, Costs]]:
    """Tag -> cost of a following tag that is not named, costs of those that are."""
    table: dict[str, tuple[float, Costs]] = {}
    for head, body in re.findall(r"^(\w+):((?:.*\n)(?: .*\n)*)", _data("grammar.txt"), re.MULTILINE):
        other, *pairs = body.split()
        named = dict(zip(pairs[::2], map(float, pairs[1::2]), strict=True))
        assert head in POS or head == "start", head
        assert set(named) <= set(POS), set(named) - set(POS)
        table[head] = (float(other), named)
    return table


def _step(before: str, tag: str) -> float:
    other, named = transitions()[before]
    return named.get(tag, other)


# ---- units: words, and words that hyphens hold together ----------------------------------------------------


@dataclass(slots=True)
class Unit:
    """What gets one tag: a token, or the tokens of a word with hyphens."""

    tokens: list[str]
    start: int
    end: int
    """Place in the text."""
    costs: Costs = field(default_factory=dict)
    tag: str = ""

    @property
    def word(self) -> str:
        return "".join(self.tokens)


PREDETERMINERS = ("all", "both", "half", "such")  # all the birds
BASES = ("base", "be", "have", "do")  # what follows "to"
HYPHENS = ("-", "–")


def units(text: str) -> list[Unit]:
    """The tokens of a text with their places; parts around a hyphen without blanks are one unit."""
    found: list[Unit] = []
    place = 0
    for token in tokenize(text):
        start = text.index(token, place)
        place = start + len(token)
        glued = bool(found) and found[-1].end == start
        after_hyphen = glued and found[-1].tokens[-1] in HYPHENS and len(found[-1].tokens) > 1
        if after_hyphen or (glued and token in HYPHENS and found[-1].tokens[-1].isalnum()):
            found[-1].tokens.append(token)
            found[-1].end = place
        else:
            found.append(Unit([token], start, place))
    return found


def _set_costs(sequence: list[Unit]) -> None:
    for place, unit in enumerate(sequence):
        before = sequence[place - 1].word.lower() if place else ""
        if len(unit.tokens) > 1:
            unit.costs = _compound_costs(unit)
        else:
            unit.costs = costs(unit.word, first=not before or before in (".", "!", "?", '"', ":"))
        lower = unit.word.lower()
        after = sequence[place + 1].word.lower() if place + 1 < len(sequence) else ""
        if lower in ("'s", "’s") and before in BE_AFTER:
            unit.costs = {"pron": 0} if before == "let" else {"be": 0}
        elif lower in ("'", "’") and not before.endswith(("s", "x", "z")):
            unit.costs = {"mark": 0}  # a quotation mark; behind a plural it owns
        elif _opens_phrase(sequence, place - 1) and unit.costs.get("adv", 9) < unit.costs.get("adj", 9):
            unit.costs = {**unit.costs, "deg": 0.0}
        elif lower == "to":
            verbs = [c for tag, c in costs(after, first=False).items() if tag in BASES] if after else []
            from_to = any(earlier.word.lower() == "from" for earlier in sequence[:place])  # from tree to tree
            unit.costs = {"adp": 0.6 if from_to else 1.3, "to": 0.1 * min(verbs)} if verbs else {"adp": 0}
        elif lower == "next":
            unit.costs = {"adv": 0} if after == "to" else {"adj": 0}
    for place, unit in enumerate(sequence[1:], 1):
        if _stands_as_noun(sequence, place):
            unit.costs = {**unit.costs, "noun": unit.costs["adj"] + RICH}


def _opens_phrase(sequence: list[Unit], place: int) -> bool:
    return place >= 0 and not {"det", "poss"}.isdisjoint(sequence[place].costs)


def _stands_as_noun(sequence: list[Unit], place: int) -> bool:
    """An adjective that an article opens and no noun follows: the rich, but not: the soft sprinkles."""
    here = sequence[place]
    after = sequence[place + 1].costs if place + 1 < len(sequence) else {}
    alone = {"noun", "name", "adj", "part", "ing", "num"}.isdisjoint(after)
    is_open = "noun" not in here.costs and here.word.lower() not in closed_classes()
    return alone and is_open and "adj" in here.costs and _opens_phrase(sequence, place - 1)


def _compound_costs(unit: Unit) -> Costs:
    """snow-covered, awe-inspiring, high-tech describe; tug-of-war, push-ups, teddy-bear name."""
    last = unit.tokens[-1]
    found = costs(last, first=False)
    if not last.isalnum():
        return {"noun": 0, "adj": 1}
    if min(found.get("part", 9), found.get("adj", 9)) < found.get("noun", 9):
        return {"adj": 0, "part": 0.8, "noun": 1.5}
    if found.get("ing", 9) < found.get("noun", 9):
        return {"adj": 0.1, "ing": 0.4, "noun": 0.5}
    if found.get("name", 9) == 0:
        return {"name": 0, "adj": 1}
    return {"noun": 0, "adj": 0.7}


# ---- tags ------------------------------------------------------------------------------------------------


class _State(NamedTuple):
    tag: str
    has_verb: bool


def set_tags(sequence: list[Unit]) -> None:
    """The cheapest tags for all units together."""
    _set_costs(sequence)
    is_sentence = any("end" in unit.costs for unit in sequence)
    joined = runs = False
    before = ""
    best: dict[_State, tuple[float, list[str]]] = {_State("start", False): (0.0, [])}
    for unit in sequence:
        following: dict[_State, tuple[float, list[str]]] = {}
        is_plural = joined or before.endswith("s") or before in PLURALS
        for state, (cost, tags) in best.items():
            for tag, own in unit.costs.items():
                total = cost + own + _step(state.tag, tag)
                if tag == "end" and unit.word == "." and not state.has_verb:
                    total += NO_FINITE_VERB
                elif tag == "ing" and runs and state.tag in ("conj", "comma"):
                    total += PARALLEL
                elif tag == "base":
                    total += 0 if is_sentence else VERB_IN_TITLE
                    total += SINGULAR_WITH_BASE if state.tag == "noun" and not is_plural else 0
                elif tag == "noun" and state.tag == "noun" and is_plural and not joined:
                    total += PLURAL_BEFORE_NOUN
                elif tag == "pres" and state.tag == "noun" and is_plural and not joined:
                    total += PLURAL_WITH_PRES
                new = _State(tag, tag != "end" and (state.has_verb or tag in FINITE))
                if new not in following or total < following[new][0]:
                    following[new] = (total, [*tags, tag])
        best = following
        before = unit.word.lower()
        joined = joined or "conj" in unit.costs
        runs = runs or "ing" in unit.costs
    ended = [(cost + _step(state.tag, "end"), tags) for state, (cost, tags) in best.items()]
    chosen = min(ended, key=lambda entry: entry[0])[1]
    for unit, tag in zip(sequence, chosen, strict=True):
        unit.tag = tag
    for unit, after in zip(sequence, sequence[1:], strict=False):
        if unit.word.lower() in PREDETERMINERS and after.tag in ("det", "poss"):
            unit.tag = "det"


def _pos(sequence: list[Unit]) -> list[Token]:
    tokens: list[Token] = []
    for place, unit in enumerate(sequence):
        pos = POS[unit.tag]
        if unit.tag in ("have", "do") and not _helps(sequence, place):
            pos = "VERB"
        tokens += [Token(unit.word, pos)] if len(unit.tokens) == 1 else _compound_tokens(unit, pos)
    return tokens


def _helps(sequence: list[Unit], place: int) -> bool:
    """Whether have or do stands with another verb."""
    rest = [unit.tag for unit in sequence[place + 1 :] if unit.tag not in ("adv", "not", "pron")]
    wanted = ("part", "be") if sequence[place].tag == "have" else ("base", "have")
    return rest[:1] != [] and rest[0] in wanted


def _compound_tokens(unit: Unit, pos: str) -> list[Token]:
    *parts, last = unit.tokens
    tokens = []
    for part in parts:
        found = costs(part, first=False) if part not in HYPHENS else {"mark": 0.0}
        tag = min(found, key=lambda tag: found[tag])
        tokens.append(Token(part, POS[tag]))
    found = costs(last, first=False)
    verb = min(found.get("part", 9), found.get("ing", 9)) < found.get("adj", 9)
    if pos == "ADJ" and verb:
        pos = "VERB"
    elif pos == "ADJ" and found.get("noun", 9) < found.get("adj", 9):
        pos = "NOUN"
    tokens.append(Token(last, pos))
    return tokens


# ---- noun phrases ----------------------------------------------------------------------------------------

NOMINAL = ("noun", "name")


def chunks(sequence: list[Unit], text: str) -> list[str]:
    """Noun phrases in order, without what follows their noun: determiner or owner, what describes, noun.

    As spaCy's `noun_chunks`: pronouns are phrases, "the doctor's office" is one, "a piece of cake" is two.
    """
    found: list[str] = []
    place = 0
    while place < len(sequence):
        end = _chunk_end(sequence, place)
        if end is None:
            place += 1
            continue
        found.append(text[sequence[place].start : sequence[end - 1].end])
        place = end
    return found


def _chunk_end(sequence: list[Unit], start: int) -> int | None:
    """Where the noun phrase that starts at this place ends; None if none starts here."""
    tags = [unit.tag for unit in sequence]
    if tags[start] in ("pron", "rel"):
        return None if sequence[start].word.lower() == "there" else start + 1
    place = start
    while place < len(tags) and tags[place] in ("det", "poss"):
        place += 1
    led = place > start or _may_describe(sequence, start)
    end = _noun_end(tags, place, led=led, opened=place > start)
    while (
        end is not None and end < len(tags) and tags[end] == "clitic"
    ):  # the phrase goes on behind an owner's 's
        owned = _noun_end(tags, end + 1, led=True)
        if owned is None:
            break
        end = owned
    return end


def _may_describe(sequence: list[Unit], place: int) -> bool:
    """Whether a participle without article can describe: with swirling colors; not: for making things."""
    if place == 0:
        return True
    before = sequence[place - 1]
    if before.tag == "adp":
        return before.word.lower() not in GERUND_AFTER
    return before.tag == "end" or (before.tag == "conj" and sequence[place].tag == "part")


def _noun_end(tags: list[str], place: int, *, led: bool, opened: bool = False) -> int | None:
    """End of the run of describing words and nouns from `place` on; None if there is no noun in it.

    led: participles and adverbs can describe the noun.   opened: a determiner stands before: there is a noun.
    """
    end: int | None = None
    while place < len(tags):
        tag, after = tags[place], tags[place + 1 : place + 2]
        if tag in NOMINAL or (end is not None and tag == "num" and tags[end - 1] == "name"):
            end = place + 1
        elif end is not None:
            if tag != "adj" or after not in (["noun"], ["name"]):  # the gold compact mirror
                break
        elif tag in ("adj", "num"):
            led = True
        elif tag in ("part", "ing"):
            if not led:
                break
        elif tag in ("adv", "deg"):
            if not (after in (["adj"], ["num"]) or (led and after in (["part"], ["ing"], ["adv"], ["deg"]))):
                break
        elif not (tag in ("comma", "conj", "mark") and place > 0 and _joins_adjectives(tags, place, opened)):
            break
        place += 1
    return end


def _joins_adjectives(tags: list[str], place: int, opened: bool) -> bool:
    """black and white cat; smooth, white columns; the sharp, steel blades."""
    describing = ("adj", "part", "ing", "num")
    if tags[place - 1] not in describing:
        return False
    after = place + 1
    if tags[place] == "comma" and tags[after : after + 1] == ["conj"]:
        after += 1
    while tags[after : after + 1] in (["adv"], ["deg"]):
        after += 1
    following = tags[after] if after < len(tags) else ""
    return following in describing or (opened and tags[place] == "comma" and following in NOMINAL)


# ---- the source ------------------------------------------------------------------------------------------


class RulesSource:
    """Parses by rule: the same everywhere, for any text."""

    name = "rules"

    def __init__(self) -> None:
        folder = files("bench.scorers.phrases")
        own = b"".join((folder / name).read_bytes() for name in OWN_FILES)
        self.record: dict[str, Any] = {
            "source": self.name,
            "approximate": True,
            "version": VERSION,
            "sha256": sha256(own),
        }

    def parse(self, text: str) -> Parse:
        sequence = units(text)
        set_tags(sequence)
        return Parse(tokens=tuple(_pos(sequence)), chunks=tuple(chunks(sequence, text)))
