"""Clips of the built-in world: what movements, samples and captions promise."""

import hashlib
import itertools
import re
from collections import Counter

import numpy as np
import pytest

from gentron.data.keyed import Stream, keyed_rng
from gentron.shapes import (
    Motion,
    MotionMixture,
    Movement,
    MovingScene,
    Scene,
    SceneObject,
    clip_caption,
    describe_clip,
    is_heldout_clip,
    opposite_caption,
    phrase_clip,
    render,
    render_clip,
    sample_clip,
)
from gentron.shapes.captions import SHAPE_ADJECTIVES
from gentron.shapes.motion import DIRECTIONS, MIN_GAP, OPPOSITES, START_STEP, STILL, heldout_motion
from gentron.shapes.motion_captions import DIRECTION_PHRASES
from gentron.shapes.scene import COLORS, SHAPES, fits_canvas, heldout_color_shape, silhouette
from gentron.shapes.vocabulary import build_tokenizer, motion_words, words

NUM_CLIPS = 600


@pytest.fixture(scope="module")
def clips() -> list[MovingScene]:
    return [sample_clip(keyed_rng(0, i, Stream.CLIP)) for i in range(NUM_CLIPS)]


def test_movements_go_where_they_say() -> None:
    assert [Movement(Motion.LEFT, 4).offset(f) for f in (0, 1, 7)] == [(0, 0), (-4, 0), (-28, 0)]
    assert Movement(Motion.DOWN, 6).offset(7) == (0, 42) and STILL.offset(7) == (0, 0)
    there_and_back = [Movement(Motion.UP, 4, turn=4).offset(f)[1] for f in range(10)]
    assert there_and_back == [0, -4, -8, -12, -16, -12, -8, -4, 0, -4]


