"""Near-duplicates of a benchmark in a data set: captions by words, pictures by a difference hash."""

# N pictures

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from gentron.errors import UserError
from gentron.textfiles import read_csv, read_jsonl, read_lines, read_text

WORD = re.compile(r"[^\W_]+")
PROMPT_NAMES = ("prompt", "text", "caption")
LIST_SUFFIXES = (".txt", ".jsonl", ".csv")
THRESHOLD = 0.8
"""Jaccard index of words and pairs of neighbours: .73 with one word of ten changed, .90 with one added."""
MIN_CONTAINED = 5
"""Words from which on a prompt inside a longer caption counts; "a red car" is everywhere."""
HASH_SIDE = 8
MAX_DISTANCE = 4
"""Of 64 bits; a picture scaled or saved anew as JPEG differs in 0 to 2, unrelated ones in 20 to 44."""


class NearCaption(NamedTuple):
    """A caption of the data set that is, nearly is or contains a prompt of the benchmark."""

    name: str
    caption: str
    prompt: str
    similarity: float
    """Jaccard index; 1 for a prompt that is contained whole."""


# ---- prompts of a benchmark --------------------------------------------------------------------------------


def read_prompts(path: Path) -> list[str]:
    """Of a protocol (.yaml: the lists it names, the prompts in it), or of a list (.txt, .jsonl, .csv)."""
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        prompts = list(_of_protocol(path))
    elif suffix in LIST_SUFFIXES:
        prompts = list(_of_list(path))
    else:
        raise UserError(f"{path} is no protocol: expected .yaml, .txt, .jsonl or .csv")
    if not prompts:
        raise UserError(f"{path} holds no prompts")
    return list(dict.fromkeys(prompts))


def _of_list(path: Path) -> Iterator[str]:
    if path.suffix.lower() == ".txt":
        # T2I-CompBench's lists hold a tab and the phrases of a prompt after it
        yield from (line.split("\t")[0].strip() for line in read_lines(path) if line.strip())
        return
    for row in read_jsonl(path) if path.suffix.lower() == ".jsonl" else read_csv(path):
        prompt = next((row.values[name] for name in PROMPT_NAMES if row.values.get(name)), None)
        if not isinstance(prompt, str):
            raise UserError(f"{path}:{row.line}: expected a prompt, got the keys {', '.join(row.values)}")
        yield prompt


def _of_protocol(path: Path) -> Iterator[str]:
    try:
        protocol = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    for key, value in _leaves(protocol):
        if key == "prompts" and isinstance(value, str) and value.lower().endswith(LIST_SUFFIXES):
            listed = path.parent / value
            if not listed.is_file():
                raise UserError(
                    f"{path} names the prompt list {value}, which is not beside it; "
                    f"give the list itself (`gentron-bench prompts fetch` gets the official ones)"
                )
            yield from _of_list(listed)
        elif key in ("prompt", "prompts") and isinstance(value, str):
            yield value


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no list or mapping, under the last key that leads to it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


# ---- captions ----------------------------------------------------------------------------------------------


def words(text: str) -> tuple[str, ...]:
    """Lower-case words; case, punctuation and spaces make no difference."""
    return tuple(match[0] for match in WORD.finditer(text.casefold()))


def features(tokens: Sequence[str]) -> frozenset[str]:
    """Words and neighbouring pairs, so that order counts: a cat on a dog is no dog on a cat."""
    return frozenset(tokens) | {f"{a} {b}" for a, b in zip(tokens, tokens[1:], strict=False)}


class CaptionIndex:
    """The prompts of a benchmark, to be asked for near-duplicates of captions, exactly and quickly.

    Two sets with a Jaccard index of t share one of the rarest |x| - ceil(t |x|) + 1 features of either
    (prefix filtering, Bayardo et al. 2007), so only few prompts are compared with a caption.
    """

    def __init__(self, prompts: Iterable[str], *, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._prompts = [(prompt, words(prompt)) for prompt in prompts]
        self._features = [features(tokens) for _, tokens in self._prompts]
        self._frequency = Counter(feature for found in self._features for feature in found)
        self._by_feature: dict[str, list[int]] = defaultdict(list)
        self._whole: dict[tuple[str, ...], int] = {}
        for number, found in enumerate(self._features):
            for feature in self._prefix(found):
                self._by_feature[feature].append(number)
            if len(self._prompts[number][1]) >= MIN_CONTAINED:
                self._whole.setdefault(self._prompts[number][1], number)
        self._lengths = sorted({len(tokens) for tokens in self._whole})

    def _prefix(self, found: frozenset[str]) -> list[str]:
        rarest = sorted(found, key=lambda feature: (self._frequency[feature], feature))
        return rarest[: len(found) - math.ceil(self._threshold * len(found)) + 1] if found else []

    def nearest(self, caption: str) -> tuple[str, float] | None:
        """The prompt most like a caption, and how much, if it is a near-duplicate."""
        tokens = words(caption)
        found = features(tokens)
        best: tuple[str, float] | None = None
        for number in {n for feature in self._prefix(found) for n in self._by_feature.get(feature, ())}:
            other = self._features[number]
            similarity = len(found & other) / len(found | other)
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = self._prompts[number][0], similarity
        return best if best and best[1] == 1 else self._contained(tokens) or best

    def _contained(self, tokens: tuple[str, ...]) -> tuple[str, float] | None:
        for length in self._lengths:
            for start in range(len(tokens) - length + 1):
                number = self._whole.get(tokens[start : start + length])
                if number is not None:
                    return self._prompts[number][0], 1.0
        return None


# ---- pictures ----------------------------------------------------------------------------------------------


def difference_hash(picture: Image.Image) -> int:
    """64 bits: is a pixel of the 9 x 8 picture brighter than its right neighbour (Krawetz's dHash)."""
    small = picture.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, np.int16)
    bits = (levels[:, :-1] > levels[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_hashes(
    hashes: Sequence[int], references: Sequence[int], *, max_distance: int = MAX_DISTANCE
) -> Iterator[tuple[int, int, int]]:
    """(number, number of the nearest reference, distance) of each hash that has one near."""
    against = np.array(references, np.uint64)
    if not len(against):
        return
    for number, value in enumerate(hashes):
        distances = np.bitwise_count(against ^ np.uint64(value))
        nearest = int(distances.argmin())
        if distances[nearest] <= max_distance:
            yield number, nearest, int(distances[nearest])
