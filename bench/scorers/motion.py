"""The exact judge of motion: follows each asked object through a clip and says where it went.

Frames are read by the judge of pictures (bench.scorers.shapes). In each frame an asked object is the detection
that has its named attributes; where several have, the one nearest to where it was before. Definitions, for an
object that is asked to go d pixels in all:
  direction: that of the larger component of its way from the first to the last frame in which it is found, if
    that exceeds half of what was asked over these frames; else it stands still. An object that is found in
    frames less than half of the clip apart is lost. One that bounces is asked so twice: up to its turn, and
    from there back.
  still: in no frame further than half the way of the slowest thing (7 px in 8 frames) from where it began.
  speed, where the caption names it: the nearest of 2, 4 and 6 px a frame.
Score of a clip: 1 if every object's motion is right, else 0. Its parts:
  direction   1 if every object that is asked to move goes the right way, whatever the others do
  binding     of clips with several objects: 1 if each does what is asked of it and not of another
  frames      mean over frames of the picture judge's score (every asked object and nothing else)
  identity    share of frames in which an asked object is found, mean over objects
  step px     mean way between neighbouring frames of what is asked to move, where it is found in both
  unevenness px  standard deviation of these ways: 0 for a uniform motion
"""

# F frames

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from bench.images import fit as resized
from bench.prompts import Prompt
from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.shapes import JUDGE_VERSION, Detection, detect, judge_detections, matches, pairings, say
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.shapes.captions import Description
from gentron.shapes.motion import (
    DIRECTIONS,
    FAST,
    MOTION_VERSION,
    OPPOSITES,
    SLOW,
    SPEED,
    STILL,
    Motion,
    Movement,
)
from gentron.shapes.motion_captions import ClipDescription

MOTION_JUDGE_VERSION = 1  # a change of any score is a new version and a new protocol
SPEEDS = (SLOW, SPEED, FAST)
LOST = "lost"

Place = tuple[float, float]


# ---- tracks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Track:
    """Where an object was found, frame by frame: its centre in pixels, None where it was not."""

    places: tuple[Place | None, ...]

    @property
    def found(self) -> list[int]:
        return [frame for frame, place in enumerate(self.places) if place is not None]

    @property
    def share_found(self) -> float:
        return len(self.found) / len(self.places)

    def way(self, first: int, last: int) -> tuple[float, float]:
        """(dx, dy) between two frames in which it was found."""
        a, b = self.places[first], self.places[last]
        assert a is not None and b is not None
        return b[0] - a[0], b[1] - a[1]

    def steps(self) -> list[float]:
        """Ways in pixels between neighbouring frames, where it was found in both."""
        both = [(a, b) for a, b in pairwise(self.places) if a is not None and b is not None]
        return [float(np.hypot(b[0] - a[0], b[1] - a[1])) for a, b in both]


def _distance(found: Detection, place: Place | None) -> float:
    return 0.0 if place is None else float(np.hypot(found.x - place[0], found.y - place[1]))


def _best_pairing(
    found: Sequence[Detection], description: Description, before: Sequence[Place | None]
) -> tuple[int | None, ...]:
    """The pairing of asked objects with detections that finds most of them, then moves them least."""
    fits = [[k for k, d in enumerate(found) if matches(wanted, d)] for wanted in description.objects]

    def key(pairing: tuple[int | None, ...]) -> tuple[int, float]:
        ways = [_distance(found[k], place) for k, place in zip(pairing, before, strict=True) if k is not None]
        return len(ways), -sum(ways)

    return max(pairings(fits), key=key)


def follow(frames: Sequence[Sequence[Detection]], description: Description) -> list[Track]:
    """A track of each asked object, from the detections of each frame."""
    last: list[Place | None] = [None] * len(description.objects)
    rows: list[list[Place | None]] = [[] for _ in description.objects]
    for found in frames:
        pairing = _best_pairing(found, description, last)
        for number, k in enumerate(pairing):
            place = None if k is None else (found[k].x, found[k].y)
            rows[number].append(place)
            last[number] = place or last[number]
    return [Track(tuple(row)) for row in rows]


# ---- motion ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What an object did: a direction, "still" or "lost"; the way along it in pixels, and pixels a frame."""

    motion: str
    way: float = 0.0
    speed: float = 0.0


