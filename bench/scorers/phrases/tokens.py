"""Words of a prompt, cut where spaCy's English tokeniser cuts them; own rules, for the text of prompts.

A word is what blanks separate. Punctuation comes off its ends, hyphens and a few marks cut it inside,
contractions fall into their parts. Equal to spaCy 3.5.3 on all official prompts: docs/phrases.md. Not
covered: units after digits, web addresses, doubled blanks (a token of their own in spaCy).
"""

from __future__ import annotations

import re

OPENING = tuple("([{\"'`“‘«<$#£€*") + ("...", "…")
CLOSING = tuple(")]}\"'`”’»>,;:!?%*") + ("...", "…")
CLITICS = tuple(part + end for part in ("'", "’") for end in ("s", "re", "ll", "ve", "d", "m", "S"))
NEGATIONS = ("n't", "n’t")
WHOLE = frozenset("mr. mrs. ms. dr. prof. st. jr. sr. vs. e.g. i.e. a.m. p.m. inc. ltd. co. corp.".split())

TAKEN_APART = frozenset(["cannot", "gonna", "gotta", "wanna"])  # behind the third letter

_LETTER = r"[^\W\d_]"
# where two letters meet around one of these, the word is cut: snow-covered, black/white, red,blue
INSIDE = re.compile(rf"(\.{{2,}}|…|(?<={_LETTER})(?:-+|[–—~/,:<>=])(?={_LETTER})|(?<=\d)[-–—](?=\w))")
ENDS_SENTENCE = re.compile(r"(?:[^\WA-Z_]|[)\]\"'”’%]|[A-Z]{2})\.$|^[A-Z][a-z]+\.$")


def tokenize(text: str) -> list[str]:
    """The tokens in order, without blanks."""
    return [token for word in text.split() for token in _word(word)]


def _word(word: str) -> list[str]:
    start: list[str] = []
    end: list[str] = []
    while word and word.lower() not in WHOLE:
        opening = next((mark for mark in OPENING if word.startswith(mark)), None)
        closing = _closing(word)
        if opening and word not in CLITICS:
            start.append(opening)
            word = word[len(opening) :]
        elif closing:
            end.insert(0, closing)
            word = word[: -len(closing)]
        else:
            break
    return start + _inside(word) + end


def _closing(word: str) -> str | None:
    """What comes off the end of a word, a mark or a clitic; None if nothing does."""
    for part in (*CLITICS, *NEGATIONS, *CLOSING):
        if word.endswith(part) and (len(word) > len(part) or len(part) == 1):
            return part
    return "." if ENDS_SENTENCE.search(word) else None


def _inside(word: str) -> list[str]:
    if word.lower() in TAKEN_APART:
        return [word[:3], word[3:]]
    return [part for part in INSIDE.split(word) if part]
