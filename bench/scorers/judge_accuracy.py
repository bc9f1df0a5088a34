"""How often the judge is right: on pictures of known scenes, clean and degraded, and on false captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage

from bench.scorers.shapes import ATTRIBUTES, Detection, detect, judge_detections, relation_grade
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.render import render
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
    is_legible,
    scene_rng,
)

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Right answers and questions, by attribute, count, relation; and the mean score of captions.

    true_caption: of the scene's own full description.   false_captions: by what was made false in them.
    """

    right: Counter[str]
    asked: Counter[str]
    true_caption: float
    false_captions: dict[str, float]

    def share(self, name: str) -> float:
        return self.right[name] / self.asked[name]


def any_scene(rng: np.random.Generator) -> Scene:
    """A scene of any kind, held-out combinations included; kinds about as frequent as in the prompts."""
    kinds = (*(None,) * 5, *SPATIAL, *INTERACTIONS)
    while True:
        relation = kinds[int(rng.integers(len(kinds)))]
        count = 2 if relation in INTERACTIONS else int(rng.integers(1 if relation is None else 2, 4))
        sizes = ["small"] * count
        if relation in ("inside", "overlapping"):
            sizes[1] = "large"
        elif relation != "touching" and rng.random() < 1 / 3:
            sizes[int(rng.integers(count))] = "large"
        shapes, colors = rng.permutation(SHAPES)[:count], rng.permutation(list(COLORS))[:count]
        things = [
            SceneObject(str(shape), str(color), str(rng.choice(TEXTURES)), size)
            for shape, color, size in zip(shapes, colors, sizes, strict=True)
        ]
        scene = arrange(rng, things, relation) if is_legible(things, relation) else None
        if scene is not None:
            return scene


# ---- degradations ----------------------------------------------------------------------------------------


def _clean(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.round(image + rng.normal(0, 6, image.shape)), 0, 255).astype(np.uint8)


def _blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    soft = scipy.ndimage.gaussian_filter(image.astype(np.float32), (0.6, 0.6, 0))
    return _noisy(soft, rng)


CHANGES: dict[str, Change] = {"rendered": _clean, "noise 6": _noisy, "blur 0.6 + noise 6": _blurred}


# ---- measuring -------------------------------------------------------------------------------------------


def full_description(scene: Scene) -> Description:
    """Every attribute of every object, and the relation."""
    things = tuple(ObjectDescription(o.shape, o.color, o.texture, o.size) for o in scene.objects)
    return Description(things, scene.relation)


def falsified(description: Description, what: str, rng: np.random.Generator) -> Description | None:
    """The description with one attribute of all its objects, or the relation, made false; None without one.

    Interactions are replaced by another one: each excludes the others.
    """
    if what == "relation":
        relation = description.relation
        if relation is None:
            return None
        others = [r for r in INTERACTIONS if r != relation]
        return replace(description, relation=OPPOSITE.get(relation) or others[int(rng.integers(2))])
    values = {"shape": SHAPES, "color": tuple(COLORS), "texture": TEXTURES, "size": tuple(SIZES)}[what]
    taken = {getattr(o, what) for o in description.objects} if what in ("shape", "color") else set()
    things = []
    for thing in description.objects:
        wrong = [v for v in values if v != getattr(thing, what) and v not in taken]
        things.append(replace(thing, **{what: wrong[int(rng.integers(len(wrong)))]}))
    return replace(description, objects=tuple(things))


def _pair(scene: Scene, found: list[Detection]) -> list[Detection | None]:
    """For each object the nearest find that is not taken, those of its colour first."""
    left, pairs = list(found), []
    for thing in scene.objects:
        near = min(
            left,
            key=lambda d: (d.color != thing.color, abs(d.x - thing.x) + abs(d.y - thing.y)),
            default=None,
        )
        pairs.append(near)
        left = [d for d in left if d is not near]
    return pairs


def _mark(scene: Scene, found: list[Detection]) -> Iterator[tuple[str, bool]]:
    """(question, answered rightly) for everything the scene holds."""
    yield "count", len(found) == len(scene.objects)
    pairs = _pair(scene, found)
    for thing, seen in zip(scene.objects, pairs, strict=True):
        for name in ATTRIBUTES:
            yield name, seen is not None and getattr(seen, name) == getattr(thing, name)
    if scene.relation is not None:
        first, second = pairs[:2]
        holds = (
            first is not None and second is not None and relation_grade(scene.relation, first, second) == 1
        )
        yield ("spatial" if scene.relation in SPATIAL else scene.relation), holds


QUESTIONS = ("count", *ATTRIBUTES, "spatial", *INTERACTIONS)
FALSE = (*ATTRIBUTES, "relation", "other scene")


def measure(change: Change, *, count: int, seed: int) -> Accuracy:
    """Judge `count` pictures of random scenes after `change`."""
    right, asked = Counter(), Counter()
    true_scores: list[float] = []
    false_scores: dict[str, list[float]] = {name: [] for name in FALSE}
    before: Description | None = None
    for index in range(count):
        rng = scene_rng(seed, index)
        scene = any_scene(rng)
        found = detect(change(render(scene), rng))
        for name, is_right in _mark(scene, found):
            asked[name] += 1
            right[name] += is_right
        description = full_description(scene)
        true_scores.append(judge_detections(found, description).score)
        wrong = {name: falsified(description, name, rng) for name in FALSE[:-1]} | {"other scene": before}
        for name, caption in wrong.items():
            if caption is not None:
                false_scores[name].append(judge_detections(found, caption).score)
        before = description
    means = {name: float(np.mean(scores)) for name, scores in false_scores.items() if scores}
    return Accuracy(right=right, asked=asked, true_caption=float(np.mean(true_scores)), false_captions=means)
