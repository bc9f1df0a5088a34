from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.prompts import HELD_OUT, SEEN
from bench.prompts.protocol import load_protocol
from bench.prompts.shapes import CATEGORIES, dump, generate, heldout_kinds, load, parse, redraw
from bench.scorers.shapes import judge
from gentron.errors import UserError
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.scene import INTERACTIONS, SPATIAL
from tests.bench.worlds import perfect_image

PROTOCOL = load_protocol("compbench-shapes_v1")
PROMPTS = PROTOCOL.select("all", limit=None)


def test_there_are_300_prompts_a_category_a_third_of_them_held_out() -> None:
    assert list(PROTOCOL.prompts) == list(CATEGORIES)
    for prompts in PROTOCOL.prompts.values():
        assert [len([p for p in prompts if p.split == s]) for s in (SEEN, HELD_OUT)] == [200, 100]


def test_a_list_cut_short_keeps_both_splits() -> None:
    for category in PROTOCOL.prompts:
        splits = [p.split for p in PROTOCOL.select("all", limit=6) if p.category == category]
        assert len(splits) == 6 and splits.count(HELD_OUT) == 2


def test_texts_and_ids_are_unique() -> None:
    assert len({p.text for p in PROMPTS}) == len({p.id for p in PROMPTS}) == 1800


def test_ids_are_safe_file_names() -> None:
    assert all(p.id.replace("-", "").isalnum() and p.id.isascii() for p in PROMPTS)


def test_prompts_name_what_their_description_holds() -> None:
    for prompt in PROMPTS:
        words = prompt.text.split()
        for thing in prompt.claim.objects:
            named = [v for v in (thing.color, thing.texture, thing.size) if v]
            assert all(any(w.strip(",") == v for w in words) for v in named), prompt
        assert prompt.heldout == heldout_kinds(prompt.claim)


def test_relations_are_balanced() -> None:
    for category, kinds in (("spatial", SPATIAL), ("non-spatial", INTERACTIONS)):
        counts = [sum(p.claim.relation == r for p in PROTOCOL.prompts[category]) for r in kinds]
        assert max(counts) - min(counts) <= 3


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_true_picture_of_every_prompt_scores_one(category: str) -> None:
    for prompt in PROTOCOL.prompts[category]:
        judgement = judge(perfect_image(prompt), prompt.claim)
        assert judgement.score == 1, (prompt.text, judgement.reason)


def test_lists_are_made_deterministically() -> None:
    assert generate(6, seed=1) == generate(6, seed=1)
    assert generate(6, seed=1) != generate(6, seed=2)


def test_lists_survive_the_disk() -> None:
    for category, prompts in generate(9, seed=3).items():
        assert parse(dump(prompts), category) == prompts


def test_changed_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "color.jsonl").write_bytes(dump(PROTOCOL.prompts["color"][:5]))
    with pytest.raises(UserError, match="was changed"):
        load(tmp_path / "color.jsonl", "color", sha256="0" * 64)


def test_redrawing_changes_the_tested_attribute_only() -> None:
    asked = Description((ObjectDescription("star", "red"), ObjectDescription("ring", "blue")), "above")
    rng = np.random.default_rng(0)
    drawn = [redraw(asked, "color", rng) for _ in range(400)]
    assert all([o.shape for o in d.objects] == ["star", "ring"] and d.relation == "above" for d in drawn)
    assert all(o.texture is None for d in drawn for o in d.objects)
    shares = [np.mean([d.objects[k].color == c for d in drawn]) for k, c in ((0, "red"), (1, "blue"))]
    assert all(0.06 < share < 0.2 for share in shares)  # one in eight, the asked one included
    assert {redraw(asked, "relation", rng).relation for _ in range(60)} == set(SPATIAL)


def test_redrawing_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown tested attribute"):
        redraw(PROMPTS[0].claim, "weight", np.random.default_rng(0))
