"""The exact judge of motion: follows each asked object through a clip and says where it went.

Frames are read by the judge of pictures (bench.scorers.shapes). In each frame an asked object is the
detection that has its named attributes; where several have, the one nearest to where it was before.
Of an object:
  direction: that of the larger component of its way from the first to the last frame in which it is found, if
    that exceeds half of what was asked over these frames; else it stands still. An object that is found in
    frames less than half of the clip apart is lost. One that bounces is asked so twice: up to its turn, and
    from there back.
  still: in no frame further than half the way of the slowest thing (7 px in 8 frames) from where it began.
  speed, where the caption names it: the nearest of 2, 4 and 6 px a frame.
Three scores of a clip:
  motion       1 if every object's motion is right, else 0
  appearance   mean over frames of the picture judge's score: every asked object is there, and nothing else
  persistence  share of frames in which an asked object is found, mean over objects
and what is told beside the first:
  direction    1 if every object that is asked to move goes the right way, whatever the others do
  binding      of clips with several objects: 1 if each does what is asked of it and not of another
  step px      mean way between neighbouring frames of what is asked to move, where it is found in both
  unevenness px  standard deviation of these ways: 0 for a uniform motion
"""

# F frames

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bench.prompts import Prompt
from bench.prompts.motion import redraw_motion
from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.shapes import JUDGE_VERSION, Detection, detect, judge_detections, matches, pairings, say
from bench.systems.images import fit as resized
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.motion import (
    FAST,
    MOTION_VERSION,
    OPPOSITES,
    SLOW,
    SPEED,
    Motion,
    Movement,
)
from gentron.shapes.motion_captions import ClipDescription
from gentron.shapes.scene import WORLD_VERSION

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


def _direction(dx: float, dy: float) -> Motion:
    """Of the larger component; y points down."""
    if abs(dx) >= abs(dy):
        return Motion.RIGHT if dx > 0 else Motion.LEFT
    return Motion.DOWN if dy > 0 else Motion.UP


def _is_lost(found: Sequence[int], first: int, last: int) -> bool:
    """Found in frames less than half of the way from one frame to another apart, or not at all."""
    return not found or (found[-1] - found[0]) * 2 < last - first


def _leg(track: Track, first: int, last: int, speed: float) -> Seen:
    """What the object did from one frame to another, asked to go `speed` pixels a frame."""
    found = [frame for frame in track.found if first <= frame <= last]
    if _is_lost(found, first, last):
        return Seen(LOST)
    span = found[-1] - found[0]
    dx, dy = track.way(found[0], found[-1])
    along = dx if abs(dx) >= abs(dy) else dy
    if abs(along) <= speed * span / 2:
        return Seen(Motion.STILL, abs(along), abs(along) / max(span, 1))
    return Seen(_direction(dx, dy), abs(along), abs(along) / span)


def _at_rest(track: Track) -> Seen:
    """Still if it never goes far from where it began; else the direction of its furthest place."""
    last = len(track.places) - 1
    found = track.found
    if _is_lost(found, 0, last):
        return Seen(LOST)
    ways = [track.way(found[0], frame) for frame in found]
    furthest = int(np.argmax([max(abs(dx), abs(dy)) for dx, dy in ways]))
    dx, dy = ways[furthest]
    size = max(abs(dx), abs(dy))
    if size <= SLOW * last / 2:
        return Seen(Motion.STILL, size)
    return Seen(_direction(dx, dy), size)


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


class Score(NamedTuple):
    """In [0, 1], and a sentence that says why."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class ClipJudgement:
    """The three scores of a clip and the numbers beside the first; see the module's docstring."""

    motion: Score
    appearance: Score
    persistence: Score
    parts: dict[str, float]


def look(frames: np.ndarray) -> list[list[Detection]]:
    """Detections of each frame; frames: (F, 64, 64, 3) uint8."""
    return [detect(frame) for frame in frames]


def judge_clip(found: Sequence[list[Detection]], claim: ClipDescription) -> ClipJudgement:
    """Score a claim against the detections of each frame."""
    tracks = follow(found, Description(claim.objects))
    verdicts = [judge_track(t, m) for t, m in zip(tracks, claim.moves, strict=True)]
    return ClipJudgement(
        motion=_motion(verdicts, claim),
        appearance=_appearance(found, Description(claim.objects)),
        persistence=_persistence(tracks, claim),
        parts=_parts(tracks, verdicts, claim),
    )


def _name(thing: ObjectDescription) -> str:
    return say(thing) if thing.shape else f"{say(thing)} object"


