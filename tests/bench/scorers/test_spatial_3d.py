"""The 3-D spatial score: the official functions' values, and what makes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.scorers.pairs import first_named
from bench.scorers.spatial_3d import (
    RELATIONS,
    Spatial3dScorer,
    choose,
    depth_at,
    mean_depth,
    position_score,
)
from tests.bench.scorers.detections import (
    DIGEST,
    IMAGE,
    Found,
    GivenDepth,
    GivenDetections,
    GivenWords,
    NextWords,
    prompt,
)
from tests.bench.scorers.official_cases import OfficialCase, official_cases
from tests.bench.scorers.test_spatial import (
    OFFICIAL_SCRIPT,
    found_of,
    known_names,
    lines,
    needs_lists,
    official,
)
from tests.golden.spatial import cases
from tests.parity import Compare

SIDE = 100
A, B, FAR = (0, 0, 60, 60), (30, 0, 90, 60), (80, 80, 90, 90)
PARTS = {"a": "DET", "in": "ADP", "front": "ADV", "of": "ADP", "hidden": "VERB", "by": "ADP", "behind": "ADP"}


def near_corner() -> torch.Tensor:
    """Nearer the closer to the first row and column."""
    steps = torch.linspace(1, 0, SIDE)
    return (steps[:, None] + steps) / 2


def scored(found: Found, text: str, depth: np.ndarray | None = None):
    source = GivenDepth(np.zeros((479, 479), np.uint8) if depth is None else depth)
    scorer = Spatial3dScorer(GivenDetections(found), source, GivenWords(PARTS))
    return scorer.score(IMAGE, DIGEST, prompt(text), 0), source


def test_scores_equal_the_official_script(parity: Compare):
    made, depths = cases.template(7, cases.RELATIONS_3D), cases.depths()
    detector, source = GivenDetections(), GivenDepth(depths[0])
    scorer = Spatial3dScorer(detector, source, NextWords(iter([case.words for case in made])))
    ours = []
    for i, case in enumerate(made):
        detector.found, source.map = found_of(case), depths[i % len(depths)]
        detector.size = (source.map.shape[1], source.map.shape[0])
        ours.append(scorer.score(IMAGE, DIGEST, prompt(case.text), 0).score)
    parity("3-D spatial", "score", ours, official("spatial_3d"), against=OFFICIAL_SCRIPT)
    assert len(set(ours)) > 1000


@pytest.mark.parametrize("depth", [0, 1, 77, 128, 200, 255])
@pytest.mark.parametrize("case", official_cases("spatial_3d"), ids=lambda case: f"case {case.id}")
def test_disputed_cases_have_the_official_value(case: OfficialCase, depth: int):
    """An independent run of the official script on depth maps of one value, whichever: no box is nearer."""
    source = GivenDepth(np.full(case.size[::-1], depth, np.uint8))
    scorer = Spatial3dScorer(GivenDetections(case.found, case.size), source, GivenWords(PARTS))
    assert scorer.score(IMAGE, DIGEST, prompt(case.prompt), 0).score == case.official


# ---- positions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("relation", "expected"), [("in front of", 1.0), ("behind", 0.0), ("hidden", 0.0)])
def test_the_nearer_object_is_in_front(relation: str, expected: float):
    third = 30 * 60 / (2 * 60 * 60 - 30 * 60)
    assert position_score(relation, A, B, near_corner()) == pytest.approx(expected * third / 0.5)
    assert position_score(relation, A, (5, 5, 60, 60), near_corner()) == expected


def test_hidden_and_behind_ask_for_the_farther_object():
    for relation in ("behind", "hidden"):
        assert position_score(relation, (5, 5, 60, 60), (0, 0, 60, 60), near_corner()) == 1


def test_boxes_apart_or_with_an_overlap_of_exactly_a_half_get_nothing():
    assert position_score("in front of", A, FAR, near_corner()) == 0
    assert position_score("in front of", (0, 0, 40, 20), (0, 0, 40, 40), near_corner()) == 0  # IoU .5


def test_no_relation_gets_nothing():
    assert position_score(None, (0, 0, 60, 60), (5, 5, 60, 60), near_corner()) == 0


def test_the_box_is_read_mirrored_at_the_diagonal():
    depth = torch.zeros(20, 20)
    depth[2:5, 10:15] = 1  # rows 2-5, columns 10-15
    assert mean_depth(depth, (2, 10, 5, 15)) == 1  # as x 2-5, y 10-15
    assert mean_depth(depth, (10, 2, 15, 5)) == 0


def test_a_box_beyond_the_mirrored_picture_has_no_depth_and_no_position():
    wide = torch.ones(20, 100)
    assert np.isnan(mean_depth(wide, (50, 0, 90, 10)))
    assert position_score("behind", (50, 0, 90, 10), (50, 0, 90, 9), wide) == 0


# ---- which detections ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["cat", "dog", "cat"], (0, 1)),
        (["cat", "cat", "dog", "dog", "cat"], (1, 2)),  # the last cat up to the first dog
        (["cat", "cat"], (0, None)),
        (["dog", "dog"], (None, 0)),
        (["hot dog", "catfish"], (1, 0)),  # substrings
        ([], (None, None)),
    ],
)
def test_the_object_found_later_has_its_best_detection(
    labels: list[str], expected: tuple[int | None, int | None]
):
    assert choose(("cat", "dog"), labels) == expected


def test_one_label_can_be_both_objects():
    assert choose(("table", "desk"), ["table, desk"]) == (0, 0)


# ---- the score -------------------------------------------------------------------------------------------


def test_a_right_picture_gets_its_confidences_and_half_a_point_without_a_floor():
    near = np.tile(np.linspace(255, 0, 479).astype(np.uint8)[:, None], (1, 479))
    found: Found = [("cat", 0.9, (0.0, 0.0, 60.0, 60.0)), ("dog", 0.8, (5.0, 0.0, 60.0, 60.0))]
    one, _ = scored(found, "a cat in front of a dog", near)
    assert one.score == 0.25 * 0.9 + 0.25 * 0.8 + 0.5
    assert one.reason == "cat .90 in front of dog .80: position 1.00"
    first, second = one.evidence["mean_depths"]
    assert first > second
    wrong, _ = scored(found, "a cat behind a dog", near)
    assert wrong.score == 0.25 * 0.9 + 0.25 * 0.8


def test_depth_is_not_computed_where_an_object_is_missing():
    one, source = scored([("cat", 0.9, (0.0, 0.0, 60.0, 60.0))], "a cat in front of a dog")
    assert one.score == 0.25 * 0.9
    assert one.reason == "cat .90, no dog"
    assert source.looks == 0


def test_a_box_without_depth_is_null_in_the_evidence():
    found: Found = [("cat", 0.9, (0.0, 0.0, 60.0, 60.0)), ("dog", 0.8, (2.0, 2.0, 2.5, 2.5))]
    one, _ = scored(found, "a cat in front of a dog")
    assert one.evidence["mean_depths"] == [0.0, None]


def test_stored_depth_is_resized_as_the_picture():
    from PIL import Image

    stored = np.random.RandomState(0).randint(0, 256, (50, 70)).astype(np.uint8)
    depth = depth_at(stored, (480, 342))
    assert depth.shape == (342, 480)
    expected = Image.fromarray(stored).resize((480, 342), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(depth.numpy(), np.asarray(expected, np.float32) / np.float32(255))


def test_the_record_names_both_networks():
    record = Spatial3dScorer(GivenDetections(), GivenDepth(np.zeros((1, 1), np.uint8)), GivenWords()).record
    assert set(record.settings) == {"detector", "depth", "phrases"}
    assert record.name == "unidet_3d"


# ---- the official list -----------------------------------------------------------------------------------


@needs_lists
def test_relations_of_the_official_list_are_counted_as_published():
    named = [first_named(line, RELATIONS) for line in lines("3d_spatial_val.txt")]
    assert {relation: named.count(relation) for relation in set(named)} == {
        "hidden": 115,
        "in front of": 102,
        "behind": 83,
    }


@needs_lists
def test_280_of_the_official_prompts_can_be_matched():
    people = {"man", "woman", "boy", "girl"}
    asked = [{line.split()[1], line.split()[-1]} for line in lines("3d_spatial_val.txt")]
    names = known_names()
    assert sum(words <= people | names["substring"] for words in asked) == 280
    assert sum(words <= people | names["exact"] for words in asked) == 197
    assert sum(len(words) == 1 for words in asked) == 4
