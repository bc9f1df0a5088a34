"""Clip -> description -> caption.

A motion belongs to the object that is named just before it, and an object without one stands still: in "a
blue square and a red circle moving left" the circle moves. Of an object that moves it is always said; of a
bystander it may be said that it stands still. Objects of a clip differ in colour and in shape, so that either
tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gentron.shapes.captions import NOUNS, SHAPE_ADJECTIVES, ObjectDescription
from gentron.shapes.motion import FAST, SLOW, STILL, Motion, Movement, MovingScene, reverse
from gentron.shapes.scene import SceneObject

DIRECTION_PHRASES = {
    Motion.LEFT: ("left", "to the left"),
    Motion.RIGHT: ("right", "to the right"),
    Motion.UP: ("up", "upwards"),
    Motion.DOWN: ("down", "downwards"),
}
MOVE_PHRASES = ("moving", "moving", "that moves")
STILL_PHRASES = ("standing still", "at rest", "that stands still")
BESIDE_PHRASES = ("beside", "next to")
SPEED_WORDS = {SLOW: "slowly", FAST: "quickly"}
BACK = "and back"
VIDEO_FRAME = "a video of"


@dataclass(frozen=True, slots=True)
class ClipDescription:
    """What a caption claims: the named attributes of each object and how it moves."""

    objects: tuple[ObjectDescription, ...]
    moves: tuple[Movement, ...]


def describe_clip(clip: MovingScene, rng: np.random.Generator) -> ClipDescription:
    """Choose what to name: 85 % name shape and colour, 9 % the shape alone, 6 % the colour alone."""
    return ClipDescription(tuple(_describe(o, rng.random()) for o in clip.scene.objects), clip.moves)


def _describe(thing: SceneObject, kind: float) -> ObjectDescription:
    return ObjectDescription(
        shape=None if kind > 0.94 else thing.shape, color=None if kind < 0.09 else thing.color
    )


def opposite(description: ClipDescription) -> ClipDescription:
    """The same with each movement in the opposite direction; where nothing moves the first object does."""
    moves = tuple(m if m == STILL else reverse(m) for m in description.moves)
    if moves == description.moves:
        moves = (reverse(STILL), *moves[1:])
    return replace(description, moves=moves)


# ---- wording ---------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _noun_phrase(thing: ObjectDescription, rng: np.random.Generator) -> str:
    """ "a red circle", now and then "a red round thing"."""
    words = [word for word in (thing.size, thing.texture, thing.color) if word]
    if thing.shape is None or rng.random() < 0.1:
        words += [_pick(rng, SHAPE_ADJECTIVES[thing.shape])] if thing.shape else []
        words.append(_pick(rng, NOUNS))
    else:
        words.append(thing.shape)
    text = " ".join(words)
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _move_phrase(movement: Movement, rng: np.random.Generator) -> str:
    """ "moving left", "that moves to the left and back", "moving slowly left", "standing still"."""
    if movement.motion is Motion.STILL:
        return _pick(rng, STILL_PHRASES)
    verb, direction = _pick(rng, MOVE_PHRASES), _pick(rng, DIRECTION_PHRASES[movement.motion])
    early = rng.random() < 0.5
    adverb = SPEED_WORDS.get(movement.speed)
    words = (
        [verb, direction]
        if adverb is None
        else [verb, adverb, direction]
        if early
        else [verb, direction, adverb]
    )
    return " ".join([*words, BACK] if movement.turn is not None else words)


def _of_each(description: ClipDescription, rng: np.random.Generator, *, named_still: float) -> list[str]:
    """Each object with its motion; `named_still` is the share of bystanders of which it is said."""
    parts = []
    for thing, movement in zip(description.objects, description.moves, strict=True):
        words = _noun_phrase(thing, rng)
        if movement.speed or rng.random() < named_still:
            words += f" {_move_phrase(movement, rng)}"
        parts.append(words)
    return parts


def _all_still(description: ClipDescription, rng: np.random.Generator) -> str:
    parts = [_noun_phrase(thing, rng) for thing in description.objects]
    if len(parts) > 1 and rng.random() < 0.5:  # of each apart
        return " and ".join(f"{part} {_pick(rng, STILL_PHRASES)}" for part in parts)
    return f"{_listed(parts)} {_pick(rng, STILL_PHRASES[:2])}"


def _listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _some_moving(description: ClipDescription, rng: np.random.Generator) -> str:
    """The first object beside the others, or all of them listed, in either order."""
    style = rng.random()
    parts = _of_each(description, rng, named_still=0.25)
    if len(parts) == 1:
        return parts[0]
    if style < 0.5:
        return f"{parts[0]} {_pick(rng, BESIDE_PHRASES)} {_listed(parts[1:])}"
    return _listed(parts if style < 0.7 else parts[::-1])


def phrase_clip(description: ClipDescription, rng: np.random.Generator) -> str:
    """One of the many captions that make this claim, lower case, without a full stop."""
    moving = any(m.speed for m in description.moves)
    text = _some_moving(description, rng) if moving else _all_still(description, rng)
    frame = rng.random()
    if frame < 0.06:
        return f"{VIDEO_FRAME} {text}"
    return f"{text} on a grey background" if frame < 0.09 else text


def clip_caption(clip: MovingScene, rng: np.random.Generator) -> str:
    """A caption that is true of the clip."""
    return phrase_clip(describe_clip(clip, rng), rng)


def opposite_caption(clip: MovingScene, rng: np.random.Generator) -> str:
    """A caption of the clip in which each direction is the opposite one.

    With the generator in the same state the words are those of `clip_caption` but for the directions; only
    where nothing moves, and the first object is said to, may other words differ.
    """
    return phrase_clip(opposite(describe_clip(clip, rng)), rng)