def _motion(verdicts: Sequence[Verdict], claim: ClipDescription) -> Score:
    said = [
        f"{_name(thing)} {verdict.said}" + ("" if verdict.right else f", asked {_asked(movement)}")
        for thing, verdict, movement in zip(claim.objects, verdicts, claim.moves, strict=True)
    ]
    return Score(float(all(v.right for v in verdicts)), "; ".join(said))


def _appearance(found: Sequence[list[Detection]], description: Description) -> Score:
    pictures = [judge_detections(seen, description) for seen in found]
    scores = [picture.score for picture in pictures]
    worst = int(np.argmin(scores))
    reason = f"frame {worst}: {pictures[worst].reason}" if scores[worst] < 1 else "every frame ok"
    return Score(float(np.mean(scores)), reason)


def _persistence(tracks: Sequence[Track], claim: ClipDescription) -> Score:
    said = [
        f"{_name(thing)} in {len(track.found)} of {len(track.places)} frames"
        for thing, track in zip(claim.objects, tracks, strict=True)
    ]
    return Score(float(np.mean([track.share_found for track in tracks])), "; ".join(said))


def _parts(tracks: Sequence[Track], verdicts: Sequence[Verdict], claim: ClipDescription) -> dict[str, float]:
    moving = [k for k, movement in enumerate(claim.moves) if movement.speed]
    steps = [step for k in moving for step in tracks[k].steps()]
    parts = {}
    if moving:
        parts["direction"] = float(all(verdicts[k].direction for k in moving))
    if len(verdicts) > 1:
        parts["binding"] = float(all(verdict.direction for verdict in verdicts))
    if steps:
        parts |= {"step px": float(np.mean(steps)), "unevenness px": float(np.std(steps))}
    return parts


def _asked(movement: Movement) -> str:
    speed = {SLOW: " slowly", FAST: " quickly"}.get(movement.speed, "")
    return f"{movement.motion}{speed}{' and back' if movement.turn is not None else ''}"


# ---- as a scorer -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a protocol says to this scorer."""

    version: int
    world_version: int
    motion_version: int
    image_size: int
    num_frames: int
    fps: float
    tested: str
    chance_seed: int
    chance_draws: int


MEASURES = ("appearance", "persistence")  # scores of every clip beside its motion, in a row's evidence


class MotionScorer:
    """The judge as gentron-bench calls it: one look at the frames scores its own claim and redrawn ones."""

    record = ScorerRecord(
        name="motion", version=MOTION_JUDGE_VERSION, settings={"picture_judge_version": JUDGE_VERSION}
    )

    def __init__(self, settings: Settings) -> None:
        asked = (settings.version, settings.world_version, settings.motion_version)
        installed = (MOTION_JUDGE_VERSION, WORLD_VERSION, MOTION_VERSION)
        if asked != installed:
            raise UserError(
                "the protocol asks for versions {}, {} and {} of the motion scorer, the world and its clips;"
                " installed are {}, {} and {}: install the matching release".format(*asked, *installed)
            )
        self._settings = settings

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        """A picture cannot be judged: this protocol's systems draw clips."""
        raise ValueError(f"the judge of motion scores clips, got a picture of prompt {prompt.id}")

    def score_clip(self, frames: np.ndarray, prompt: Prompt, sample: int) -> Scored:
        """(F, H, W, 3) uint8, of any size -> the definition at the top of this module."""
        wanted = self._settings.num_frames
        if len(frames) != wanted:
            raise ValueError(f"clips must have {wanted} frames, got {len(frames)} of prompt {prompt.id}")
        size, claim = self._settings.image_size, prompt.clip_claim
        found = look(np.stack([resized(frame, size) for frame in frames]))
        judgement = judge_clip(found, claim)
        measures = {name: getattr(judgement, name)._asdict() for name in MEASURES}
        return Scored(
            score=judgement.motion.value,
            reason=judgement.motion.reason,
            parts=judgement.parts | {name: measures[name]["value"] for name in MEASURES},
            evidence={"measures": measures, "found": [[say(d) for d in seen] for seen in found]},
            chance=self._chance(found, prompt, sample),
        )

    def _chance(self, found: Sequence[list[Detection]], prompt: Prompt, sample: int) -> float:
        """What this clip scores in motion, on average, when what is tested is redrawn."""
        # keyed by the prompt, so that a clip's chance level does not depend on what else was scored
        rng = np.random.default_rng([self._settings.chance_seed, sample, *prompt.id.encode()])
        drawn = [
            redraw_motion(prompt.clip_claim, self._settings.tested, rng)
            for _ in range(self._settings.chance_draws)
        ]
        return float(np.mean([judge_clip(found, claim).motion.value for claim in drawn]))


def build(settings: dict[str, Any], context: Context) -> MotionScorer:
    """The judge for one category; UserError if the installed one has another version."""
    return MotionScorer(from_dict(Settings, settings))
