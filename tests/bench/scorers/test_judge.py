from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bench.scorers.judge_accuracy import CHANGES, FALSE, QUESTIONS, any_scene, full_description, measure
from bench.scorers.shapes import CLEAR_FIT, UNCLEAR, detect, judge, judge_detections
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.render import render
from gentron.shapes.scene import (
    BACKGROUND,
    COLORS,
    RELATIONS,
    SHAPES,
    TEXTURES,
    Scene,
    SceneObject,
    arrange,
    scene_rng,
)

RED_CIRCLE = SceneObject("circle", "red", x=8, y=8)
BLUE_SQUARE = SceneObject("square", "blue", x=56, y=40)


def asked(*things: SceneObject, relation: str | None = None) -> Description:
    return Description(tuple(ObjectDescription(o.shape, o.color) for o in things), relation)


def draw(*things: SceneObject) -> np.ndarray:
    return render(Scene(things))


def paint(alpha: np.ndarray, color: str) -> np.ndarray:
    """A picture with one thing of any form; alpha (64, 64) in [0, 1]."""
    paper, ink = np.array(BACKGROUND, float), np.array(COLORS[color], float)
    return np.round(paper + (ink - paper) * alpha[..., None]).astype(np.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_judge_is_right_on_known_scenes(name: str) -> None:
    accuracy = measure(CHANGES[name], count=150, seed=3)
    for question in QUESTIONS:
        assert accuracy.share(question) >= 0.99, question
    assert accuracy.true_caption >= 0.99
    for what in FALSE:
        assert accuracy.false_captions[what] <= 0.02, what


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_judge_is_right_on_a_thousand_scenes(name: str) -> None:
    accuracy = measure(CHANGES[name], count=1200, seed=5)
    assert all(accuracy.share(question) >= 0.99 for question in QUESTIONS), accuracy
    assert all(score <= 0.01 for score in accuracy.false_captions.values()), accuracy


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_size_and_texture_is_told_apart(shape: str) -> None:
    for k, color in enumerate(COLORS):
        thing = SceneObject(shape, color, TEXTURES[k % 4], ("small", "large")[k // 4], 32, 30)
        (found,) = detect(draw(thing))
        assert (found.shape, found.color, found.texture, found.size) == (
            *(thing.shape, thing.color),
            *(thing.texture, thing.size),
        )
        assert (found.x, found.y) == (thing.x, thing.y)


def test_true_caption_scores_one() -> None:
    judgement = judge(draw(RED_CIRCLE, BLUE_SQUARE), asked(RED_CIRCLE, BLUE_SQUARE))
    assert judgement.score == 1
    assert judgement.reason == "red circle ok; blue square ok"


def test_wrong_attribute_gives_nothing_for_that_object() -> None:
    star = SceneObject("star", "blue")
    judgement = judge(draw(RED_CIRCLE, BLUE_SQUARE), asked(RED_CIRCLE, star))
    assert judgement.score == 0.5
    assert judgement.reason == "red circle ok; asked blue star, found blue square"


def test_swapped_colors_score_zero() -> None:
    swapped = asked(SceneObject("circle", "blue"), SceneObject("square", "red"))
    assert judge(draw(RED_CIRCLE, BLUE_SQUARE), swapped).score == 0


def test_extra_objects_lower_the_score() -> None:
    picture = draw(RED_CIRCLE, BLUE_SQUARE, SceneObject("star", "green", x=24, y=56))
    judgement = judge(picture, asked(RED_CIRCLE, BLUE_SQUARE))
    assert judgement.score == pytest.approx(2 / 3)
    assert "1 extra: green star" in judgement.reason
    duplicate = draw(RED_CIRCLE, RED_CIRCLE.at(40, 56), BLUE_SQUARE)
    assert judge(duplicate, asked(RED_CIRCLE, BLUE_SQUARE)).score == pytest.approx(2 / 3)


def test_touching_duplicates_of_one_color_are_counted() -> None:
    pair = draw(SceneObject("circle", "red", x=20, y=20), SceneObject("circle", "red", x=34, y=20))
    assert len(detect(pair)) == 2


def test_missing_object_is_said() -> None:
    judgement = judge(draw(RED_CIRCLE), asked(RED_CIRCLE, BLUE_SQUARE))
    assert judgement.score == 0.5
    assert judgement.reason.endswith("no blue square")


def test_empty_picture_scores_zero() -> None:
    assert judge(np.full((64, 64, 3), 235, np.uint8), asked(RED_CIRCLE)).score == 0


def test_unnamed_attributes_are_not_judged() -> None:
    picture = draw(SceneObject("heart", "cyan", "dotted", "large", 32, 32))
    assert judge(picture, Description((ObjectDescription(shape="heart"),))).score == 1
    assert judge(picture, Description((ObjectDescription(color="cyan", texture="dotted"),))).score == 1
    assert judge(picture, Description((ObjectDescription(shape="heart", texture="plain"),))).score == 0


@pytest.mark.parametrize("relation", RELATIONS)
def test_relation_holds_only_where_it_holds(relation: str) -> None:
    things = [SceneObject("circle", "red"), SceneObject("square", "blue")]
    if relation in ("inside", "overlapping"):
        things[1] = SceneObject("square", "blue", size="large")
    scene = arrange(scene_rng(0, 1), things, relation)
    assert scene is not None
    found = detect(render(scene))
    holding = [r for r in RELATIONS if judge_detections(found, asked(*things, relation=r)).score == 1]
    if relation == "touching":  # things that touch stand beside each other as well
        holding = [r for r in holding if r not in RELATIONS[:4]]
    if relation == "overlapping":
        holding = [r for r in holding if r not in RELATIONS[:4]]
    assert holding == [relation]


def test_relation_is_zero_if_an_object_is_not_found() -> None:
    wrong = asked(RED_CIRCLE, SceneObject("star", "blue"), relation="left of")
    judgement = judge(draw(RED_CIRCLE, BLUE_SQUARE), wrong)
    assert judgement.score == 0
    assert judgement.reason.endswith("left of: unknown")


def test_extra_object_lowers_a_relation_too() -> None:
    picture = draw(RED_CIRCLE, RED_CIRCLE.at(8, 56), BLUE_SQUARE.at(56, 8))
    score = judge(picture, asked(RED_CIRCLE, BLUE_SQUARE, relation="left of")).score
    assert score == pytest.approx(2 / 3)


def blob(rng: np.random.Generator) -> np.ndarray:
    """(64, 64) a connected smooth patch without any form."""
    waves = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3)
    y, x = np.mgrid[:64, :64] - 31.5
    field = waves / waves.std() - (x**2 + y**2) / 45 + 1.2
    return ndimage.gaussian_filter((field > 0).astype(float), 0.6)


def test_shapeless_blobs_are_unclear() -> None:
    rng = np.random.default_rng(0)
    shapes = [d.shape for k in range(60) for d in detect(paint(blob(rng), list(COLORS)[k % 8]))]
    assert np.mean([shape == UNCLEAR for shape in shapes]) >= 0.7


def test_melted_shapes_are_unclear() -> None:
    for shape in SHAPES:
        alpha = ndimage.gaussian_filter(paint_mask(shape), 2.5)
        assert all(d.shape == UNCLEAR and d.fit < CLEAR_FIT for d in detect(paint(alpha, "blue"))), shape


def paint_mask(shape: str) -> np.ndarray:
    from gentron.shapes.scene import silhouette

    return silhouette(SceneObject(shape, "blue", x=32, y=32)).astype(float)


def test_unclear_matches_nothing_that_names_a_shape() -> None:
    alpha = ndimage.gaussian_filter(paint_mask("circle"), 2.5)
    assert judge(paint(alpha, "blue"), Description((ObjectDescription("circle", "blue"),))).score == 0


def test_dark_patch_is_an_extra_object() -> None:
    picture = draw(RED_CIRCLE)
    picture[40:50, 40:50] = 45
    assert judge(picture, asked(RED_CIRCLE)).score == 0.5


def test_pure_noise_is_judged_without_trouble() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert judge(noise, asked(RED_CIRCLE, BLUE_SQUARE)).score < 0.3


@pytest.mark.parametrize("bad", [np.zeros((64, 64, 3)), np.zeros((32, 64, 3), np.uint8)])
def test_pictures_of_another_kind_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image must be uint8"):
        detect(bad)


def test_scenes_cover_everything() -> None:
    scenes = [any_scene(scene_rng(1, k)) for k in range(200)]
    assert {scene.relation for scene in scenes} == {None, *RELATIONS}
    assert {o.shape for s in scenes for o in s.objects} == set(SHAPES)
    assert {len(full_description(s).objects) for s in scenes} == {1, 2, 3}
