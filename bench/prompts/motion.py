"""Prompts of motion-shapes_v1: what moves, and where, in clips of the shapes world.

`generate` makes the lists; the committed ones are pinned by the protocol's sha256 and are what is used.
Every third prompt asks for a combination of colour, shape and motion that training never sees (of a colour
and a shape that it knows to move otherwise), so a list cut short keeps both splits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.prompts import HELD_OUT, SEEN, Prompt
from bench.prompts.shapes import read_pinned
from gentron.hashing import sha256
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.motion import (
    DIRECTIONS,
    FAST,
    NUM_FRAMES,
    SLOW,
    SPEED,
    STILL,
    Motion,
    Movement,
    MovingScene,
    heldout_motion,
    place_clip,
)
from gentron.shapes.motion_captions import ClipDescription, phrase_clip
from gentron.shapes.scene import COLORS, SHAPES, SceneObject, heldout_color_shape

TURN = NUM_FRAMES // 2


# ---- what a claim says about the world -------------------------------------------------------------------


def realise_clip(claim: ClipDescription, rng: np.random.Generator) -> MovingScene | None:
    """A clip of which the claim is true; None if no room was found. Every object must name both its shape
    and its colour."""
    things = [SceneObject(str(o.shape), str(o.color)) for o in claim.objects]
    return place_clip(rng, things, claim.moves)


TESTED = ("direction", "motion", "speed")


def redraw_motion(claim: ClipDescription, tested: str, rng: np.random.Generator) -> ClipDescription:
    """The claim with what is tested drawn uniformly: what a clip made without regard to it scores.

    direction: of each object that moves, two of them never the same.   motion: one of the four directions or
    standing still, of every object.   speed: slowly or quickly, of each that moves.
    """
    if tested == "speed":
        moves = [replace(m, speed=(SLOW, FAST)[int(rng.integers(2))]) if m.speed else m for m in claim.moves]
    elif tested == "motion":
        options = (STILL, *(Movement(direction, SPEED) for direction in DIRECTIONS))
        moves = [options[int(rng.integers(len(options)))] for _ in claim.moves]
    elif tested == "direction":
        drawn = iter(rng.permutation(len(DIRECTIONS)))
        moves = [replace(m, motion=DIRECTIONS[int(next(drawn))]) if m.speed else m for m in claim.moves]
    else:
        raise ValueError(f"unknown tested property '{tested}'; known: {', '.join(TESTED)}")
    return replace(claim, moves=tuple(moves))


# ---- the categories --------------------------------------------------------------------------------------

Moves = tuple[Movement, ...]


def _cycled(place: int, *, speed: int = SPEED, turn: int | None = None) -> Movement:
    """Each direction as often as the others among seen prompts, and among held-out ones."""
    return Movement(DIRECTIONS[place // 3 % len(DIRECTIONS)], speed, turn)


def _direction(rng: np.random.Generator, place: int) -> Moves:
    return (_cycled(place),)


def _bystander(rng: np.random.Generator, place: int) -> Moves:
    return (_cycled(place), STILL)


def _still(rng: np.random.Generator, place: int) -> Moves:
    return (STILL,) * (1 + place // 3 % 2)


def _speed(rng: np.random.Generator, place: int) -> Moves:
    return (_cycled(place, speed=(SLOW, FAST)[place // 12 % 2]),)


def _two_movers(rng: np.random.Generator, place: int) -> Moves:
    first = _cycled(place)
    others = [direction for direction in DIRECTIONS if direction is not first.motion]
    return (first, Movement(others[int(rng.integers(len(others)))], SPEED))


def _bounce(rng: np.random.Generator, place: int) -> Moves:
    return (_cycled(place, turn=TURN),)


CATEGORIES: dict[str, Callable[[np.random.Generator, int], Moves]] = {
    "direction": _direction,
    "bystander": _bystander,
    "still": _still,
    "speed": _speed,
    "two-movers": _two_movers,
    "bounce": _bounce,
}


def _objects(rng: np.random.Generator, count: int) -> tuple[ObjectDescription, ...]:
    """Colour and shape of each, no two alike in either."""
    colors, shapes = rng.permutation(list(COLORS)), rng.permutation(SHAPES)
    pairs = zip(shapes[:count], colors[:count], strict=True)
    return tuple(ObjectDescription(shape=str(shape), color=str(color)) for shape, color in pairs)


def _is_unseen(thing: ObjectDescription, movement: Movement) -> bool:
    return heldout_motion(str(thing.color), str(thing.shape), movement.motion)


def _fits_split(claim: ClipDescription, held_out: bool) -> bool:
    """Held out is what the first object does, and nothing else; no pair of colour and shape ever is."""
    if any(heldout_color_shape(str(o.color), str(o.shape)) for o in claim.objects):
        return False
    unseen = [_is_unseen(o, m) for o, m in zip(claim.objects, claim.moves, strict=True)]
    return unseen == [held_out, *[False] * (len(unseen) - 1)]


def _prompt(name: str, category: str, text: str, claim: ClipDescription, *, kinds: tuple[str, ...]) -> Prompt:
    description = Description(claim.objects)
    split = HELD_OUT if kinds else SEEN
    return Prompt(name, category, text, split, description, kinds, moves=claim.moves)


def generate(counts: dict[str, int], *, seed: int) -> dict[str, list[Prompt]]:
    """So many prompts of each category, a third of them held out; no text occurs twice, in any category."""
    used: set[str] = set()
    lists: dict[str, list[Prompt]] = {}
    for number, (category, draw) in enumerate(CATEGORIES.items()):
        rng = np.random.default_rng([seed, number])
        lists[category] = []
        while len(lists[category]) < counts[category]:
            place = len(lists[category])
            held_out = place % 3 == 2
            moves = draw(rng, place)
            claim = ClipDescription(_objects(rng, len(moves)), moves)
            text = phrase_clip(claim, rng)
            if text in used or not _fits_split(claim, held_out) or realise_clip(claim, rng) is None:
                continue
            used.add(text)
            kinds = ("motion",) if held_out else ()
            name = f"{category}-{place:04d}"
            lists[category].append(_prompt(name, category, text, claim, kinds=kinds))
    return lists


# ---- lists on disk ---------------------------------------------------------------------------------------


def _named(record: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if value is not None}


def dump(prompts: list[Prompt]) -> bytes:
    """One JSON object a line; attributes that are not named are left out."""
    lines = []
    for prompt in prompts:
        row = {"id": prompt.id, "text": prompt.text, "split": prompt.split, "heldout": list(prompt.heldout)}
        things = [_named(thing) for thing in prompt.claim.objects]
        lines.append(json.dumps({**row, "objects": things, "moves": [_named(m) for m in prompt.moves]}))
    return ("\n".join(lines) + "\n").encode()


def parse(data: bytes, category: str) -> list[Prompt]:
    """The inverse of `dump`."""
    prompts = []
    for line in data.decode().splitlines():
        row = json.loads(line)
        things = tuple(ObjectDescription(**o) for o in row["objects"])
        moves = tuple(Movement(**{**m, "motion": Motion(m["motion"])}) for m in row["moves"])
        claim = ClipDescription(things, moves)
        prompts.append(_prompt(row["id"], category, row["text"], claim, kinds=tuple(row["heldout"])))
    return prompts


def load(path: Path, category: str, *, sha256: str) -> list[Prompt]:
    """A pinned prompt list; UserError if the file is not the one the protocol names."""
    return parse(read_pinned(path, sha256=sha256), category)


def write(folder: Path, *, counts: dict[str, int], seed: int) -> dict[str, str]:
    """Write the lists as <category>.jsonl; returns their sha256 by category."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for category, prompts in generate(counts, seed=seed).items():
        data = dump(prompts)
        (folder / f"{category}.jsonl").write_bytes(data)
        digests[category] = sha256(data)
    return digests
