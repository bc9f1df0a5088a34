"""The judge of motion: what it says of clips that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.prompts import Prompt
from bench.scorers import Context, build_scorer
from bench.scorers.frames import ClipJudge, score_frames
from bench.scorers.judge_accuracy import CHANGES
from bench.scorers.motion import ClipJudgement, Track, judge_clip, judge_track, look
from bench.scorers.motion_accuracy import FALSE, QUESTIONS, measure_clips
from bench.systems.samples import Frame
from gentron.errors import UserError
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.motion import STILL, Motion, Movement, MovingScene, render_clip
from gentron.shapes.motion_captions import ClipDescription
from gentron.shapes.render import render
from gentron.shapes.scene import Scene, SceneObject

RED_CIRCLE = SceneObject("circle", "red", x=12, y=12)
BLUE_SQUARE = SceneObject("square", "blue", x=12, y=48)
CIRCLE, SQUARE = ObjectDescription("circle", "red"), ObjectDescription("square", "blue")
RIGHT, LEFT, DOWN = (Movement(motion, 4) for motion in (Motion.RIGHT, Motion.LEFT, Motion.DOWN))


def clip(*pairs: tuple[SceneObject, Movement]) -> np.ndarray:
    return render_clip(MovingScene(Scene(tuple(o for o, _ in pairs)), tuple(m for _, m in pairs)))


def asked(*pairs: tuple[ObjectDescription, Movement]) -> ClipDescription:
    return ClipDescription(tuple(o for o, _ in pairs), tuple(m for _, m in pairs))


def judged(frames: np.ndarray, *pairs: tuple[ObjectDescription, Movement]) -> ClipJudgement:
    return judge_clip(look(frames), asked(*pairs))


# ---- motion ----------------------------------------------------------------------------------------------


def test_the_asked_motion_is_right_and_others_are_named() -> None:
    frames = clip((RED_CIRCLE, RIGHT))
    right = judged(frames, (CIRCLE, RIGHT))
    assert right.motion == (1.0, "red circle moves right 28 px")
    assert right.parts == {"direction": 1.0, "step px": 4.0, "unevenness px": 0.0}
    for wrong, words in ((LEFT, "left"), (DOWN, "down"), (STILL, "still")):
        said = judged(frames, (CIRCLE, wrong)).motion
        assert said.value == 0 and said.reason == f"red circle moves right 28 px, asked {words}"


def test_what_hardly_moves_stands_still() -> None:
    def drifting(step: float) -> np.ndarray:
        return np.stack([render(Scene((RED_CIRCLE.at(12 + round(step * k), 12),))) for k in range(8)])

    assert judged(drifting(1.0), (CIRCLE, STILL)).motion.value == 1  # 7 px: half the way of the slowest
    assert judged(drifting(1.2), (CIRCLE, STILL)).motion.value == 0
    assert judged(drifting(2.0), (CIRCLE, RIGHT)).motion.value == 0  # 14 px: not more than half of 28
    assert judged(drifting(2.2), (CIRCLE, RIGHT)).motion.value == 1


def test_a_wrong_object_that_moves_is_no_binding() -> None:
    frames = clip((RED_CIRCLE, STILL), (BLUE_SQUARE, RIGHT))
    said = judged(frames, (CIRCLE, RIGHT), (SQUARE, STILL))
    assert (said.motion.value, said.parts["direction"], said.parts["binding"]) == (0, 0, 0)
    assert said.motion.reason == (
        "red circle stands still, asked right; blue square moves right 28 px, asked still"
    )
    both = judged(clip((RED_CIRCLE, RIGHT), (BLUE_SQUARE, RIGHT)), (CIRCLE, RIGHT), (SQUARE, STILL))
    assert (both.motion.value, both.parts["direction"], both.parts["binding"]) == (0, 1, 0)


@pytest.mark.parametrize(("speed", "word"), [(2, "slowly"), (6, "quickly")])
def test_a_named_speed_must_be_right_and_the_ordinary_one_is_not_judged(speed: int, word: str) -> None:
    thing = RED_CIRCLE.at(8, 12)
    named = Movement(Motion.RIGHT, speed)
    assert judged(clip((thing, named)), (CIRCLE, named)).motion.value == 1
    ordinary = judged(clip((thing, RIGHT)), (CIRCLE, named))
    assert ordinary.motion.value == 0 and ordinary.parts["direction"] == 1
    assert ordinary.motion.reason.endswith(f"4.0 px a frame for {speed}, asked right {word}")
    assert judged(clip((thing, Movement(Motion.RIGHT, 6))), (CIRCLE, RIGHT)).motion.value == 1


def test_one_that_bounces_must_come_back() -> None:
    back = replace(RIGHT, turn=4)
    assert judged(clip((RED_CIRCLE, back)), (CIRCLE, back)).motion.value == 1
    on = judged(clip((RED_CIRCLE, RIGHT)), (CIRCLE, back)).motion
    assert on == (0, "red circle moves right 16 px, then moves right 12 px, asked right and back")
    assert judged(clip((RED_CIRCLE, back)), (CIRCLE, RIGHT)).motion.value == 0


def test_a_diagonal_goes_where_it_goes_furthest() -> None:
    track = Track(tuple((10.0 + 4 * k, 10.0 + 3 * k) for k in range(8)))
    assert judge_track(track, RIGHT).right and not judge_track(track, DOWN).right


def test_uneven_steps_are_told() -> None:
    frames = np.stack([render(Scene((RED_CIRCLE.at(12 + x, 12),))) for x in (0, 0, 0, 14, 14, 14, 28, 28)])
    said = judged(frames, (CIRCLE, RIGHT))
    assert said.motion.value == 1 and said.parts["step px"] == 4
    assert said.parts["unevenness px"] == pytest.approx(np.std([0, 0, 14, 0, 0, 14, 0]))


# ---- who is followed -------------------------------------------------------------------------------------


def test_an_object_that_changes_is_lost_and_the_frames_say_so() -> None:
    frames = clip((RED_CIRCLE, RIGHT))
    other = clip((SceneObject("star", "red", x=12, y=12), RIGHT))
    frames[5] = other[5]
    said = judged(frames, (CIRCLE, RIGHT))
    assert said.motion.value == 1
    assert said.persistence == (7 / 8, "red circle in 7 of 8 frames")
    assert said.appearance == (7 / 8, "frame 5: asked red circle, found red star")
    frames[3:] = other[3:]
    lost = judged(frames, (CIRCLE, RIGHT))
    assert lost.motion == (0, "red circle lost, asked right") and lost.persistence.value == 3 / 8


def test_only_the_frames_in_which_it_is_found_are_asked_for() -> None:
    frames = clip((RED_CIRCLE, RIGHT))
    frames[:2] = frames[7:] = 235
    assert judged(frames, (CIRCLE, RIGHT)).motion == (1, "red circle moves right 16 px")


def test_an_extra_object_lowers_the_appearance_alone() -> None:
    said = judged(clip((RED_CIRCLE, RIGHT), (BLUE_SQUARE, STILL)), (CIRCLE, RIGHT))
    assert (said.motion.value, said.persistence.value, said.appearance.value) == (1, 1, 0.5)


def test_where_two_fit_the_one_that_is_nearer_is_followed() -> None:
    """Two red circles of which one moves: the caption's is the same one in every frame."""
    frames = clip((RED_CIRCLE, RIGHT), (SceneObject("circle", "red", x=12, y=48), STILL))
    tracks = [judged(frames, (ObjectDescription(shape="circle"), m)).motion.value for m in (RIGHT, STILL)]
    assert sorted(tracks) == [0, 1]


