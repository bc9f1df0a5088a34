"""Prompts of motion-shapes_v1: what the lists hold, and that they are what was pinned."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.prompts import HELD_OUT, SEEN
from bench.prompts.motion import CATEGORIES, dump, generate, parse, realise_clip, redraw_motion
from bench.prompts.protocol import MotionConfig, load_protocol
from bench.scorers.motion import judge_clip, look
from gentron.shapes.captions import ObjectDescription
from gentron.shapes.motion import STILL, Motion, Movement, heldout_motion, render_clip
from gentron.shapes.motion_captions import ClipDescription
from gentron.shapes.scene import heldout_color_shape
from gentron.shapes.vocabulary import motion_words

PROTOCOL = load_protocol("motion-shapes_v1")


def test_the_lists_are_those_that_generate_makes() -> None:
    counts = {category: len(prompts) for category, prompts in PROTOCOL.prompts.items()}
    assert counts == {category: 300 if category == "direction" else 100 for category in CATEGORIES}
    assert isinstance(PROTOCOL.config, MotionConfig)
    for category, prompts in generate(counts, seed=20231206).items():
        digest = hashlib.sha256(dump(prompts)).hexdigest()
        assert digest == PROTOCOL.config.categories[category].sha256
        assert parse(dump(prompts), category) == prompts


def test_a_third_asks_for_what_training_never_sees_and_the_rest_for_nothing_of_it() -> None:
    for prompts in PROTOCOL.prompts.values():
        assert Counter(p.split for p in prompts)[HELD_OUT] == len(prompts) // 3
        for prompt in prompts:
            claim = prompt.clip_claim
            pairs = list(zip(claim.objects, claim.moves, strict=True))
            unseen = [heldout_motion(str(o.color), str(o.shape), m.motion) for o, m in pairs]
            assert unseen[0] == (prompt.split == HELD_OUT) and not any(unseen[1:])
            assert prompt.split in (SEEN, HELD_OUT)
            assert not any(heldout_color_shape(str(o.color), str(o.shape)) for o in claim.objects)


def test_texts_are_unique_and_use_the_words_of_motion() -> None:
    texts = [p.text for prompts in PROTOCOL.prompts.values() for p in prompts]
    assert len(set(texts)) == len(texts) == 800
    said = {word for text in texts for word in re.findall(r"[\w-]+|,", text)}
    assert said <= set(motion_words())


def test_the_categories_ask_for_what_they_say() -> None:
    moves = {category: [p.moves for p in prompts] for category, prompts in PROTOCOL.prompts.items()}
    directions = Counter(m[0].motion for m in moves["direction"])
    assert set(directions.values()) == {75} and len(directions) == 4
    assert all(len(m) == 2 and m[1] == STILL and m[0].speed == 4 for m in moves["bystander"])
    assert all(set(m) == {STILL} for m in moves["still"]) and {len(m) for m in moves["still"]} == {1, 2}
    assert {m[0].speed for m in moves["speed"]} == {2, 6}
    assert all(m[0].motion is not m[1].motion and m[1].speed for m in moves["two-movers"])
    assert all(m[0].turn == 4 for m in moves["bounce"])


def test_every_prompt_can_be_drawn_and_what_is_drawn_is_right() -> None:
    for prompt in PROTOCOL.select("all", limit=6):
        clip = realise_clip(prompt.clip_claim, np.random.default_rng(0))
        assert clip is not None
        assert judge_clip(look(render_clip(clip)), prompt.clip_claim).motion.value == 1, prompt.text


def test_redrawn_claims_are_uniform_in_what_is_tested() -> None:
    thing = ObjectDescription("circle", "red")
    rng = np.random.default_rng(0)
    one = ClipDescription((thing,), (Movement(Motion.LEFT, 4),))
    two = ClipDescription((thing, thing), (Movement(Motion.LEFT, 4), Movement(Motion.UP, 4)))
    beside = ClipDescription((thing, thing), (Movement(Motion.LEFT, 4), STILL))
    drawn = Counter(redraw_motion(one, "direction", rng).moves[0].motion for _ in range(400))
    assert len(drawn) == 4 and min(drawn.values()) > 70
    for _ in range(50):
        first, second = redraw_motion(two, "direction", rng).moves
        assert first.motion is not second.motion
        assert redraw_motion(beside, "direction", rng).moves[1] == STILL
    speeds = Counter(redraw_motion(one, "speed", rng).moves[0].speed for _ in range(200))
    assert set(speeds) == {2, 6} and min(speeds.values()) > 70
    motions = Counter(redraw_motion(one, "motion", rng).moves[0].motion for _ in range(500))
    assert len(motions) == 5 and min(motions.values()) > 70
    with pytest.raises(ValueError, match="unknown tested property 'colour'"):
        redraw_motion(one, "colour", rng)


def test_a_changed_list_is_refused(tmp_path: Path) -> None:
    from bench.prompts.motion import load, write
    from gentron.errors import UserError

    digests = write(tmp_path, counts=dict.fromkeys(CATEGORIES, 3), seed=1)
    path = tmp_path / "still.jsonl"
    assert len(load(path, "still", sha256=digests["still"])) == 3
    path.write_bytes(path.read_bytes().replace(b"seen", b"SEEN"))
    with pytest.raises(UserError, match="still.jsonl was changed"):
        load(path, "still", sha256=digests["still"])
