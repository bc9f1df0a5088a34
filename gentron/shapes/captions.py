"""Scene -> description -> caption, in the style of T2I-CompBench.

A description is what a caption claims: for each object the attributes that are named, and the relation.
What is not named is free, except that an unnamed texture is plain and an unnamed size is small (large for
the second object of "inside" and "overlapping", which need one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gentron.shapes.scene import Scene, SceneObject

SHAPE_ADJECTIVES = {
    "circle": ("round", "circular"),
    "square": ("square",),
    "triangle": ("triangular",),
    "star": ("star-shaped",),
    "ring": ("ring-shaped",),
    "cross": ("cross-shaped",),
    "diamond": ("diamond-shaped",),
    "heart": ("heart-shaped",),
}
NOUNS = ("object", "thing", "figure")
RELATION_PHRASES = {
    "left of": ("to the left of", "on the left of", "left of"),
    "right of": ("to the right of", "on the right of", "right of"),
    "above": ("above", "over", "on the top of"),
    "below": ("below", "under", "on the bottom of"),
    "touching": ("touching", "that touches", "in contact with"),
    "inside": ("inside", "within", "inside of"),
    "overlapping": ("overlapping", "that overlaps", "partly covering"),
}


@dataclass(frozen=True, slots=True)
class ObjectDescription:
    """The named attributes of one object; None is left open."""

    shape: str | None = None
    color: str | None = None
    texture: str | None = None
    size: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a caption claims; `relation` holds from the first object to the second."""

    objects: tuple[ObjectDescription, ...]
    relation: str | None = None


def _describe_object(rng: np.random.Generator, thing: SceneObject, implied_large: bool) -> ObjectDescription:
    kind = rng.random()
    shape = None if kind > 0.92 else thing.shape
    color = None if kind < 0.15 else thing.color
    texture = thing.texture if thing.texture != "plain" or rng.random() < 0.15 else None
    if thing.size == "large":
        size = None if implied_large and rng.random() < 0.5 else "large"
    else:
        size = "small" if rng.random() < 0.25 else None
    return ObjectDescription(shape, color, texture, size)


def describe(scene: Scene, rng: np.random.Generator) -> Description:
    """Choose what to name: 77 % name shape and colour, 15 % the shape alone, 8 % the colour alone."""
    implied = scene.relation in ("inside", "overlapping")
    objects = tuple(_describe_object(rng, o, implied) for o in scene.objects)
    return Description(objects, scene.relation)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _noun_phrase(rng: np.random.Generator, thing: ObjectDescription) -> str:
    """Adjectives before the noun, or in a relative clause; now and then the shape is one of them."""
    before = [thing.size, thing.texture, thing.color]
    noun = thing.shape or _pick(rng, NOUNS)
    if thing.shape and rng.random() < 0.2:
        before.append(_pick(rng, SHAPE_ADJECTIVES[thing.shape]))
        noun = _pick(rng, NOUNS)
    adjectives = [word for word in before if word]
    late = [word for word in (thing.color, thing.texture) if word]
    if late and rng.random() < 0.12:
        early = [word for word in adjectives if word not in late]
        return f"{_article(' '.join([*early, noun]))} that is {' and '.join(late)}"
    return _article(" ".join([*adjectives, noun]))


def _join(rng: np.random.Generator, parts: list[str], relation: str | None) -> str:
    if relation is not None:
        head = f"{parts[0]} {_pick(rng, RELATION_PHRASES[relation])} {parts[1]}"
        return head if len(parts) == 2 else f"{head}, {_pick(rng, ('and', 'with'))} {parts[2]}"
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return f"{parts[0]} {_pick(rng, ('and', 'and', 'with'))} {parts[1]}"
    return f"{parts[0]}, {parts[1]} and {parts[2]}"


def phrase(description: Description, rng: np.random.Generator) -> str:
    """One of the many captions that make this claim, lower case, without a full stop."""
    parts = [_noun_phrase(rng, thing) for thing in description.objects]
    text = _join(rng, parts, description.relation)
    frame = rng.random()
    if frame < 0.08:
        return f"a picture of {text}"
    return f"{text} on a grey background" if frame < 0.14 else text


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that is true of the scene."""
    return phrase(describe(scene, rng), rng)