def test_objects_named_by_one_attribute_are_told_apart() -> None:
    frames = clip((RED_CIRCLE, RIGHT), (BLUE_SQUARE, STILL))
    said = judged(frames, (ObjectDescription(color="red"), RIGHT), (ObjectDescription(shape="square"), STILL))
    assert said.motion.value == 1 and said.motion.reason.startswith("red object moves right")


# ---- accuracy --------------------------------------------------------------------------------------------


def test_the_judge_is_right_on_rendered_clips_and_believes_nothing_false() -> None:
    found = measure_clips(CHANGES["rendered"], count=60, seed=3)
    assert {name: found.share(name) for name in QUESTIONS} == dict.fromkeys(QUESTIONS, 1.0)
    assert {name: rate for name, (rate, _) in found.false_captions.items()} == dict.fromkeys(FALSE, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("change", list(CHANGES))
def test_the_judge_is_right_on_99_of_100_degraded_clips(change: str) -> None:
    found = measure_clips(CHANGES[change], count=300, seed=4)
    assert min(found.share(name) for name in QUESTIONS) >= 0.99
    assert max(rate for rate, _ in found.false_captions.values()) == 0


# ---- as a scorer -----------------------------------------------------------------------------------------

SETTINGS = {
    "version": 1, "world_version": 1, "motion_version": 1, "image_size": 64, "num_frames": 8, "fps": 4.0,
    "tested": "direction", "chance_seed": 0, "chance_draws": 200,
}  # fmt: skip


def prompt(*pairs: tuple[ObjectDescription, Movement]) -> Prompt:
    claim = asked(*pairs)
    return Prompt("p-0000", "p", "", description=Description(claim.objects), moves=claim.moves)


def test_the_scorer_scores_frames_of_any_size_and_tells_chance() -> None:
    scorer = build_scorer("motion", SETTINGS, Context())
    assert isinstance(scorer, ClipJudge)
    frames = clip((RED_CIRCLE, RIGHT))
    said = scorer.score_clip(frames, prompt((CIRCLE, RIGHT)), 0)
    assert said.score == 1 and said.chance == pytest.approx(0.25, abs=0.1)
    assert said.evidence["measures"]["appearance"] == {"value": 1.0, "reason": "every frame ok"}
    larger = frames.repeat(2, axis=1).repeat(2, axis=2)
    assert scorer.score_clip(larger, prompt((CIRCLE, RIGHT)), 0) == said


def test_the_scorer_is_given_all_frames_of_a_clip_and_refuses_pictures_and_other_lengths() -> None:
    scorer = build_scorer("motion", SETTINGS, Context())
    frames = [Frame(pixels, "") for pixels in clip((RED_CIRCLE, RIGHT))]
    assert score_frames(scorer, frames, prompt((CIRCLE, RIGHT)), 0).score == 1
    with pytest.raises(ValueError, match="clips must have 8 frames, got 5 of prompt p-0000"):
        score_frames(scorer, frames[:5], prompt((CIRCLE, RIGHT)), 0)
    with pytest.raises(ValueError, match="scores clips, got a picture"):
        scorer.score(frames[0].pixels, "", prompt((CIRCLE, RIGHT)), 0)


def test_other_versions_and_prompts_without_motion_are_refused() -> None:
    with pytest.raises(UserError, match="asks for versions 1, 1 and 9 .* installed are 1, 1 and 1"):
        build_scorer("motion", SETTINGS | {"motion_version": 9}, Context())
    with pytest.raises(ValueError, match="says nothing of motion"):
        _ = Prompt("p", "p", "", description=Description((CIRCLE,))).clip_claim
