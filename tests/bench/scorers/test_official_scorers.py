"""The official scorers as protocols name them: built from settings, missing files, a rehearsal of each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench.prompts import Prompt
from bench.prompts.protocol import read_config
from bench.scorers import Context, Scored, build_scorer
from bench.weights import MissingWeights, make_random
from gentron.hashing import sha256
from tests.bench.scorers.test_spatial import LISTS, needs_lists

CONFIG, _ = read_config("t2i-compbench-plus_2025-01")
PROMPTS = {
    "unidet_2d": "a dog on the left of a chair",
    "unidet_3d": "a dog in front of a chair",
    "unidet_numeracy": "two dogs and a chair",
    "clip_cosine": "A dog sits on a chair.",
    "three_in_one": "The black phone was resting on the brown charger.",
}
CATEGORIES = {CONFIG.scorer_of(category)[0]: category for category in CONFIG.categories}
FILES = (
    *("unidet-rs200", "unidet-r50", "unidet-labels", "dpt-hybrid", "compbench-objects"),
    *("clip-vit-b-32", "blip-vqa", "bert-vocab"),
)


def settings_of(name: str) -> dict:
    return CONFIG.scorer_of(CATEGORIES[name])[1]


def prompt_of(name: str) -> Prompt:
    return Prompt(id="some-0000", category=CATEGORIES[name], text=PROMPTS[name])


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "t2i-compbench").symlink_to(LISTS)
    monkeypatch.setenv("GENTRON_PROMPTS", str(tmp_path / "prompts"))


@needs_lists
@pytest.mark.parametrize("name", PROMPTS)
def test_a_missing_file_is_said_with_the_way_on(name: str, tmp_path: Path, lists: None):
    with pytest.raises(MissingWeights, match="gentron-bench weights fetch"):
        build_scorer(name, settings_of(name), Context(models=tmp_path / "none", phrases="rules"))


@needs_lists
@pytest.mark.slow
def test_every_scorer_rehearses_on_small_random_weights(tmp_path: Path, lists: None):
    for id in FILES:
        make_random(id, tmp_path / "models", seed=1)
    pictures = [np.random.RandomState(k).randint(0, 256, (64, 48 + 16 * k, 3), np.uint8) for k in range(3)]

    def scored(name: str, order: list[int], cache: Path) -> list[Scored]:
        context = Context(models=tmp_path / "models", cache=cache, phrases="rules")
        scorer = build_scorer(name, settings_of(name), context)
        assert scorer.record.name == name and scorer.record.random_weights
        found = {
            k: scorer.score(pictures[k], sha256(pictures[k].tobytes()), prompt_of(name), 0) for k in order
        }
        return [found[k] for k in sorted(found)]

    for name in PROMPTS:
        first = scored(name, [0, 1, 2], tmp_path / "a")
        json.dumps([asdict(one) for one in first], allow_nan=False)
        assert scored(name, [2, 0, 1], tmp_path / "b") == first  # images do not know of each other
        assert scored(name, [1, 2, 0], tmp_path / "a") == first  # from kept detections
        assert all("\n" not in one.reason for one in first)
