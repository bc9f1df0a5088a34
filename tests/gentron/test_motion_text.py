"""Teaching the mini text encoders the words of motion: what is learned and what stays to the bit."""

# B batch, L prompt tokens, E text width

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from gentron.bundled import bundled_mini, bundled_part
from gentron.cli import app
from gentron.errors import UserError
from gentron.shapes import Motion, Movement, ObjectDescription, caption, sample_scene, scene_rng
from gentron.shapes.motion import STILL
from gentron.shapes.motion_captions import ClipDescription
from gentron.shapes.vocabulary import motion_words, words, words_of_clips_alone
from gentron.text import TextEncoders
from gentron.train import motion_text, steps
from gentron.train.motion_text import (
    MotionTextRecipe,
    Reader,
    Taught,
    canonical_motion,
    draw_pair,
    load_encoders,
    train,
)

RECIPE = MotionTextRecipe(steps=4, batch_size=4, warmup_steps=1)
OLD_CAPTIONS = ["", *[caption(sample_scene(scene_rng(0, i)), scene_rng(1, i)) for i in range(20)]]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Taught]]:
    out = tmp_path_factory.mktemp("taught") / "run"
    return out, train(out, initial=bundled_mini(), recipe=RECIPE)


def encoded(clip: Path, t5: Path, prompts: list[str]) -> dict[str, torch.Tensor]:
    text = TextEncoders.from_pretrained(clip, t5, clip_max_length=40, t5_max_length=40).encode(prompts)
    return {name: tensor for name, tensor in text._present()}


# ---- what stays and what changes -------------------------------------------------------------------------


def test_captions_of_pictures_keep_their_encoding_to_the_bit(taught: tuple[Path, dict[str, Taught]]) -> None:
    before = encoded(bundled_part("clip"), bundled_part("t5"), OLD_CAPTIONS)
    after = encoded(taught[0] / "clip", taught[0] / "t5", OLD_CAPTIONS)
    assert before.keys() == after.keys() and len(before) == 5
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_the_rows_of_the_new_words_move(taught: tuple[Path, dict[str, Taught]]) -> None:
    old = dict(load_encoders(bundled_mini()))
    for name, module in taught[1].items():
        for key, tensor in old[name].state_dict().items():
            new = module.encoder.state_dict()[key]
            if len(new) == len(module.trainable):  # the embeddings, under each of their names
                kept = ~module.trainable[: len(tensor)]
                assert torch.equal(new[: len(tensor)][kept], tensor[kept])
            else:
                assert torch.equal(new, tensor), key
        start = Taught(dict(load_encoders(bundled_mini()))[name], begin=name == "clip", recipe=RECIPE)
        moved = (
            module.encoder.get_input_embeddings().weight != start.encoder.get_input_embeddings().weight
        ).any(1)
        assert moved.any() and not (moved & ~module.trainable).any()


