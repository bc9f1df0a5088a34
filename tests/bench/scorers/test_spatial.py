"""The 2-D spatial score: the official functions' values, and what makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.scorers import Context, spatial
from bench.scorers.pairs import Pair, first_named, iou
from bench.scorers.phrases import Token
from bench.scorers.spatial import RELATIONS, Settings, SpatialScorer, complex_objects, position_score
from tests.bench.scorers.detections import (
    DIGEST,
    IMAGE,
    Found,
    GivenDetections,
    GivenWords,
    NextWords,
    prompt,
)
from tests.golden.spatial import cases
from tests.parity import Compare

OFFICIAL_SCRIPT = "T2I-CompBench's script (stored)"
GOLDEN = Path(__file__).parents[2] / "golden" / "spatial"
LISTS = Path(__file__).parents[4] / "shared" / "data" / "t2i-compbench"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the official prompt lists are not here")

SIMPLE = Settings(complex=False, detector={})
COMPLEX = Settings(complex=True, detector={})
CHAIR: Found = [("chair", 0.91, (0.0, 0.0, 10.0, 10.0))]
DOG: Found = [("dog", 0.88, (100.0, 0.0, 110.0, 10.0))]


def official(name: str) -> np.ndarray:
    """Values that the official functions gave on the cases; see make.py."""
    with np.load(GOLDEN / "official.npz") as values:
        return values[name]


def found_of(case: cases.Case) -> Found:
    return list(zip(case.found.labels, case.found.scores, case.found.boxes, strict=True))


def scored(found: Found, text: str, settings: Settings = SIMPLE, words: dict[str, str] | None = None):
    parts = {"a": "DET", "on": "ADP", "the": "DET", "of": "ADP", "next": "ADV", "to": "ADP", "near": "ADP"}
    parts |= dict.fromkeys(("left", "right", "top", "bottom", "side"), "ADJ") | (words or {})
    scorer = SpatialScorer(settings, GivenDetections(found), GivenWords(parts))
    return scorer.score(IMAGE, DIGEST, prompt(text), 0)


# ---- against the official functions ----------------------------------------------------------------------


def test_positions_equal_the_official_function_on_random_boxes(parity: Compare):
    ours = [position_score(relation, a, b) for relation, a, b in cases.pairs_of_boxes()]
    parity("2-D spatial", "position", ours, official("position"), against=OFFICIAL_SCRIPT)


@pytest.mark.parametrize(
    ("name", "settings", "made"),
    [("simple", SIMPLE, cases.template(2, cases.RELATIONS_2D)), ("complex", COMPLEX, cases.mixed())],
)
def test_scores_equal_the_official_script(
    name: str, settings: Settings, made: list[cases.Case], parity: Compare
):
    detector = GivenDetections()
    scorer = SpatialScorer(settings, detector, NextWords(iter([case.words for case in made])))
    ours = []
    for case in made:
        detector.found = found_of(case)
        ours.append(scorer.score(IMAGE, DIGEST, prompt(case.text), 0).score)
    parity("2-D spatial", f"score, {name} form", ours, official(name), against=OFFICIAL_SCRIPT)
    assert len(set(ours)) > 100  # the cases tell something


# ---- positions -------------------------------------------------------------------------------------------

A, B = (0, 0, 10, 10), (100, 0, 110, 10)


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        ("on the left of", 1),
        ("on the right of", 0),
        ("on the top of", 0),
        ("on the bottom of", 0),
        ("next to", 1),
        ("near", 1),
        ("on side of", 1),
        ("on top of", 0),
        (None, 0),
    ],
)
def test_positions_of_two_boxes_side_by_side(relation: str | None, expected: float):
    assert position_score(relation, A, B) == expected


def test_overlapping_boxes_count_by_a_tenth_of_their_iou():
    a, b = (0, 0, 100, 100), (50, 0, 150, 100)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert position_score("on the left of", a, b) == pytest.approx(0.3)


def test_far_neighbours_count_by_the_larger_distance():
    assert position_score("near", (0, 0, 10, 10), (300, 200, 310, 210)) == 0.5
    assert position_score("near", (0, 0, 10, 10), (300, 149, 310, 159)) == 1


@pytest.mark.parametrize("relation", list(spatial.DIRECTIONS))
def test_a_diagonal_is_no_direction(relation: str):
    assert position_score(relation, (0, 0, 10, 10), (50, 50, 60, 60)) == 0


def test_boxes_without_area_have_no_overlap():
    assert iou((5, 5, 5, 9), (5, 5, 5, 9)) == 0


# ---- the score -------------------------------------------------------------------------------------------


def test_a_right_picture_gets_its_confidences_and_half_a_point():
    one = scored(CHAIR + DOG, "a chair on the left of a dog")
    assert one.score == 0.25 * 0.91 + 0.25 * 0.88 + 0.5
    assert one.reason == "chair .91 on the left of dog .88: position 1.00"
    assert one.parts == {"objects": 1.0, "relation": 1.0}
    assert one.evidence["used"][1] == {"label": "dog", "score": 0.88, "box": [100, 0, 110, 10]}


@pytest.mark.parametrize(
    ("first", "second", "position", "expected"),
    [(0.9, 0.8, 0.0, 0.0), (0.9, 0.8, 1.0, 0.925), (0.9, 0.8, 0.1, 0.0), (1.0, 1.0, 0.0, 0.5)],
)
def test_less_than_half_a_point_is_none(first: float, second: float, position: float, expected: float):
    assert spatial.spatial_score(Pair(0, 1, position), (first, second)) == pytest.approx(expected)


def test_one_object_alone_scores_nothing_and_is_named():
    one = scored([("chair", 0.99, A)], "a chair on the left of a dog")
    assert one.score == 0
    assert one.reason == "chair .99, no dog; .25 is below .50"
    assert one.parts["objects"] == 0.5


def test_people_are_persons_and_one_box_can_be_both():
    one = scored([("person", 0.8, A)], "a man next to a girl")
    assert one.score == pytest.approx(0.9)
    assert one.evidence["asked"] == ["person", "person"]


def test_the_best_detection_of_a_label_is_taken_and_labels_must_be_equal():
    far: Found = [("dog", 0.5, (0.0, 300.0, 10.0, 310.0))]
    assert scored(CHAIR + DOG + far, "a chair on the left of a dog").evidence["used"][1]["score"] == 0.88
    cattle: Found = [("cattle, cow", 0.9, B)]
    assert scored(CHAIR + cattle, "a chair on the left of a cow").parts["objects"] == 0.5


def test_a_prompt_without_nouns_scores_nothing():
    one = scored(CHAIR, "on the left", words={})
    assert (one.score, one.reason) == (0, "the prompt does not name two objects")


def test_a_detector_that_did_not_run_as_asked_says_so():
    scorer = SpatialScorer(SIMPLE, GivenDetections(note="fp16 features were not finite"), GivenWords())
    assert scorer.score(IMAGE, DIGEST, prompt("a chair"), 0).reason.endswith("fp16 features were not finite")


def test_the_record_names_the_detector_and_the_source_of_nouns():
    record = SpatialScorer(COMPLEX, GivenDetections(), GivenWords()).record
    assert record.name == "unidet_complex"
    assert record.weights == {"unidet": "ab"}
    assert record.settings["phrases"] == {"source": "given"}


# ---- objects of the complex form -------------------------------------------------------------------------


def objects(words: str) -> tuple[str | None, str | None]:
    """`word` is a NOUN, `Word` a PROPN, others by table."""
    parts = dict.fromkeys(("on", "of", "to", "near"), "ADP") | {"the": "DET", "next": "ADV", "red": "ADJ"}
    parts |= {"left": "ADJ", "top": "ADJ", "side": "ADJ"}
    tokens = [
        Token(word, parts.get(word, "PROPN" if word[0].isupper() else "NOUN")) for word in words.split()
    ]
    return complex_objects(words, tokens)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the red dog next to the red chair", ("dog", "chair")),
        ("the Paris near the chair", ("Paris", "chair")),  # backwards a name counts
        ("dog near Paris chair", ("dog", "chair")),  # forwards a noun goes first
        ("dog near New Paris the", ("dog", "Paris")),  # then the last word of a name
        ("dog near New Paris", (None, None)),  # but never the last word of the text
        ("near dog", (None, None)),  # nothing before: one object
        ("dog near cat near bird", (None, None)),  # four objects
        ("dog beside cat", (None, None)),
        ("dog on the left of cat", ("dog", "cat")),
    ],
)
def test_objects_stand_around_the_preposition(text: str, expected: tuple[str | None, str | None]):
    assert objects(text) == expected


def test_a_preposition_is_compared_as_it_is_written():
    words = [Token("dog", "NOUN"), Token("next", "ADV"), Token("to", "ADP"), Token("cat", "NOUN")]
    assert complex_objects("dog next to cat", words) == ("dog", "cat")
    assert complex_objects("dog next  to cat", words) == (None, None)


# ---- the official lists ----------------------------------------------------------------------------------


def lines(name: str) -> list[str]:
    return (LISTS / name).read_text("utf-8").splitlines()


@needs_lists
def test_relations_of_the_spatial_list_are_counted_as_published():
    named = [first_named(line, RELATIONS) for line in lines("spatial_val.txt")]
    assert {relation: named.count(relation) for relation in set(named)} == {
        "on the top of": 56,
        "on the right of": 56,
        "on the bottom of": 52,
        "on the left of": 51,
        "on side of": 37,
        "next to": 24,
        "near": 24,
    }


@needs_lists
def test_relations_of_the_complex_prompts_that_count_are_as_published():
    from bench.prompts.sets import complex_key

    action = {complex_key(line) for line in lines("complex_val_action.txt")}
    counted = [line for line in lines("complex_val.txt") if complex_key(line) not in action]
    named = [first_named(line, RELATIONS) for line in counted]
    assert len(named) == 88
    assert {relation: named.count(relation) for relation in set(named)} == {
        "on top of": 33,
        None: 1,
        "next to": 37,
        "near": 8,
        "on the left of": 6,
        "on the right of": 3,
    }


@needs_lists
def test_two_thirds_of_the_spatial_prompts_can_be_matched():
    """Every line is `a|an X <relation> a|an Y`, so the nouns are known without a parser."""
    known = known_names()["exact"]
    asked = [line.split() for line in lines("spatial_val.txt")]
    people = {"man", "woman", "boy", "girl"}
    matched = [{words[1], words[-1]} <= people | known for words in asked]
    assert sum(matched) == 200


def known_names() -> dict[str, set[str]]:
    import json

    return {name: set(words) for name, words in json.loads((GOLDEN / "names.json").read_text()).items()}


def test_wrong_settings_are_named_by_their_path():
    with pytest.raises(ValueError, match="unknown field scorers.unidet_2d.floor"):
        spatial.build({"complex": False, "detector": {}, "floor": 0.4}, Context())