@pytest.mark.parametrize("motion,speed,turn", [("left", 0, None), ("still", 4, None), ("up", 4, 0)])
def test_movements_that_contradict_themselves_are_refused(motion: str, speed: int, turn: int | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        Movement(Motion(motion), speed, turn)


def test_a_clip_is_a_function_of_seed_and_index_and_its_frames_are_pinned() -> None:
    """Weights, caches and protocols depend on these bytes: a change here is a new MOTION_VERSION."""
    made = [sample_clip(keyed_rng(0, i, Stream.CLIP)) for i in range(20)]
    assert made == [sample_clip(keyed_rng(0, i, Stream.CLIP)) for i in range(20)]
    digest = hashlib.sha256(b"".join(render_clip(clip).tobytes() for clip in made))
    assert digest.hexdigest()[:16] == "e2383a34a16c1e7a"


def test_frames_are_the_worlds_pictures() -> None:
    clip = MovingScene(Scene((SceneObject("circle", "red", x=12, y=20),)), (Movement(Motion.RIGHT, 4),))
    frames = render_clip(clip)
    assert frames.shape == (8, 64, 64, 3) and frames.dtype == np.uint8
    for k in range(8):
        assert np.array_equal(frames[k], render(Scene((SceneObject("circle", "red", x=12 + 4 * k, y=20),))))


def test_every_path_fits_and_objects_keep_apart_in_every_frame(clips: list[MovingScene]) -> None:
    for clip in clips:
        for frame in range(8):
            things = clip.at(frame).objects
            assert all(map(fits_canvas, things))
            for a, b in itertools.combinations(things, 2):
                ya, xa = np.nonzero(silhouette(a))
                yb, xb = np.nonzero(silhouette(b))
                apart = np.maximum(abs(ya[:, None] - yb), abs(xa[:, None] - xb)).min() - 1
                assert apart >= MIN_GAP


def test_starts_are_multiples_of_four_pixels_and_not_cells_alone(clips: list[MovingScene]) -> None:
    starts = [(o.x, o.y) for clip in clips for o in clip.scene.objects]
    assert all(n % START_STEP == 0 for start in starts for n in start)
    assert {x % 16 for x, _ in starts} == {y % 16 for _, y in starts} == {0, 4, 8, 12}


def test_the_mixture_sets_the_shares_of_the_kinds(clips: list[MovingScene]) -> None:
    single = Counter(sorted(m.speed for m in clip.moves) == [4] for clip in clips)
    assert 0.36 < single[True] / NUM_CLIPS < 0.56  # .42, a half of the .04 that bounce, fewer rejections
    assert {m.motion for clip in clips for m in clip.moves} == set(Motion)
    assert {m.speed for clip in clips for m in clip.moves} == {0, 2, 4, 6}
    assert {len(clip.moves) for clip in clips} == {1, 2, 3}
    only = MotionMixture(alone=0, beside=0, crowd=0, two_movers=1, still=0, slow=0, fast=0, bounce=0)
    for i in range(50):
        moves = sample_clip(keyed_rng(1, i, Stream.CLIP), mixture=only).moves
        assert len({m.motion for m in moves}) == 2 and all(m.speed == 4 for m in moves)
    with pytest.raises(ValueError, match="sum to 1"):
        MotionMixture(alone=0.5)


def test_other_lengths_fit_as_well_and_impossible_ones_are_refused() -> None:
    for num_frames in (1, 4, 13):
        clip = sample_clip(keyed_rng(0, 0, Stream.CLIP), num_frames=num_frames)
        assert all(fits_canvas(o) for f in range(num_frames) for o in clip.at(f).objects)
    with pytest.raises(ValueError, match="from 1 to 13"):
        sample_clip(keyed_rng(0, 0, Stream.CLIP), num_frames=14)


def test_training_clips_hold_no_held_out_combination(clips: list[MovingScene]) -> None:
    assert not any(map(is_heldout_clip, clips))


def test_one_combination_in_eight_is_held_out_and_its_pair_is_known_otherwise() -> None:
    for motion in Motion:
        held = [(c, s) for c in COLORS for s in SHAPES if heldout_motion(c, s, motion)]
        assert len({c for c, _ in held}) == len({s for _, s in held}) == len(held) == 8
        assert not any(heldout_color_shape(c, s) for c, s in held)
    for color, shape in itertools.product(COLORS, SHAPES):
        assert sum(heldout_motion(color, shape, motion) for motion in Motion) <= 1


# ---- captions --------------------------------------------------------------------------------------------

_DIRECTION = {phrase: motion for motion, options in DIRECTION_PHRASES.items() for phrase in options}


def _moving_in(text: str) -> list[tuple[str, Motion]]:
    """An independent reading: (the object's words, direction) of each that moves, in the caption's order."""
    ends = "|".join(sorted(_DIRECTION, key=len, reverse=True))
    pattern = rf"(an? [a-z- ]+?) (?:moving|that moves)(?: slowly| quickly)? ({ends})\b"
    found = []
    for words_before, direction in re.findall(pattern, text):
        nearest = re.split(r"\b(?=an? )", words_before)[-1]
        found.append((nearest.strip(), _DIRECTION[direction]))
    return found


def test_captions_say_which_object_moves_and_where(clips: list[MovingScene]) -> None:
    for i, clip in enumerate(clips):
        text = clip_caption(clip, keyed_rng(0, i, Stream.CLIP_CAPTION))
        read = _moving_in(text)
        movers = [(o, m.motion) for o, m in zip(clip.scene.objects, clip.moves, strict=True) if m.speed]
        assert len(read) == len(movers), text
        for thing, motion in movers:
            named = [words_ for words_, said in read if said is motion]
            assert len(named) == 1, text
            assert {thing.color, thing.shape, *SHAPE_ADJECTIVES[thing.shape]} & set(named[0].split()), text
            others = [o for o in clip.scene.objects if o is not thing]
            assert not any(o.color in named[0].split() or o.shape in named[0].split() for o in others), text


def test_captions_name_speed_and_return_exactly_where_they_are_true(clips: list[MovingScene]) -> None:
    for i, clip in enumerate(clips):
        text = clip_caption(clip, keyed_rng(0, i, Stream.CLIP_CAPTION))
        assert ("slowly" in text) == any(m.speed == 2 for m in clip.moves)
        assert ("quickly" in text) == any(m.speed == 6 for m in clip.moves)
        assert ("and back" in text) == any(m.turn is not None for m in clip.moves)


def test_the_opposite_caption_differs_in_the_directions_alone(clips: list[MovingScene]) -> None:
    def open_directions(text: str) -> str:
        return re.sub("|".join(sorted(_DIRECTION, key=len, reverse=True)), "*", text)

    checked = 0
    for i, clip in enumerate(clips):
        text, swapped = (
            f(clip, keyed_rng(0, i, Stream.CLIP_CAPTION)) for f in (clip_caption, opposite_caption)
        )
        assert text != swapped
        if not any(m.speed for m in clip.moves):
            assert _moving_in(swapped) and not _moving_in(text)
            continue
        said, other = _moving_in(text), _moving_in(swapped)
        assert [(name, OPPOSITES[motion]) for name, motion in said] == other
        checked += open_directions(text).split() == open_directions(swapped).split()
    assert checked > 500


def test_clip_captions_use_the_grown_vocabulary_and_need_it(clips: list[MovingScene]) -> None:
    grown, old = set(motion_words()), set(words())
    texts = [clip_caption(clip, keyed_rng(0, i, Stream.CLIP_CAPTION)) for i, clip in enumerate(clips)]
    said = {word for text in texts for word in text.replace(",", " ,").split()}
    assert said <= grown
    assert grown - old <= said  # no word without a use


def test_the_grown_vocabulary_keeps_the_old_ids_and_tokenizes_old_captions_alike(clips) -> None:
    assert motion_words()[: len(words())] == words() and len(words()) == 77
    old = build_tokenizer(begin=False, max_length=48)
    grown = build_tokenizer(begin=False, max_length=48, vocabulary=motion_words())
    for text in ("a red circle to the left of a blue square", "a picture of a star and a large dotted ring"):
        assert old(text).input_ids == grown(text).input_ids
    assert old.unk_token_id in old("a red circle moving left").input_ids
    assert old.unk_token_id not in grown("a red circle moving left").input_ids


def test_one_description_has_several_phrasings(clips: list[MovingScene]) -> None:
    for kind in ([4], [0], [0, 4], [2]):
        clip = next(c for c in clips if sorted(m.speed for m in c.moves) == kind)
        description = describe_clip(clip, keyed_rng(0, 0, Stream.CLIP_CAPTION))
        assert len({phrase_clip(description, keyed_rng(0, i, Stream.CLIP_CAPTION)) for i in range(60)}) >= 5


def test_all_directions_are_equally_common(clips: list[MovingScene]) -> None:
    counts = Counter(m.motion for clip in clips for m in clip.moves if m.speed)
    total = sum(counts.values())
    assert all(abs(counts[d] / total - 0.25) < 0.06 for d in DIRECTIONS)
