"""The 3-in-1 score: the official script's values, and which parts count for which prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from bench.prompts.sets import complex_key
from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.three_in_one import (
    ACTION,
    ATTRIBUTE,
    BOTH,
    SPATIAL,
    Classes,
    ThreeInOneScorer,
    build,
    combine,
)
from bench.weights import MissingWeights
from tests.bench.scorers.detections import DIGEST, IMAGE, prompt
from tests.bench.scorers.test_spatial import OFFICIAL_SCRIPT, lines, needs_lists, official
from tests.golden.spatial import cases
from tests.parity import Compare

BLIP = {"np_num": 8, "dropped_chunks": [], "image_size": 480, "weights": "blip-vqa"}
SETTINGS = {
    "blip_vqa": BLIP,
    "unidet_complex": {"complex": True, "detector": {"network": "rs200", "precision": "fp32"}},
    "clip_cosine": {"complex": True, "precision": "fp32"},
}


@dataclass
class GivenScore:
    """Gives the next of its scores."""

    name: str
    values: list[float]
    asked: int = 0
    random: bool = False
    record: ScorerRecord = field(init=False)

    def __post_init__(self) -> None:
        self.record = ScorerRecord(
            name=self.name,
            version=3,
            weights={self.name: "ab"},
            random_weights=self.random,
            settings={"k": 1},
        )

    def score(self, image: np.ndarray, digest: str, prompt: object, sample: int) -> Scored:
        self.asked += 1
        value = self.values[sample]
        return Scored(score=value, reason=f"why {value:.2f}", evidence={"saw": self.name})


def classes_of(lists: dict[str, list[str]]) -> Classes:
    return Classes(
        *(frozenset(map(complex_key, lists[name])) for name in ("complex_val_spatial", "complex_val_action"))
    )


def scorer(
    classes: Classes, values: dict[str, list[float]] | None = None
) -> tuple[ThreeInOneScorer, dict[str, GivenScore]]:
    given = values or {ATTRIBUTE: [0.6], SPATIAL: [0.9], ACTION: [0.3]}
    parts = {name: GivenScore(name, some) for name, some in given.items()}
    return ThreeInOneScorer(parts, classes, lists={"spatial": "12", "action": "34"}), parts


CLASSES = Classes(spatial={"a cat near a dog"}, action={"a cat runs", "a cat near a dog"})


def test_scores_equal_the_official_script(parity: Compare):
    lists, scores = cases.three_in_one()
    values = {name: scores[name].tolist() for name in (ATTRIBUTE, SPATIAL, ACTION)}
    whole, _ = scorer(classes_of(lists), values)
    ours = [
        whole.score(IMAGE, DIGEST, prompt(text), 10 * i + n).score
        for i, text in enumerate(lists["complex_val"])
        for n in range(10)
    ]
    parity("3-in-1", "score", ours, official("three_in_one"), against=OFFICIAL_SCRIPT)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A Cat near a dog. It is red.", SPATIAL),  # in both lists: space goes first
        ("a cat runs.", ACTION),
        ("a cat runs away.", BOTH),
    ],
)
def test_a_prompt_is_looked_up_by_its_first_sentence_in_lower_case(text: str, kind: str):
    assert CLASSES.of(text) == kind


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("A cat near a dog.", {ATTRIBUTE: 1, SPATIAL: 1, ACTION: 0}, (0.9 + 0.6) * 0.5),
        ("A cat runs.", {ATTRIBUTE: 1, SPATIAL: 0, ACTION: 1}, (0.3 + 0.6) * 0.5),
        ("Something else.", {ATTRIBUTE: 1, SPATIAL: 1, ACTION: 1}, (0.6 + 0.9 + 0.3) / 3),
    ],
)
def test_only_the_parts_of_the_class_are_computed(text: str, asked: dict[str, int], expected: float):
    whole, parts = scorer(CLASSES)
    one = whole.score(IMAGE, DIGEST, prompt(text), 0)
    assert {name: part.asked for name, part in parts.items()} == asked
    assert one.score == expected
    assert set(one.parts) == {name for name, count in asked.items() if count}


def test_reason_and_evidence_show_every_part():
    one = scorer(CLASSES)[0].score(IMAGE, DIGEST, prompt("A cat runs."), 0)
    assert one.reason == "action prompt: action 0.3000 (why 0.30) · attribute 0.6000 (why 0.60)"
    assert one.evidence["class"] == "action"
    assert one.evidence["attribute"] == {"score": 0.6, "parts": {}, "evidence": {"saw": "attribute"}}


def test_the_record_is_that_of_all_parts():
    parts = {name: GivenScore(name, [0.5], random=name == ACTION) for name in (ATTRIBUTE, SPATIAL, ACTION)}
    record = ThreeInOneScorer(parts, CLASSES, lists={"spatial": "12"}).record
    assert record.random_weights
    assert record.weights == {ATTRIBUTE: "ab", SPATIAL: "ab", ACTION: "ab"}
    assert record.settings["lists"] == {"spatial": "12"}
    assert record.settings[ATTRIBUTE] == {"name": ATTRIBUTE, "version": 3, "k": 1}


def test_two_parts_are_added_before_they_are_halved():
    values = {ATTRIBUTE: 0.1234, SPATIAL: 0.7, ACTION: 0.3}
    assert combine(SPATIAL, values) == (0.7 + 0.1234) * 0.5
    assert combine(BOTH, values) == (0.1234 + 0.7 + 0.3) / 3


@needs_lists
def test_the_complex_list_falls_into_the_published_classes():
    lists = {name: lines(f"{name}.txt") for name in ("complex_val_spatial", "complex_val_action")}
    kinds = [classes_of(lists).of(line) for line in lines("complex_val.txt")]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {SPATIAL: 58, ACTION: 212, BOTH: 30}


# ---- building ----------------------------------------------------------------------------------------------


@needs_lists
def test_a_missing_network_is_said_before_any_is_loaded(tmp_path, monkeypatch):
    from tests.bench.scorers.test_spatial import LISTS

    (tmp_path / "t2i-compbench").symlink_to(LISTS)
    monkeypatch.setenv("GENTRON_PROMPTS", str(tmp_path))
    with pytest.raises(MissingWeights, match="missing weights 'blip-vqa'"):
        build(SETTINGS, Context(models=tmp_path / "none"))


@pytest.mark.parametrize("part", ["unidet_complex", "clip_cosine"])
def test_parts_in_their_simple_form_are_refused(part: str):
    settings = {**SETTINGS, part: {**SETTINGS[part], "complex": False}}
    with pytest.raises(ValueError, match=f"three_in_one.{part}.complex must be true"):
        build(settings, Context())
