"""Prompts of compbench-shapes_v1: T2I-CompBench's six categories over the shapes world.

`generate` makes the lists; the committed ones are pinned by the protocol's sha256 and are what is used.
Every third prompt holds a combination that training never sees, so a list cut short keeps both splits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bench.prompts import HELD_OUT, SEEN, Prompt
from gentron.errors import UserError
from gentron.hashing import sha256 as hash_of
from gentron.shapes.captions import (
    NOUNS,
    RELATION_PHRASES,
    SHAPE_ADJECTIVES,
    Description,
    ObjectDescription,
    phrase,
)
from gentron.shapes.scene import (
    COLORS,
    INTERACTIONS,
    SHAPES,
    SIZES,
    SPATIAL,
    TEXTURES,
    Scene,
    SceneObject,
    arrange,
    heldout_color_shape,
    heldout_relation,
    heldout_texture_shape,
    is_legible,
)

LARGE_BACK = ("inside", "overlapping")  # the second object of these is large


# ---- what a description says about the world ------------------------------------------------------------


def heldout_kinds(description: Description) -> tuple[str, ...]:
    """Kinds of held-out combination among the named attributes: color-shape, texture-shape, relation."""
    kinds = set()
    for thing in description.objects:
        if thing.shape and thing.color and heldout_color_shape(thing.color, thing.shape):
            kinds.add("color-shape")
        if thing.shape and thing.texture and heldout_texture_shape(thing.texture, thing.shape):
            kinds.add("texture-shape")
    if description.relation:
        first, second = description.objects[0].shape, description.objects[1].shape
        if first and second and heldout_relation(first, description.relation, second):
            kinds.add("relation")
    return tuple(sorted(kinds))


def realise(description: Description, rng: np.random.Generator) -> Scene | None:
    """A scene of which the description is true, or None if the world has none.

    What is not named is chosen as the captions say: plain, small (large behind "inside" and "overlapping"),
    and colours that differ.
    """
    free = [c for c in rng.permutation(list(COLORS)) if c not in {o.color for o in description.objects}]
    things = []
    for place, wanted in enumerate(description.objects):
        size = "large" if place == 1 and description.relation in LARGE_BACK else "small"
        shape = wanted.shape or SHAPES[int(rng.integers(len(SHAPES)))]
        color = wanted.color or str(free.pop())
        things.append(SceneObject(shape, color, wanted.texture or "plain", wanted.size or size))
    if not is_legible(things, description.relation):
        return None
    return arrange(rng, things, description.relation)


def redraw(description: Description, tested: str, rng: np.random.Generator) -> Description:
    """The description with the tested attribute drawn uniformly, for each object on its own.

    tested: "color", "shape" or "texture" of every object that names it; "relation", among its own kind;
    "objects", every named attribute of every object. A picture made without regard to the attribute scores
    against such descriptions what it scores against the asked one: the chance level.
    """
    if tested == "relation":
        kind = SPATIAL if description.relation in SPATIAL else INTERACTIONS
        return replace(description, relation=kind[int(rng.integers(len(kind)))])
    names = tuple(_VALUES) if tested == "objects" else (tested,)
    if any(name not in _VALUES for name in names):
        raise ValueError(f"unknown tested attribute '{tested}'; known: {', '.join(TESTED)}")
    return replace(description, objects=tuple(_redrawn(o, names, rng) for o in description.objects))


_VALUES = {"shape": SHAPES, "color": tuple(COLORS), "texture": TEXTURES, "size": tuple(SIZES)}
TESTED = ("shape", "color", "texture", "size", "relation", "objects")


def _redrawn(thing: ObjectDescription, names: tuple[str, ...], rng: np.random.Generator) -> ObjectDescription:
    drawn = {n: _pick(rng, _VALUES[n]) for n in names if getattr(thing, n) is not None}
    return replace(thing, **drawn)


# ---- wording ---------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _noun_phrase(thing: ObjectDescription, rng: np.random.Generator, *, shape_as_adjective: bool) -> str:
    words = [word for word in (thing.size, thing.texture, thing.color) if word]
    if shape_as_adjective and thing.shape:
        words += [_pick(rng, SHAPE_ADJECTIVES[thing.shape]), _pick(rng, NOUNS)]
    else:
        words.append(thing.shape or _pick(rng, NOUNS))
    text = " ".join(words)
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _pair_text(
    description: Description, rng: np.random.Generator, *, shape_as_adjective: bool = False
) -> str:
    first, second = (_noun_phrase(o, rng, shape_as_adjective=shape_as_adjective) for o in description.objects)
    between = _pick(rng, RELATION_PHRASES[description.relation]) if description.relation else "and"
    return f"{first} {between} {second}"


# ---- the six categories ----------------------------------------------------------------------------------

Drawn = tuple[Description, str]  # from a generator and the place in the list, which settles the relation


def _things(rng: np.random.Generator, count: int, *names: str) -> list[ObjectDescription]:
    """Objects that differ in each of the named attributes."""
    columns = {n: [_VALUES[n][i] for i in rng.permutation(len(_VALUES[n]))[:count]] for n in names}
    return [ObjectDescription(**{n: columns[n][k] for n in names}) for k in range(count)]


def _color(rng: np.random.Generator, place: int) -> Drawn:
    description = Description(tuple(_things(rng, 2, "color", "shape")))
    return description, _pair_text(description, rng)


def _shape(rng: np.random.Generator, place: int) -> Drawn:
    """The colour tells the objects apart and the shape is asked of them; two in three as adjectives."""
    description = Description(tuple(_things(rng, 2, "color", "shape")))
    return description, _pair_text(description, rng, shape_as_adjective=rng.random() < 2 / 3)


def _texture(rng: np.random.Generator, place: int) -> Drawn:
    description = Description(tuple(_things(rng, 2, "texture", "shape")))
    return description, _pair_text(description, rng)


def _spatial(rng: np.random.Generator, place: int) -> Drawn:
    relation = SPATIAL[place // 3 % len(SPATIAL)]
    description = Description(tuple(_things(rng, 2, "color", "shape")), relation)
    return description, _pair_text(description, rng)


def _non_spatial(rng: np.random.Generator, place: int) -> Drawn:
    relation = INTERACTIONS[place // 3 % len(INTERACTIONS)]
    description = Description(tuple(_things(rng, 2, "color", "shape")), relation)
    return description, _pair_text(description, rng)


def _complex(rng: np.random.Generator, place: int) -> Drawn:
    """Three objects, or two with texture (and now and then size); half of either with a relation."""
    three, related = rng.random() < 0.5, rng.random() < 0.5
    things = _things(rng, 3 if three else 2, "color", "shape")
    relation = _pick(rng, SPATIAL if three or rng.random() < 0.5 else INTERACTIONS) if related else None
    if not three:
        things = [_enriched(o, k, relation, rng) for k, o in enumerate(things)]
    description = Description(tuple(things), relation)
    return description, phrase(description, rng)


def _enriched(
    thing: ObjectDescription, place: int, relation: str | None, rng: np.random.Generator
) -> ObjectDescription:
    """The object with a named texture and, half the time, the size that it has in this relation."""
    thing = replace(thing, texture=_pick(rng, TEXTURES))
    if relation in INTERACTIONS:
        size = "large" if place == 1 and relation in LARGE_BACK else "small"
    else:
        size = "large" if place == 0 and rng.random() < 0.5 else "small"
    return replace(thing, size=size) if size == "large" or rng.random() < 0.5 else thing


CATEGORIES: dict[str, Callable[[np.random.Generator, int], Drawn]] = {
    "color": _color,
    "shape": _shape,
    "texture": _texture,
    "spatial": _spatial,
    "non-spatial": _non_spatial,
    "complex": _complex,
}
# the combination that a category's held-out prompts are about; None: any
_HELDOUT_ABOUT = {
    "color": "color-shape",
    "shape": "color-shape",
    "texture": "texture-shape",
    "spatial": "relation",
    "non-spatial": "relation",
    "complex": None,
}


def _prompt(name: str, category: str, text: str, description: Description, kinds: tuple[str, ...]) -> Prompt:
    return Prompt(name, category, text, HELD_OUT if kinds else SEEN, description, kinds)


def _fits_split(kinds: tuple[str, ...], category: str, held_out: bool) -> bool:
    """Seen prompts hold nothing held out; the others just what their category is about, and nothing else."""
    if not held_out:
        return not kinds
    about = _HELDOUT_ABOUT[category]
    return bool(kinds) if about is None else kinds == (about,)


def generate(count: int, *, seed: int) -> dict[str, list[Prompt]]:
    """`count` prompts a category, a third of them held out; no text occurs twice, in any category."""
    used: set[str] = set()
    lists = {}
    for number, (category, draw) in enumerate(CATEGORIES.items()):
        rng = np.random.default_rng([seed, number])
        lists[category] = []
        while len(lists[category]) < count:
            place = len(lists[category])
            description, text = draw(rng, place)
            kinds = heldout_kinds(description)
            if text in used or not _fits_split(kinds, category, place % 3 == 2):
                continue
            if realise(description, rng) is None:
                continue
            used.add(text)
            lists[category].append(_prompt(f"{category}-{place:04d}", category, text, description, kinds))
    return lists


# ---- lists on disk ---------------------------------------------------------------------------------------


def dump(prompts: list[Prompt]) -> bytes:
    """One JSON object a line; attributes that are not named are left out."""
    lines = []
    for prompt in prompts:
        things = [{k: v for k, v in asdict(o).items() if v is not None} for o in prompt.claim.objects]
        row = {"id": prompt.id, "text": prompt.text, "split": prompt.split, "heldout": list(prompt.heldout)}
        lines.append(json.dumps({**row, "objects": things, "relation": prompt.claim.relation}))
    return ("\n".join(lines) + "\n").encode()


def parse(data: bytes, category: str) -> list[Prompt]:
    """The inverse of `dump`."""
    prompts = []
    for line in data.decode().splitlines():
        row = json.loads(line)
        things = tuple(ObjectDescription(**o) for o in row["objects"])
        description = Description(things, row["relation"])
        prompts.append(_prompt(row["id"], category, row["text"], description, tuple(row["heldout"])))
    return prompts


def read_pinned(path: Path, *, sha256: str) -> bytes:
    """The bytes of a prompt list; UserError if the file is not the one the protocol names."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"prompt list {path} is missing: reinstall the package") from None
    found = hash_of(data)
    if found != sha256:
        raise UserError(f"{path} was changed: sha256 must be {sha256[:12]}..., got {found[:12]}...")
    return data


def load(path: Path, category: str, *, sha256: str) -> list[Prompt]:
    """A pinned prompt list; UserError if the file is not the one the protocol names."""
    return parse(read_pinned(path, sha256=sha256), category)


def write(folder: Path, *, count: int, seed: int) -> dict[str, str]:
    """Write the lists as <category>.jsonl; returns their sha256 by category."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for category, prompts in generate(count, seed=seed).items():
        data = dump(prompts)
        (folder / f"{category}.jsonl").write_bytes(data)
        digests[category] = hash_of(data)
    return digests
