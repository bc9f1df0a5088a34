"""How often the judge of motion is right: on known clips, clean and degraded, and on false captions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from bench.scorers.judge_accuracy import Change
from bench.scorers.motion import judge_clip, look
from gentron.data.keyed import Stream, keyed_rng
from gentron.shapes.captions import ObjectDescription
from gentron.shapes.motion import (
    DIRECTIONS,
    FAST,
    NUM_FRAMES,
    SLOW,
    SPEED,
    STILL,
    Movement,
    MovingScene,
    place_clip,
    render_clip,
)
from gentron.shapes.motion_captions import ClipDescription, opposite
from gentron.shapes.scene import COLORS, SHAPES, SceneObject

TURN = NUM_FRAMES // 2
QUESTIONS = ("left", "right", "up", "down", "still", "slow", "fast", "bounce", "two objects", "every frame")
FALSE = ("opposite", "other object", "other speed", "no return")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipAccuracy:
    """Right answers and clips asked, by question; `false_captions`: the share of clips that pass for what
    they are not, by what was made false, and how many were tried."""

    right: Counter[str]
    asked: Counter[str]
    false_captions: dict[str, tuple[float, int]]

    def share(self, name: str) -> float:
        return self.right[name] / self.asked[name]


def any_clip(rng: np.random.Generator) -> MovingScene:
    """A clip of any kind, held-out combinations included; kinds about as frequent as in the prompts."""
    while True:
        first, second = (DIRECTIONS[int(i)] for i in rng.permutation(len(DIRECTIONS))[:2])
        plain = Movement(first, SPEED)
        kinds = (
            *((plain,), (plain, STILL), (plain, Movement(second, SPEED)), (STILL,), (STILL, STILL)),
            *((Movement(first, SLOW),), (Movement(first, FAST),), (Movement(first, SPEED, TURN), STILL)),
        )
        moves = kinds[int(rng.integers(len(kinds)))]
        shapes, colors = rng.permutation(SHAPES), rng.permutation(list(COLORS))
        things = [SceneObject(str(shapes[k]), str(colors[k])) for k in range(len(moves))]
        clip = place_clip(rng, things, moves)
        if clip is not None:
            return clip


def full_claim(clip: MovingScene) -> ClipDescription:
    """Shape and colour of every object, and how it moves."""
    things = tuple(ObjectDescription(o.shape, o.color) for o in clip.scene.objects)
    return ClipDescription(things, clip.moves)


def falsified(claim: ClipDescription, what: str) -> ClipDescription | None:
    """The claim with its motion made false; None where there is nothing of the kind in it."""
    first = claim.moves[0]
    if what == "opposite":
        return opposite(claim)
    if what == "other object" and len(set(claim.moves)) == 2:
        return replace(claim, moves=claim.moves[::-1])
    if what == "other speed" and first.speed in (SLOW, FAST):
        return replace(claim, moves=(replace(first, speed=SLOW + FAST - first.speed), *claim.moves[1:]))
    if what == "no return" and first.turn is not None:
        return replace(claim, moves=(replace(first, turn=None), *claim.moves[1:]))
    return None


def _questions(claim: ClipDescription) -> list[str]:
    """What a clip asks of the judge, beside whether every frame is right."""
    names = [str(movement.motion) for movement in claim.moves]
    names += [{SLOW: "slow", FAST: "fast"}[m.speed] for m in claim.moves if m.speed in (SLOW, FAST)]
    names += ["bounce"] * any(m.turn is not None for m in claim.moves)
    names += ["two objects"] * (len(claim.moves) > 1)
    return list(dict.fromkeys(names))


def measure_clips(change: Change, *, count: int, seed: int) -> ClipAccuracy:
    """Judge `count` random clips, each frame after `change`."""
    right, asked = Counter(), Counter()
    passed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for index in range(count):
        rng = keyed_rng(seed, index, Stream.CLIP)
        clip = any_clip(rng)
        found = look(np.stack([change(frame, rng) for frame in render_clip(clip)]))
        claim = full_claim(clip)
        judged = judge_clip(found, claim)
        for name in _questions(claim):
            asked[name] += 1
            right[name] += judged.motion.value == 1
        asked["every frame"] += 1
        right["every frame"] += judged.appearance.value == 1 and judged.persistence.value == 1
        for what in FALSE:
            wrong = falsified(claim, what)
            if wrong is not None:
                tried[what] += 1
                passed[what] += judge_clip(found, wrong).motion.value == 1
    rates = {what: (passed[what] / tried[what], tried[what]) for what in FALSE if tried[what]}
    return ClipAccuracy(right=right, asked=asked, false_captions=rates)
