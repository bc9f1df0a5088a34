"""What a word can be, before its neighbours are looked at: tags with costs, from own lists and from endings.

A cost is 0 for the likeliest reading and about 1 for one that needs the support of its neighbours; the scale
is that of grammar.txt.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

# tags; those in capitals on the right are what spaCy calls them (coarse universal parts of speech)
POS = {
    "det": "DET",
    "adj": "ADJ",
    "noun": "NOUN",
    "name": "PROPN",
    "past": "VERB",  # walked, as the verb of a sentence
    "pres": "VERB",  # walks
    "base": "VERB",  # walk
    "ing": "VERB",  # walking
    "part": "VERB",  # walked, as a participle
    "be": "AUX",
    "have": "AUX",  # VERB where it stands alone
    "do": "AUX",  # the same
    "modal": "AUX",
    "adp": "ADP",
    "adv": "ADV",
    "deg": "ADV",  # freshly, between an article and what it grades
    "not": "PART",
    "pron": "PRON",
    "rel": "PRON",  # who, which, that
    "poss": "PRON",  # their, in front of a noun
    "num": "NUM",
    "conj": "CCONJ",
    "sconj": "SCONJ",
    "to": "PART",  # in front of a verb
    "clitic": "PART",  # 's of a noun
    "comma": "PUNCT",
    "mark": "PUNCT",
    "end": "PUNCT",
}
Costs = dict[str, float]
OTHER_CLASS = (0.0, 0.6, 0.9, 1.2)  # cost of the first, second ... class of a word in lexicon.txt


def _lines(name: str) -> list[str]:
    text = (files("bench.scorers.phrases") / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def closed_classes() -> dict[str, Costs]:
    """The words of words.txt with their tags."""
    table: dict[str, Costs] = {}
    for line in _lines("words.txt"):
        head, words = line.split(":", 1)
        tag, cost = head.split()
        for word in words.split():
            table.setdefault(word, {})[tag] = float(cost)
    return table


BE_AFTER = frozenset("it he she that there what who here this where how let".split())  # it's, not of it

VOWELS = "aeiou"


def _doubles(word: str) -> bool:
    """run -> running: a single vowel and consonant at the end of a short word."""
    ends = len(word) >= 3 and word[-1] not in VOWELS + "wxy" and word[-2] in VOWELS and word[-3] not in VOWELS
    return ends and len(re.findall(r"[aeiouy]+", word)) == 1


def plural(word: str) -> str:
    """Also the third person of a verb."""
    if word.endswith(("s", "x", "z", "ch", "sh")) or (word.endswith("o") and word[-2:-1] not in VOWELS):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def with_ending(word: str, ending: str) -> list[str]:
    """The word with -ed, -ing, -er or -est, in the spellings that occur."""
    if word.endswith("ie") and ending == "ing":
        return [word[:-2] + "ying"]
    if word.endswith("e"):
        return [word[:-1] + ending] + ([word + ending] if word.endswith(("ee", "oe", "ye")) else [])
    if word.endswith("y") and word[-2:-1] not in VOWELS and ending != "ing":
        return [word[:-1] + "i" + ending]
    if word.endswith("c") and ending != "er":
        return [word + "k" + ending]
    doubled = word + word[-1] + ending
    return (
        [doubled] if _doubles(word) else [word + ending, doubled] if word.endswith("l") else [word + ending]
    )


@cache
def open_classes() -> dict[str, Costs]:
    """All forms of the words in lexicon.txt."""
    forms: dict[str, Costs] = {}
    irregular: list[list[str]] = []
    classes = ""
    for line in _lines("lexicon.txt"):
        if line.startswith("["):
            classes = line.strip("[]")
        elif classes == "irregular":
            irregular.append(line.split())
        else:
            for word in line.split():
                for letter, cost in zip(classes, OTHER_CLASS, strict=False):
                    _add_class(forms, word, letter, cost)
    for base, past, participle in irregular:
        cost = forms.get(base, {}).get("base", 0.0)
        _add_class(forms, base, "V", cost)
        for regular in with_ending(base, "ed"):
            if regular not in (past, participle):
                forms.pop(regular, None)
        _add(forms, past, "past", cost)
        _add(forms, participle, "part", cost)
    return forms


def _add(forms: dict[str, Costs], form: str, tag: str, cost: float) -> None:
    costs = forms.setdefault(form, {})
    costs[tag] = min(cost, costs.get(tag, cost))


def _add_class(forms: dict[str, Costs], word: str, letter: str, cost: float) -> None:
    if letter == "R":
        _add(forms, word, "adv", cost)
    elif letter == "N":
        _add(forms, word, "noun", cost)
        _add(forms, plural(word), "noun", cost)
    elif letter == "A":
        _add(forms, word, "adj", cost)
        syllables = len(re.findall(r"[aeiouy]+", word.removesuffix("e")))
        for ending in (
            ("er", "est") if cost == 0 and (syllables == 1 or word.endswith(("y", "le", "ow"))) else ()
        ):
            for form in with_ending(word, ending):
                _add(forms, form, "adj", 0.3)
    else:
        _add(forms, word, "base", cost)
        _add(forms, plural(word), "pres", cost)
        for form in with_ending(word, "ing"):
            _add(forms, form, "ing", cost)
        for form in with_ending(word, "ed"):
            _add(forms, form, "past", cost)
            _add(forms, form, "part", cost + 0.1)


# ---- words that no list holds ----------------------------------------------------------------------------

# ending -> tags with costs; the first that fits
ENDINGS: list[tuple[str, Costs]] = [
    (r"..fish$", {"noun": 0}),
    (r"..ly$", {"adv": 0, "adj": 1.5}),
    (r"(?:tion|sion|ment|ness|ship|ance|ence|ism|ist|ity|hood|dom|age|ure|logy|graphy)s?$", {"noun": 0}),
    (
        r"(?:ous|ful|less|ible|able|esque|ish|some|ive|ular|eous|ical|ial|ual|onal|inal|oral)$",
        {"adj": 0, "noun": 1},
    ),
    (r"(?:like|shaped|sized|colored|coloured|style|themed)$", {"adj": 0, "noun": 1}),
    (r"[^aeiou]lit$", {"adj": 0, "noun": 1}),
    (r"(?:ic|al|ary|ory|ant|ent|ile|ine|ate)$", {"adj": 0.4, "noun": 0.3}),
    (r"(?:ize|[^o]ise|ify)$", {"base": 0, "noun": 1}),
    (r"(?:izes|[^o]ises|ifies)$", {"pres": 0, "noun": 1}),
    (r"([b-df-hj-np-tvwxz])\1y$|[lmnrstd]ky$|spy$|vy$|thy$", {"adj": 0.2, "noun": 0.8}),
    (r"..ing$", {"ing": 0, "noun": 0.7, "adj": 1}),
    (r"...ed$", {"past": 0.2, "part": 0.1, "adj": 0.6}),
    (r"en$", {"noun": 0, "adj": 0.9, "part": 0.9}),
    (r"", {"noun": 0, "adj": 1.5, "base": 2, "pres": 2}),
]
NUMBER = re.compile(r"[\d.,:/]*\d[\d.,:/]*(?:st|nd|rd|th)?")


def costs(word: str, *, first: bool) -> Costs:
    """The tags that a word can have, each with its cost.

    first: the word opens a sentence, so its capital says nothing.
    """
    lower = word.lower()
    if lower in closed_classes() and not (word.isupper() and len(word) > 2):
        return closed_classes()[lower]
    if NUMBER.fullmatch(word):
        return {"num": 0} if lower[-1].isdigit() else {"adj": 0}
    if not any(letter.isalnum() for letter in word):
        return {"comma": 0} if word in (",", ";") else {"end": 0} if word in ("!", "?", ".") else {"mark": 0}
    known = open_classes().get(lower)
    found = dict(known or _from_ending(lower))
    if word[0].isupper() and not first:
        known_cost = {"adj": 0.3, "noun": 0.8}
        return {"name": 0} | {t: c + (known_cost.get(t, 1.5) if known else 1.5) for t, c in found.items()}
    if word[0].isupper() and not known:
        found.setdefault("name", 0.4)
    return _with_weaker(found)


def _from_ending(lower: str) -> Costs:
    if lower.endswith("y") and not lower.endswith(("ly", "ry")):
        stem = lower[:-1]
        stems = {stem, stem + "e"} | ({stem[:-1]} if stem[-1:] == stem[-2:-1] else set())
        if len(stem) > 2 and any({"noun", "base"} & set(open_classes().get(form, ())) for form in stems):
            return {"adj": 0, "noun": 0.8}  # reedy, shady, muddy
    return next(found for ending, found in ENDINGS if re.search(ending, lower))


def _with_weaker(found: Costs) -> Costs:
    """Readings that every word of a form has: a participle can stand for an adjective, -ing for a noun."""
    if "ing" in found:
        found.setdefault("noun", found["ing"] + 1.4)
        found.setdefault("adj", found["ing"] + 1.1)
    if "part" in found:
        found.setdefault("adj", found["part"] + 1.2)
    for tag in ("base", "pres"):
        if tag in found:
            found.setdefault("noun", found[tag] + 1.7)  # a help, thanks
    least = min(found.values())
    return {tag: cost - least for tag, cost in found.items()}
