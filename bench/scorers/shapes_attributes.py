"""A stand-in for CLIP on machines without its weights, in the shapes world: `cosine_shapes-attributes`.

No network and no learning. Picture and caption each become counts of named things, and the score is the
cosine of the two. A picture's counts come from the judge's detections (bench.scorers.shapes), a caption's
from its description, or from its words. Counted are
  of each object its shape, its colour, its texture unless that is plain, and each pair of these: `red star`
  of two objects in a relation `star left of ring` and `red left of blue`, where named, with "right of" and
  "below" turned round and without order for "touching" and "overlapping"
Sizes are left out. What a picture shows beyond the caption lowers the score, as it does CLIP's: extra
objects, and attributes or relations that the caption leaves open. So even a true picture scores below 1
against a caption that is not complete (.87 on average over the world's own). It is no CLIP score, and the two
never compare.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

from gentron.shapes.captions import RELATION_PHRASES, SHAPE_ADJECTIVES, Description, ObjectDescription
from gentron.shapes.scene import CANVAS, COLORS, RELATIONS, SHAPES, SIZES, TEXTURES
from gentron.shapes.vocabulary import words

if TYPE_CHECKING:
    import numpy as np

    from bench.scorers.shapes import Detection

VERSION = 1
Counts = Mapping[tuple[str, ...], float]

TURNED = {"right of": "left of", "below": "above"}
MUTUAL = ("touching", "overlapping")
PLAIN, UNCLEAR = "plain", "unclear"
MAX_WORDS = 6  # of a relation's phrase, and more than any has
HOLDS = 0.5  # least grade of a relation that a picture is said to show


# ---- captions --------------------------------------------------------------------------------------------

_SHAPE_WORDS = {name: name for name in SHAPES} | {
    adjective: shape for shape, adjectives in SHAPE_ADJECTIVES.items() for adjective in adjectives
}
_PHRASES = {
    tuple(phrase.split()): relation for relation, phrases in RELATION_PHRASES.items() for phrase in phrases
}
_BACKGROUND = "on a grey background".split()
_FRAME = "a picture of".split()


def parse_caption(text: str) -> Description:
    """What a caption of the shapes world claims: the inverse of gentron.shapes.captions.phrase.

    ValueError for a word that captions never use, or a caption without an object.
    """
    cut = text.lower().replace(",", " , ").strip(" .").split()
    unknown = [word for word in cut if word not in _known_words()]
    if unknown:
        raise ValueError(f"'{unknown[0]}' is no word of the shapes world's captions: '{text}'")
    if cut[: len(_FRAME)] == _FRAME:
        cut = cut[len(_FRAME) :]
    if cut[-len(_BACKGROUND) :] == _BACKGROUND:
        cut = cut[: -len(_BACKGROUND)]
    parts: list[list[str]] = []
    for word in cut:
        if word in ("a", "an"):
            parts.append([])
        elif parts:
            parts[-1].append(word)
    if not parts:
        raise ValueError(f"no object in the caption '{text}'")
    relation = _relation(parts[0]) if len(parts) > 1 else None
    return Description(tuple(map(_object, parts)), relation)


@cache
def _known_words() -> frozenset[str]:
    return frozenset(words())


def _relation(part: Sequence[str]) -> str | None:
    """The relation that stands behind the first object."""
    for length in range(MAX_WORDS, 0, -1):
        for start in range(len(part) - length + 1):
            if (phrase := tuple(part[start : start + length])) in _PHRASES:
                return _PHRASES[phrase]
    return None


def _object(part: Sequence[str]) -> ObjectDescription:
    named = {
        "shape": next((_SHAPE_WORDS[word] for word in part if word in _SHAPE_WORDS), None),
        "color": next((word for word in part if word in COLORS), None),
        "texture": next((word for word in part if word in TEXTURES), None),
        "size": next((word for word in part if word in SIZES), None),
    }
    return ObjectDescription(**named)


# ---- counts ----------------------------------------------------------------------------------------------


def _names(thing: ObjectDescription | Detection) -> dict[str, str]:
    """The attributes that count."""
    named = {name: getattr(thing, name) for name in ("texture", "color", "shape")}
    return {name: value for name, value in named.items() if value not in (None, PLAIN, UNCLEAR)}


def _of_object(thing: ObjectDescription | Detection) -> list[tuple[str, ...]]:
    values = list(_names(thing).values())
    return [(value,) for value in values] + list(combinations(values, 2))


def _of_relation(
    first: ObjectDescription | Detection, relation: str, second: ObjectDescription | Detection
) -> list[tuple[str, ...]]:
    if relation in TURNED:
        first, relation, second = second, TURNED[relation], first
    counted = []
    for name in ("shape", "color"):
        a, b = _names(first).get(name), _names(second).get(name)
        if a is not None and b is not None:
            if relation in MUTUAL:
                a, b = sorted((a, b))
            counted.append((a, relation, b))
    return counted


def caption_counts(description: Description) -> Counts:
    """Of what a caption names."""
    counts = Counter(key for thing in description.objects for key in _of_object(thing))
    if description.relation is not None:
        counts.update(_of_relation(description.objects[0], description.relation, description.objects[1]))
    return counts


def picture_counts(found: Sequence[Detection]) -> Counts:
    """Of what a picture shows; a relation counts where its grade is at least a half."""
    from bench.scorers.shapes import relation_grade

    counts = Counter(key for thing in found for key in _of_object(thing))
    for a, b in combinations(found, 2):
        shown = {
            key
            for first, second in ((a, b), (b, a))
            for relation in RELATIONS
            if relation_grade(relation, first, second) >= HOLDS
            for key in _of_relation(first, relation, second)
        }
        counts.update(shown)
    return counts


def look(image: np.ndarray) -> Counts:
    """image: (H, W, 3) uint8 of any size, brought to the world's 64 x 64 by the mean over each area."""
    from bench.scorers.shapes import detect
    from bench.systems.images import fit

    return picture_counts(detect(fit(image, CANVAS)))


def cosine(a: Counts, b: Counts) -> float:
    """0 if either is empty: a picture in which nothing is found."""
    lengths = [math.sqrt(math.fsum(value**2 for value in counts.values())) for counts in (a, b)]
    if 0 in lengths:
        return 0.0
    shared = math.fsum(a[key] * b[key] for key in a.keys() & b.keys())
    return min(shared / (lengths[0] * lengths[1]), 1.0)