def test_encoders_that_know_the_words_are_taught_anew_and_alike(
    taught: tuple[Path, dict[str, Taught]], tmp_path: Path
) -> None:
    """What was taught before does not matter: the bundled encoders have the words."""
    train(tmp_path / "again", initial=taught[0], recipe=RECIPE)
    for name in ("t5", "clip"):
        files = [folder / name / "model.safetensors" for folder in (taught[0], tmp_path / "again")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_no_caption_of_a_picture_holds_a_word_that_is_trained() -> None:
    alone = set(words_of_clips_alone())
    assert {"moving", "up", "beside", "still"} <= alone and not {"left", "right", "and", "that"} & alone
    for index in range(500):
        text = caption(sample_scene(scene_rng(0, index)), scene_rng(1, index))
        assert not alone & set(text.replace(",", " ,").split())


def test_the_exported_tokenizers_know_the_words_of_motion(taught: tuple[Path, dict[str, Taught]]) -> None:
    encoders = TextEncoders.from_pretrained(taught[0] / "clip", taught[0] / "t5")
    for tower in (encoders.clip, encoders.t5):
        assert tower is not None
        assert not tower.unknown_words(["a red circle moving slowly upwards and back beside a blue square"])
        assert tower.unknown_words(["a red horse"]) == {"horse"}


# ---- the canonical wording and its reader ----------------------------------------------------------------


def test_the_canonical_wording_names_who_moves_first() -> None:
    circle, square = ObjectDescription(shape="circle", color="red"), ObjectDescription(color="blue")
    left, slow = Movement(Motion.LEFT, 4), Movement(Motion.DOWN, 2)
    for order in (1, -1):
        both = ClipDescription((circle, square)[::order], (left, slow)[::order])
        assert canonical_motion(both) == "red circle left ; blue any down slowly"
        one = ClipDescription((circle, square)[::order], (STILL, left)[::order])
        assert canonical_motion(one) == "blue any left ; red circle still"
    back = ClipDescription((circle,), (Movement(Motion.UP, 4, turn=4),))
    assert canonical_motion(back) == "red circle up back"


def test_pairs_are_functions_of_seed_and_index_and_use_the_vocabulary() -> None:
    assert draw_pair(3, 7) == draw_pair(3, 7) != draw_pair(3, 8)
    for index in range(200):
        assert set(draw_pair(0, index).canonical.split()) <= set(motion_words())


def test_the_reader_sees_no_later_word_and_no_padding() -> None:
    torch.manual_seed(0)
    reader = Reader(16, num_words=20, num_heads=2)
    ids, tokens, mask = torch.randint(20, (2, 6)), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    logits = reader(ids, tokens, mask)
    changed_ids, changed_tokens = ids.clone(), tokens.clone()
    changed_ids[:, 4:] += 1
    changed_tokens[1, 3:] += 1
    other = reader(changed_ids % 20, changed_tokens, mask)
    assert torch.allclose(logits[:, :4], other[:, :4], atol=1e-5)
    assert not torch.allclose(logits[:, 4:], other[:, 4:], atol=1e-5)


def test_teaching_lowers_the_loss_and_free_reading_agrees_with_it(tmp_path: Path) -> None:
    """A few words on few captions: the reader, left to itself, spells what it was taught."""
    encoder = dict(load_encoders(bundled_mini()))["t5"]
    module = Taught(encoder, begin=False, recipe=RECIPE)
    pairs = [draw_pair(0, index) for index in range(4)]
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        values = module.loss(pairs)
        values["loss"].backward()
        optimizer.step()
    assert values["exact"] == 1
    assert module.read([pair.caption for pair in pairs]) == [pair.canonical for pair in pairs]


# ---- runs ------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a kill between two steps."""


def test_a_killed_run_goes_on_bit_for_bit(
    taught: tuple[Path, dict[str, Taught]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHECKPOINT_EVERY", 2)
    update = steps.StepState.update

    def dying(state: steps.StepState, values: dict[str, torch.Tensor], *, batch_size: int) -> None:
        if state.step == 3:
            monkeypatch.setattr(steps.StepState, "update", update)
            raise Killed
        update(state, values, batch_size=batch_size)

    monkeypatch.setattr(steps.StepState, "update", dying)
    with pytest.raises(Killed):
        train(tmp_path / "run", initial=bundled_mini(), recipe=RECIPE)
    train(tmp_path / "run", initial=bundled_mini(), recipe=RECIPE)
    for name in ("t5", "clip"):
        for path in (taught[0] / name).iterdir():
            assert path.read_bytes() == (tmp_path / "run" / name / path.name).read_bytes(), path


def test_encoders_of_another_vocabulary_and_other_folders_are_refused(tmp_path: Path) -> None:
    _, other = next(load_encoders(bundled_mini()))
    other.set_input_embeddings(torch.nn.Embedding(50, 128))
    with pytest.raises(UserError, match="must know the 77 words of the shapes world, its embedding has 50"):
        Taught(other, begin=False, recipe=RECIPE)
    assert len(words()) == 77 and len(motion_words()) == 93
    with pytest.raises(UserError, match="does not exist"):
        train(tmp_path / "none", initial=tmp_path / "nothing", recipe=RECIPE)


def test_the_command_teaches_the_bundled_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_text, "MotionTextRecipe", lambda: RECIPE)
    result = CliRunner().invoke(app, ["train", "text-motion", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"clip", "t5", "config.json"}
    again = CliRunner().invoke(app, ["train", "text-motion", "--out", str(tmp_path / "run")])
    assert again.exit_code == 2 and "holds a run already" in again.stderr