def _leg(track: Track, first: int, last: int, speed: float) -> Seen:
    """What the object did from one frame to another, asked to go `speed` pixels a frame."""
    found = [frame for frame in track.found if first <= frame <= last]
    if not found or (found[-1] - found[0]) * 2 < last - first:
        return Seen(LOST)
    span = found[-1] - found[0]
    dx, dy = track.way(found[0], found[-1])
    along = dx if abs(dx) >= abs(dy) else dy
    if abs(along) <= speed * span / 2:
        return Seen(Motion.STILL, abs(along), abs(along) / max(span, 1))
    positive, negative = (Motion.RIGHT, Motion.LEFT) if abs(dx) >= abs(dy) else (Motion.DOWN, Motion.UP)
    return Seen(positive if along > 0 else negative, abs(along), abs(along) / span)


def _at_rest(track: Track) -> Seen:
    """Still if it never goes far from where it began; else the direction of its furthest place."""
    last = len(track.places) - 1
    found = track.found
    if not found or (found[-1] - found[0]) * 2 < last:
        return Seen(LOST)
    ways = [track.way(found[0], frame) for frame in found]
    furthest = int(np.argmax([max(abs(dx), abs(dy)) for dx, dy in ways]))
    dx, dy = ways[furthest]
    size = max(abs(dx), abs(dy))
    if size <= SLOW * last / 2:
        return Seen(Motion.STILL, size)
    if abs(dx) >= abs(dy):
        return Seen(Motion.RIGHT if dx > 0 else Motion.LEFT, size)
    return Seen(Motion.DOWN if dy > 0 else Motion.UP, size)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an object went the way that was asked, and whether all of its motion is right; what it did, in
    words."""

    direction: bool
    right: bool
    said: str


def _say(seen: Seen) -> str:
    if seen.motion in (LOST, Motion.STILL):
        return "lost" if seen.motion == LOST else "stands still"
    return f"moves {seen.motion} {seen.way:.0f} px"


def _speed_is_right(seen: Seen, asked: int) -> bool:
    """Only what a caption names: the ordinary speed has no word."""
    if asked not in (SLOW, FAST):
        return True
    return min(SPEEDS, key=lambda speed: abs(speed - seen.speed)) == asked


def judge_track(track: Track, movement: Movement) -> Verdict:
    """Whether an object does what is asked of it."""
    last = len(track.places) - 1
    if movement.motion is Motion.STILL:
        seen = _at_rest(track)
        right = seen.motion == Motion.STILL
        return Verdict(right, right, _say(seen))
    if movement.turn is None:
        seen = _leg(track, 0, last, movement.speed)
        right = seen.motion == movement.motion
        said = _say(seen)
        if right and not _speed_is_right(seen, movement.speed):
            return Verdict(True, False, f"{said}, {seen.speed:.1f} px a frame for {movement.speed}")
        return Verdict(right, right, said)
    out, back = (
        _leg(track, 0, movement.turn, movement.speed),
        _leg(track, movement.turn, last, movement.speed),
    )
    right = out.motion == movement.motion
    return Verdict(
        right, right and back.motion == OPPOSITES[movement.motion], f"{_say(out)}, then {_say(back)}"
    )


# ---- clips -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClipJudgement:
    """`score` 0 or 1, a sentence that says why, and the numbers behind it."""

    score: float
    reason: str
    parts: dict[str, float]


def read_frames(frames: np.ndarray) -> list[list[Detection]]:
    """Detections of each frame; frames: (F, 64, 64, 3) uint8."""
    return [detect(frame) for frame in frames]


def judge_motion(found: Sequence[Sequence[Detection]], claim: ClipDescription) -> ClipJudgement:
    """Score a claim against the detections of each frame; see the module's docstring."""
    description = Description(claim.objects)
    tracks = follow(found, description)
    verdicts = [judge_track(t, m) for t, m in zip(tracks, claim.moves, strict=True)]
    pictures = [judge_detections(list(seen), description) for seen in found]
    moving = [k for k, movement in enumerate(claim.moves) if movement.speed]
    steps = [step for k in moving for step in tracks[k].steps()]
    right = all(v.right for v in verdicts)
    parts = {
        "frames": float(np.mean([p.score for p in pictures])),
        "identity": float(np.mean([t.share_found for t in tracks])),
    }
    if moving:
        parts["direction"] = float(all(verdicts[k].direction for k in moving))
    if len(verdicts) > 1:
        parts["binding"] = float(all(v.direction for v in verdicts))
    if steps:
        parts["step px"] = float(np.mean(steps))
        parts["unevenness px"] = float(np.std(steps))
    said = [f"{say(o)} {v.said}" + ("" if v.right else f", asked {_asked(m)}")
            for o, v, m in zip(claim.objects, verdicts, claim.moves, strict=True)]  # fmt: skip
    worst = int(np.argmin([p.score for p in pictures]))
    if pictures[worst].score < 1:
        said.append(f"frame {worst}: {pictures[worst].reason}")
    return ClipJudgement(float(right), "; ".join(said), parts)


