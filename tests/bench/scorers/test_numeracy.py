"""The numeracy score: the official functions' values, what a prompt counts, and what is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.scorers.numeracy import (
    Asked,
    NumeracyScorer,
    ObjectNames,
    asked_objects,
    count_objects,
    distinct,
    is_same_box,
    numeracy_score,
    random_weights,
)
from gentron.errors import UserError
from tests.bench.scorers.detections import DIGEST, IMAGE, Found, GivenDetections, prompt
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

NAMES = ObjectNames(*(tuple(names) for names in zip(*cases.OBJECTS, strict=True)))
FAR = [(float(x), 0.0, float(x + 10), 10.0) for x in range(0, 400, 20)]


def scorer(found: Found) -> NumeracyScorer:
    return NumeracyScorer(GivenDetections(found), NAMES, names_sha256="cd")


def found(*labels: str) -> Found:
    """Each in a box of its own."""
    return [(label, 0.9, box) for label, box in zip(labels, FAR, strict=False)]


# ---- against the official functions ----------------------------------------------------------------------


def test_same_boxes_equal_the_official_function(parity: Compare):
    ours = [is_same_box(a, b) for _, a, b in cases.pairs_of_boxes()]
    parity("Numeracy", "boxes taken for one", ours, official("same_box"), against=OFFICIAL_SCRIPT)


def test_scores_equal_the_official_script(parity: Compare):
    ours = [
        scorer(found_of(case)).score(IMAGE, DIGEST, prompt(case.text), 0).score for case in cases.counted()
    ]
    parity("Numeracy", "score", ours, official("numeracy"), against=OFFICIAL_SCRIPT)
    assert len(set(ours)) > 20


@pytest.mark.parametrize("case", official_cases("numeracy"), ids=lambda case: f"case {case.id}")
def test_disputed_cases_have_the_official_value(case: OfficialCase):
    """An independent run of the official script: "a" before a plural moves the later numbers forward."""
    names = ObjectNames(("apple", "dog", "cat"), ("apples", "dogs", "cats"))
    one = NumeracyScorer(GivenDetections(case.found), names, names_sha256="cd")
    assert one.score(IMAGE, DIGEST, prompt(case.prompt), 0).score == case.official


# ---- what a prompt counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two dogs and a cat", [(2, "dog"), (1, "cat")]),
        ("three sheep, eight fish", [(3, "sheep"), (8, "fish")]),
        ("a sheep", [(1, "sheep")]),
        ("two red dogs", []),  # a word between hides the object
        ("Two dogs", []),  # case counts
        ("two people", [(2, "person")]),
        ("an dogs and two cats", [(2, "dog"), (None, "cat")]),
        ("one dogs and two cats", [(1, "dog"), (2, "cat")]),
        ("two cow", []),  # the official code stops here
        ("dogs and two", []),  # and here
        ("nine dogs", []),  # it knows no more than eight
    ],
)
def test_a_number_and_the_word_after_it_are_asked(text: str, expected: list[tuple[int | None, str]]):
    assert asked_objects(text, NAMES) == [Asked(*one) for one in expected]


@needs_lists
def test_the_official_prompts_ask_for_as_many_objects_as_published():
    """The list of objects is not committed; which words of the prompts it holds is (names.json)."""
    names = ObjectNames(*(tuple(sorted(known_names()["counted"])),) * 2)
    asked = [asked_objects(line, names) for line in lines("numeracy_val.txt")]
    assert Counter(map(len, asked)) == {1: 91, 2: 89, 3: 48, 4: 37, 5: 35}
    assert all(len({one.name for one in some}) == len(some) for some in asked)


# ---- what is counted -------------------------------------------------------------------------------------


def test_presence_and_the_exact_number_are_half_each():
    one = scorer(found("dog", "dog", "cat", "cat")).score(IMAGE, DIGEST, prompt("two dogs and a cat"), 0)
    assert one.score == 0.75
    assert one.reason == "dog: asked 2, found 2 · cat: asked 1, found 2"
    assert one.parts == {"objects": 1.0, "count": 0.5}
    assert len(one.evidence["objects"][1]["detections"]) == 2


def test_a_second_box_of_the_same_object_is_not_counted():
    boxes = [(0.0, 0.0, 100.0, 100.0), (1.0, 1.0, 100.0, 100.0), (10.0, 10.0, 50.0, 50.0)]
    assert distinct(["dog"] * 3, boxes) == [0]  # the third lies inside
    assert distinct(["dog", "cat", "dog"], boxes) == [0, 1]
    assert distinct(["dog"] * 2, [(0.0, 0.0, 10.0, 10.0), (5.0, 5.0, 15.0, 15.0)]) == [0, 1]


def test_a_name_takes_over_labels_that_contain_it_and_keeps_them():
    labels = ["microphone", "headphones", "dog"]
    phones, microphones = count_objects([Asked(2, "phone"), Asked(1, "microphone")], labels)
    assert phones.found == (0, 1)
    assert microphones.found == ()
    assert numeracy_score([phones, microphones]) == 0.5
    exact = count_objects([Asked(1, "phone")], ["phone", "microphone"])
    assert exact[0].found == (0,)  # only where the name itself is no label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("woman", "person"),
        ("ship", "boat"),
        ("goldfish", "fish"),
        ("painting", "picture"),
        ("telivision", "tv"),
    ],
)
def test_some_names_are_looked_for_under_another(name: str, label: str):
    assert numeracy_score(count_objects([Asked(1, name)], [label])) == 1


def test_television_is_not_tv():
    assert numeracy_score(count_objects([Asked(1, "television")], ["tv"])) == 0


def test_a_prompt_that_counts_nothing_scores_nothing():
    one = scorer(found("dog")).score(IMAGE, DIGEST, prompt("dogs"), 0)
    assert (one.score, one.reason, one.parts) == (0, "the prompt counts no known object", {})


# ---- the list of objects ---------------------------------------------------------------------------------


def test_random_objects_are_a_list_in_the_official_form(tmp_path: Path):
    random_weights("compbench-objects", tmp_path / "a.txt", seed=1)
    random_weights("compbench-objects", tmp_path / "b.txt", seed=1)
    random_weights("compbench-objects", tmp_path / "c.txt", seed=2)
    same, again, other = ((tmp_path / f"{x}.txt").read_bytes() for x in "abc")
    assert same == again != other
    assert "dog" in ObjectNames.read(tmp_path / "a.txt").singulars


def test_an_unknown_id_of_weights_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no weights 'other'"):
        random_weights("other", tmp_path / "a", seed=1)


@pytest.mark.parametrize("data", [b"dog, dogs\n", b"dog - dogs - more\n", b"\xff\xfe\n"])
def test_another_kind_of_file_is_refused_in_one_line(tmp_path: Path, data: bytes):
    (tmp_path / "objects.txt").write_bytes(data)
    with pytest.raises(UserError, match="objects.txt"):
        ObjectNames.read(tmp_path / "objects.txt")
