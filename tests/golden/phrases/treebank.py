"""The rules on general English: parts of speech and noun phrases against treebanks.

python tests/golden/phrases/treebank.py en_ewt-ud-test.conllu en_gum-ud-test.conllu   (Universal Dependencies)

Only sentences that our tokeniser cuts as the treebank does are counted. A noun phrase of the treebank is made
as spaCy makes its chunks: a noun, proper noun or pronoun that is no modifier of another, from the first word
that describes it on; adverbs in front of an article are left out.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.scorers.phrases.rules import RulesSource

HEADS = ("NOUN", "PROPN", "PRON")
INSIDE = frozenset(  # relations of nouns that stand inside another's phrase, or in none
    "compound flat nmod:poss amod det fixed nummod expl obl:npmod obl:tmod obl:unmarked nmod:unmarked"
    " goeswith vocative discourse advmod nmod:desc".split()
)
NOT_OF_PHRASE = frozenset(  # words in front of a noun that hang on it but do not describe it
    "case cc mark punct nsubj nsubj:pass nsubj:outer cop aux advcl parataxis cc:preconj expl advmod discourse"
    " orphan obl acl acl:relcl ccomp".split()
)


class Word(NamedTuple):
    text: str
    pos: str
    head: int
    relation: str


def sentences(path: Path) -> Iterator[tuple[str, list[Word]]]:
    text, words = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if line.startswith("# text = "):
            text = line.removeprefix("# text = ")
        elif not line and words:
            yield text, words
            words = []
        elif fields[0].isdigit():
            words.append(Word(fields[1], fields[3], int(fields[6]) - 1, fields[7]))


def phrases(words: list[Word]) -> list[tuple[int, int]]:
    """First and last word of each."""
    children: dict[int, list[int]] = defaultdict(list)
    for i, word in enumerate(words):
        children[word.head].append(i)

    def below(i: int) -> Iterator[int]:
        yield i
        for child in children[i]:
            yield from below(child)

    found = []
    for i, word in enumerate(words):
        if word.pos in HEADS and word.relation not in INSIDE:
            left = [j for j in children[i] if j < i and words[j].relation not in NOT_OF_PHRASE]
            names = [j for j in children[i] if j > i and words[j].relation == "flat"]
            first = min([i, *(k for j in left for k in below(j))])
            found.append((first, max([i, *(k for j in names for k in below(j))])))
    return [a for a in found if not any(b != a and b[0] <= a[0] and a[1] <= b[1] for b in found)]


def phrase_texts(text: str, words: list[Word]) -> Counter[str]:
    spans, end = [], 0
    for word in words:
        start = text.index(word.text, end)
        end = start + len(word.text)
        spans.append((start, end))
    return Counter(text[spans[a][0] : spans[b][1]] for a, b in phrases(words))


def main() -> None:
    source = RulesSource()
    for name in sys.argv[1:]:
        seen = counted = tokens = right = both = ours = theirs = 0
        pos: dict[str, Counter[str]] = {"NOUN": Counter(), "ADJ": Counter()}
        for text, words in sentences(Path(name)):
            seen += 1
            parse = source.parse(text)
            if [token.text for token in parse.tokens] != [word.text for word in words]:
                continue
            counted += 1
            for token, word in zip(parse.tokens, words, strict=True):
                tokens += 1
                right += token.pos == word.pos
                for tag, count in pos.items():
                    count["both"] += token.pos == tag == word.pos
                    count["ours"] += token.pos == tag
                    count["theirs"] += word.pos == tag
            known, found = phrase_texts(text, words), Counter(parse.chunks)
            both += (known & found).total()
            ours, theirs = ours + found.total(), theirs + known.total()
        shares = [
            f"{tag} {count['both'] / count['ours']:.3f} / {count['both'] / count['theirs']:.3f}"
            for tag, count in pos.items()
        ]
        print(
            f"{Path(name).name}: {counted} of {seen} sentences, {tokens} tokens, parts of speech"
            f" {right / tokens:.3f}; precision / recall: {', '.join(shares)},"
            f" phrases {both / ours:.3f} / {both / theirs:.3f}"
        )


if __name__ == "__main__":
    main()
