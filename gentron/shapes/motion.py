"""Scenes that move: who goes where, how fast, and which combinations training never sees.

A clip is a scene and one movement for each of its objects. Its objects are small, plain and never interact:
they keep `MIN_GAP` pixels of free space in every frame. Starts are multiples of 4 px, not cells alone, and so
chosen that the whole path lies on the canvas. The pictures of a clip are those of the world (`render`).
"""

# F frames

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum

import numpy as np

from gentron.shapes.render import render
from gentron.shapes.scene import (
    CANVAS,
    COLORS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    heldout_color_shape,
)

MOTION_VERSION = 1  # part of every cache key and protocol of clips: a change of clips or captions raises it
NUM_FRAMES = 8
FPS = 4.0
SLOW, SPEED, FAST = 2, 4, 6  # pixels a frame; 8 would not fit: 7 steps of 8 and an object of 14 are 70 px
START_STEP = 4  # centres at the start are multiples of this
FIRST_START, LAST_START = 8, 56  # the outermost centres at which a small object fits
MIN_GAP = 4  # free pixels between two objects, along x or along y


class Motion(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    STILL = "still"


DIRECTIONS = (Motion.LEFT, Motion.RIGHT, Motion.UP, Motion.DOWN)
UNIT_STEPS = {
    Motion.LEFT: (-1, 0),
    Motion.RIGHT: (1, 0),
    Motion.UP: (0, -1),
    Motion.DOWN: (0, 1),
    Motion.STILL: (0, 0),
}
OPPOSITES = {
    Motion.LEFT: Motion.RIGHT,
    Motion.RIGHT: Motion.LEFT,
    Motion.UP: Motion.DOWN,
    Motion.DOWN: Motion.UP,
}


@dataclass(frozen=True, slots=True)
class Movement:
    """How one object moves; speed in pixels a frame, 0 when it stands still.

    turn: the frame in which it turns back, for one that bounces; None for one that goes straight on.
    """

    motion: Motion = Motion.STILL
    speed: int = 0
    turn: int | None = None

    def __post_init__(self) -> None:
        if self.speed < 0 or (self.speed == 0) != (self.motion is Motion.STILL):
            raise ValueError(f"speed must be 0 for what stands still, else > 0, got {self}")
        if self.turn is not None and (self.turn < 1 or not self.speed):
            raise ValueError(f"turn must be >= 1 and of something that moves, got {self}")

    def offset(self, frame: int) -> tuple[int, int]:
        """(dx, dy) in pixels from the start, in frame 0, 1, ...; a triangle wave for one that bounces."""
        steps = frame
        if self.turn is not None:
            steps = self.turn - abs(frame % (2 * self.turn) - self.turn)
        dx, dy = UNIT_STEPS[self.motion]
        return dx * self.speed * steps, dy * self.speed * steps


STILL = Movement()


@dataclass(frozen=True, slots=True)
class MovingScene:
    """The scene of frame 0 and the movement of each of its objects, in the same order."""

    scene: Scene
    moves: tuple[Movement, ...]

    def __post_init__(self) -> None:
        if len(self.scene.objects) != len(self.moves):
            raise ValueError(
                f"each object needs one movement, got {len(self.scene.objects)} objects"
                f" and {len(self.moves)} movements"
            )

    def at(self, frame: int) -> Scene:
        """The scene of a frame; its caption as a picture is `caption(clip.at(frame), rng)`."""
        objects = []
        for thing, movement in zip(self.scene.objects, self.moves, strict=True):
            dx, dy = movement.offset(frame)
            objects.append(thing.at(thing.x + dx, thing.y + dy))
        return Scene(tuple(objects))


def render_clip(clip: MovingScene, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """The frames, (F, 64, 64, 3) uint8."""
    return np.stack([render(clip.at(frame)) for frame in range(num_frames)])


def reverse(movement: Movement) -> Movement:
    """The same with the opposite direction; what stands still goes left instead."""
    if movement.motion is Motion.STILL:
        return Movement(Motion.LEFT, SPEED)
    return replace(movement, motion=OPPOSITES[movement.motion])


# ---- held-out combinations ------------------------------------------------------------------------------


def heldout_motion(color: str, shape: str, motion: Motion) -> bool:
    """One shape for each colour and motion, never one of `heldout_color_shape`: what is held out is how a
    thing moves that training knows, and knows to move otherwise."""
    place = (SHAPES.index(shape) - 3 * tuple(COLORS).index(color) - 1) % len(SHAPES)
    return place == 1 + tuple(Motion).index(motion)


def is_heldout_clip(clip: MovingScene) -> bool:
    """True if any combination in the clip, those of bystanders included, is one that training never sees."""
    return any(
        heldout_color_shape(o.color, o.shape) or heldout_motion(o.color, o.shape, m.motion)
        for o, m in zip(clip.scene.objects, clip.moves, strict=True)
    )


# ---- paths -----------------------------------------------------------------------------------------------


def _starts(movement: Movement, num_frames: int, axis: int) -> range:
    """The centres along an axis (0: x) from which the whole path fits."""
    offsets = [movement.offset(frame)[axis] for frame in range(num_frames)]
    low = FIRST_START - min(offsets)
    return range(low + -low % START_STEP, LAST_START - max(offsets) + 1, START_STEP)


def fits(movement: Movement, num_frames: int) -> bool:
    """Whether the canvas has room for the path."""
    return all(len(_starts(movement, num_frames, axis)) for axis in (0, 1))


def keeps_apart(clip: MovingScene, num_frames: int) -> bool:
    """Whether `MIN_GAP` pixels stay free between any two objects in every frame."""
    things, moves = clip.scene.objects, clip.moves
    for i in range(len(things)):
        for j in range(i):
            least = (SIZES[things[i].size] + SIZES[things[j].size]) // 2 + MIN_GAP
            for frame in range(num_frames):
                (ax, ay), (bx, by) = moves[i].offset(frame), moves[j].offset(frame)
                dx, dy = things[i].x + ax - things[j].x - bx, things[i].y + ay - things[j].y - by
                if max(abs(dx), abs(dy)) < least:
                    return False
    return True


def place_clip(
    rng: np.random.Generator,
    objects: Sequence[SceneObject],
    moves: Sequence[Movement],
    *,
    num_frames: int = NUM_FRAMES,
    tries: int = 100,
) -> MovingScene | None:
    """Give small objects starts from which all paths fit without a meeting; None if none was found."""
    ranges = [(_starts(m, num_frames, 0), _starts(m, num_frames, 1)) for m in moves]
    if not all(len(along) for pair in ranges for along in pair):
        return None
    for _ in range(tries):
        placed = [
            thing.at(xs[int(rng.integers(len(xs)))], ys[int(rng.integers(len(ys)))])
            for thing, (xs, ys) in zip(objects, ranges, strict=True)
        ]
        clip = MovingScene(Scene(tuple(placed)), tuple(moves))
        if keeps_apart(clip, num_frames):
            return clip
    return None


# ---- sampling --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionMixture:
    """Shares of the kinds of training clips; they sum to 1.

    Rejections (held-out combinations, no room) make the shares of what needs much room somewhat smaller.
    """

    alone: float = 0.42
    """One object that moves."""
    beside: float = 0.30
    """One that moves beside one that stands still."""
    crowd: float = 0.03
    """One that moves beside two that stand still."""
    two_movers: float = 0.08
    """Two that move in different directions."""
    still: float = 0.07
    """One or two objects that stand still."""
    slow: float = 0.03
    """One that moves slowly, in half of the clips beside one that stands still; so are the next two."""
    fast: float = 0.03
    bounce: float = 0.04
    """There and back."""

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares must be >= 0 and sum to 1, got {self}")

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(getattr(self, kind) for kind in KINDS)


KINDS = tuple(field.name for field in fields(MotionMixture))
DEFAULT_MOTION_MIXTURE = MotionMixture()


def _draw_moves(rng: np.random.Generator, kind: str, num_frames: int) -> tuple[Movement, ...]:
    first, second = (DIRECTIONS[int(i)] for i in rng.permutation(len(DIRECTIONS))[:2])
    with_bystander = rng.random() < 0.5
    if kind == "still":
        return (STILL,) * (1 + with_bystander)
    if kind == "two_movers":
        return Movement(first, SPEED), Movement(second, SPEED)
    mover = {
        "slow": Movement(first, SLOW),
        "fast": Movement(first, FAST),
        "bounce": Movement(first, SPEED, max(1, num_frames // 2)),
    }.get(kind, Movement(first, SPEED))
    num_bystanders = {"alone": 0, "beside": 1, "crowd": 2}.get(kind, int(with_bystander))
    return (mover, *[STILL] * num_bystanders)


def _draw_objects(rng: np.random.Generator, count: int) -> list[SceneObject]:
    """Small plain objects of different colours and different shapes."""
    shapes, colors = rng.permutation(len(SHAPES)), rng.permutation(len(COLORS))
    names = tuple(COLORS)
    return [SceneObject(SHAPES[s], names[c]) for s, c in zip(shapes[:count], colors[:count], strict=True)]


def sample_clip(
    rng: np.random.Generator,
    *,
    num_frames: int = NUM_FRAMES,
    mixture: MotionMixture = DEFAULT_MOTION_MIXTURE,
) -> MovingScene:
    """A training clip: never one with a held-out combination.

    Raises ValueError if the canvas is too small for so many frames at the ordinary speed.
    """
    if num_frames < 1 or not fits(Movement(Motion.RIGHT, SPEED), num_frames):
        longest = (LAST_START - FIRST_START) // SPEED + 1
        raise ValueError(
            f"num_frames must be from 1 to {longest} for a path of {SPEED} px a frame on {CANVAS} px,"
            f" got {num_frames}"
        )
    while True:
        kind = KINDS[int(rng.choice(len(KINDS), p=mixture.shares))]
        moves = _draw_moves(rng, kind, num_frames)
        objects = _draw_objects(rng, len(moves))
        if is_heldout_clip(MovingScene(Scene(tuple(objects)), moves)):
            continue
        clip = place_clip(rng, objects, moves, num_frames=num_frames)
        if clip is not None:
            return clip
