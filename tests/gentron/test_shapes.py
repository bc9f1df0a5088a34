"""The built-in world: what scenes, pictures and captions promise."""

import hashlib
import itertools

import numpy as np
import pytest

from gentron.shapes import Scene, SceneObject, caption, describe, phrase, render, sample_scene, scene_rng
from gentron.shapes.scene import (
    BACKGROUND,
    COLORS,
    INTERACTIONS,
    RELATIONS,
    SHAPES,
    SPATIAL,
    TEXTURES,
    arrange,
    can_contain,
    fits_canvas,
    heldout_color_shape,
    heldout_relation,
    heldout_texture_shape,
    is_heldout,
    is_legible,
    silhouette,
    spatial_holds,
)
from gentron.shapes.vocabulary import words

NUM_SCENES = 600


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(scene_rng(0, i)) for i in range(NUM_SCENES)]


def test_a_scene_and_its_picture_are_functions_of_seed_and_index() -> None:
    first, again = sample_scene(scene_rng(3, 7)), sample_scene(scene_rng(3, 7))
    assert first == again
    assert np.array_equal(render(first), render(again))
    assert sample_scene(scene_rng(3, 8)) != first and sample_scene(scene_rng(4, 7)) != first


def test_pictures_are_pinned() -> None:
    """Weights, caches and protocols depend on these bytes: a change here is a new WORLD_VERSION."""
    digest = hashlib.sha256(b"".join(render(sample_scene(scene_rng(0, i))).tobytes() for i in range(50)))
    assert digest.hexdigest()[:16] == "c558550ebb69fc3e"


def test_every_kind_of_scene_occurs(scenes: list[Scene]) -> None:
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {scene.relation for scene in scenes} == {None, *RELATIONS}
    assert {o.shape for scene in scenes for o in scene.objects} == set(SHAPES)
    assert {o.texture for scene in scenes for o in scene.objects} == set(TEXTURES)


def test_objects_of_a_scene_differ_in_colour_and_in_shape(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert len({o.color for o in scene.objects}) == len(scene.objects)
        assert len({o.shape for o in scene.objects}) == len(scene.objects)


def test_training_scenes_hold_no_held_out_combination(scenes: list[Scene]) -> None:
    assert not any(map(is_heldout, scenes))
    assert all(is_legible(list(scene.objects), scene.relation) for scene in scenes)


def test_one_shape_is_held_out_for_each_colour_and_each_texture() -> None:
    for color in COLORS:
        assert sum(heldout_color_shape(color, shape) for shape in SHAPES) == 1
    for texture in TEXTURES:
        assert sum(heldout_texture_shape(texture, shape) for shape in SHAPES) == (texture != "plain")


def test_one_ordered_pair_in_eight_is_held_out_for_each_relation() -> None:
    for relation in RELATIONS:
        held = sum(heldout_relation(a, relation, b) for a, b in itertools.product(SHAPES, SHAPES))
        assert held == len(SHAPES)


def test_spatial_relations_hold_and_their_opposites_do_not(scenes: list[Scene]) -> None:
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    checked = 0
    for scene in scenes:
        if scene.relation in SPATIAL:
            a, b = ((o.x, o.y) for o in scene.objects[:2])
            assert [r for r in SPATIAL if spatial_holds(r, a, b)] == [scene.relation]
            assert spatial_holds(opposite[scene.relation], b, a)
            checked += 1
    assert checked > 50


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    ya, xa = np.nonzero(a)
    yb, xb = np.nonzero(b)
    return float(np.hypot(ya[:, None] - yb, xa[:, None] - xb).min())


def test_interactions_are_what_they_say(scenes: list[Scene]) -> None:
    seen = set()
    for scene in scenes:
        if scene.relation not in INTERACTIONS:
            continue
        seen.add(scene.relation)
        a, b = (silhouette(o) for o in scene.objects[:2])
        if scene.relation == "touching":
            assert not (a & b).any() and _gap(a, b) == 1
        elif scene.relation == "inside":
            assert not (a & ~b).any()
        else:
            assert (a & b).any() and (a & ~b).any()
    assert seen == set(INTERACTIONS)


def test_objects_that_do_not_interact_keep_clear_of_each_other(scenes: list[Scene]) -> None:
    for scene in scenes:
        if scene.relation not in INTERACTIONS:
            for a, b in itertools.combinations(scene.objects, 2):
                assert _gap(silhouette(a), silhouette(b)) > 8


def test_everything_fits_the_canvas(scenes: list[Scene]) -> None:
    assert all(fits_canvas(o) for scene in scenes for o in scene.objects)


def test_a_picture_is_background_wherever_no_object_is() -> None:
    scene = Scene((SceneObject("circle", "red", x=24, y=40),))
    picture = render(scene)
    assert (picture[:, 34:] == BACKGROUND).all() and (picture[:30] == BACKGROUND).all()
    assert tuple(picture[40, 24]) == COLORS["red"]


def test_the_first_object_is_in_front() -> None:
    front = SceneObject("square", "red", x=32, y=32)
    back = SceneObject("square", "blue", size="large", x=32, y=32)
    assert tuple(render(Scene((front, back), "inside"))[32, 32]) == COLORS["red"]


def test_impossible_arrangements_are_refused() -> None:
    pair = [SceneObject("square", "red"), SceneObject("star", "blue", size="large")]
    assert not can_contain("square", "star")
    assert arrange(scene_rng(0, 0), pair, "inside") is None


def test_captions_use_the_vocabulary_and_name_what_is_there(scenes: list[Scene]) -> None:
    vocabulary = set(words())
    for i, scene in enumerate(scenes):
        text = caption(scene, scene_rng(1, i))
        assert set(text.replace(",", " ,").split()) <= vocabulary, text


def test_a_description_claims_only_what_is_true(scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        description = describe(scene, scene_rng(2, i))
        assert description.relation == scene.relation
        for claim, thing in zip(description.objects, scene.objects, strict=True):
            assert claim.shape or claim.color
            for name in ("shape", "color", "texture", "size"):
                assert getattr(claim, name) in (None, getattr(thing, name))
            assert claim.texture or thing.texture == "plain"


def test_one_description_has_several_phrasings(scenes: list[Scene]) -> None:
    scene = next(s for s in scenes if s.relation == "above")
    description = describe(scene, scene_rng(0, 0))
    assert len({phrase(description, scene_rng(5, i)) for i in range(60)}) >= 5