def _asked(movement: Movement) -> str:
    if movement.motion is Motion.STILL:
        return "still"
    speed = {SLOW: " slowly", FAST: " quickly"}.get(movement.speed, "")
    return f"{movement.motion}{speed}{' and back' if movement.turn is not None else ''}"


# ---- chance ----------------------------------------------------------------------------------------------

TESTED = ("direction", "motion", "speed")


def redraw_motion(claim: ClipDescription, tested: str, rng: np.random.Generator) -> ClipDescription:
    """The claim with what is tested drawn uniformly: what a clip made without regard to it scores.

    direction: of each object that moves, two of them never the same.   motion: the same with standing still
    among the choices, of every object.   speed: slowly or quickly, of each that moves.
    """
    if tested == "speed":
        moves = [replace(m, speed=(SLOW, FAST)[int(rng.integers(2))]) if m.speed else m for m in claim.moves]
        return replace(claim, moves=tuple(moves))
    if tested == "motion":
        options = [STILL, *(Movement(direction, SPEED) for direction in DIRECTIONS)]
        return replace(claim, moves=tuple(options[int(rng.integers(5))] for _ in claim.moves))
    if tested != "direction":
        raise ValueError(f"unknown tested property '{tested}'; known: {', '.join(TESTED)}")
    drawn = iter(rng.permutation(len(DIRECTIONS)))
    moves = [replace(m, motion=DIRECTIONS[int(next(drawn))]) if m.speed else m for m in claim.moves]
    return replace(claim, moves=tuple(moves))


# ---- as a scorer -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a protocol says to this scorer."""

    version: int
    motion_version: int
    image_size: int
    tested: str
    chance_seed: int
    chance_draws: int


class MotionScorer:
    """The judge as gentron-bench calls it: one look at the frames scores its own claim and redrawn ones."""

    record = ScorerRecord(
        name="motion", version=MOTION_JUDGE_VERSION, settings={"picture_judge_version": JUDGE_VERSION}
    )

    def __init__(self, settings: Settings) -> None:
        if (settings.version, settings.motion_version) != (MOTION_JUDGE_VERSION, MOTION_VERSION):
            raise UserError(
                f"the protocol asks for scorer motion version {settings.version} and clips of version"
                f" {settings.motion_version}; installed are {MOTION_JUDGE_VERSION} and {MOTION_VERSION}:"
                " install the matching release"
            )
        self._settings = settings

    def score_clip(self, frames: np.ndarray, prompt: Prompt, sample: int) -> Scored:
        """(F, H, W, 3) uint8 of any size -> the definition at the top of this module, with chance levels."""
        size = self._settings.image_size
        found = read_frames(np.stack([resized(frame, size) for frame in frames]))
        judgement = judge_motion(found, prompt.clip_claim)
        # keyed by the prompt, so that a clip's chance level does not depend on what else was scored
        rng = np.random.default_rng([self._settings.chance_seed, sample, *prompt.id.encode()])
        drawn = [
            redraw_motion(prompt.clip_claim, self._settings.tested, rng)
            for _ in range(self._settings.chance_draws)
        ]
        return Scored(
            score=judgement.score,
            reason=judgement.reason,
            parts=judgement.parts,
            evidence={"found": [[say(d) for d in seen] for seen in found]},
            chance=float(np.mean([judge_motion(found, claim).score for claim in drawn])),
        )


def build(settings: dict[str, Any], context: Context) -> MotionScorer:
    """The judge for one category; UserError if the installed one has another version."""
    return MotionScorer(from_dict(Settings, settings))
