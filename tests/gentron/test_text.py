# B batch, L prompt tokens, E text width

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from gentron.errors import UserError
from gentron.shapes.vocabulary import build_tokenizer, words
from gentron.text import HashTokenizer, PromptEmbeds, TextEncoders, random_clip, random_t5
from tests.tiny import MAX_LENGTH, WIDTH

PROMPTS = ["a red circle", "", "a small blue square"]


@pytest.fixture(scope="module")
def encoders(tiny_checkpoint: Path) -> TextEncoders:
    return load(tiny_checkpoint)


def load(folder: Path, **options: object) -> TextEncoders:
    lengths = {"clip_max_length": MAX_LENGTH, "t5_max_length": MAX_LENGTH}
    return TextEncoders.from_pretrained(folder / "clip", folder / "t5", **(lengths | options))  # type: ignore


def embeds(batch: int, length: int) -> PromptEmbeds:
    tokens, mask = torch.randn(batch, length, 4), torch.ones(batch, length, dtype=torch.bool)
    return PromptEmbeds(clip_prompt_embeds=tokens, clip_prompt_mask=mask, pooled_prompt_embeds=tokens[:, 0])


def present(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


def test_encode_gives_tokens_masks_and_pooled(encoders: TextEncoders) -> None:
    encoded = encoders.encode(PROMPTS)
    for tokens, mask in (
        (encoded.clip_prompt_embeds, encoded.clip_prompt_mask),
        (encoded.t5_prompt_embeds, encoded.t5_prompt_mask),
    ):
        assert present(tokens).shape == (3, MAX_LENGTH, WIDTH)
        assert present(mask).dtype == torch.bool
    assert present(encoded.clip_prompt_mask).sum(1).tolist() == [5, 2, 6]  # <s> words </s>
    assert present(encoded.t5_prompt_mask).sum(1).tolist() == [4, 1, 5]  # words </s>
    assert present(encoded.pooled_prompt_embeds).shape == (3, WIDTH)


def test_pooled_is_the_token_at_the_end_of_the_prompt(encoders: TextEncoders) -> None:
    encoded = encoders.encode(PROMPTS)
    last = present(encoded.clip_prompt_mask).sum(1) - 1
    expected = present(encoded.clip_prompt_embeds)[torch.arange(3), last]
    assert torch.equal(present(encoded.pooled_prompt_embeds), expected)


def test_real_tokens_do_not_depend_on_the_padding(tiny_checkpoint: Path, encoders: TextEncoders) -> None:
    longer, shorter = (
        encoders.encode(["a red circle"]),
        load(tiny_checkpoint, t5_max_length=8).encode(["a red circle"]),
    )
    torch.testing.assert_close(
        present(longer.t5_prompt_embeds)[:, :4], present(shorter.t5_prompt_embeds)[:, :4]
    )


def test_unconditional_branch_is_the_empty_prompt(encoders: TextEncoders) -> None:
    alone, among = encoders.encode([""]), encoders.encode(PROMPTS)[1:2]
    torch.testing.assert_close(alone.clip_prompt_embeds, among.clip_prompt_embeds)
    torch.testing.assert_close(alone.t5_prompt_embeds, among.t5_prompt_embeds)


def test_indexing_repeating_and_joining_keep_rows_together() -> None:
    whole = embeds(3, 5)
    tokens = present(whole.clip_prompt_embeds)
    assert torch.equal(present(whole[[2, 0]].clip_prompt_embeds), tokens[[2, 0]])
    assert torch.equal(present(whole[1:].pooled_prompt_embeds), tokens[1:, 0])
    assert torch.equal(present(whole[torch.tensor([1])].clip_prompt_embeds), tokens[1:2])
    repeated = whole.repeat_interleave(2)
    assert repeated.batch_size == 6
    assert torch.equal(present(repeated.clip_prompt_embeds)[1], tokens[0])
    joined = PromptEmbeds.cat([whole[:1], whole[1:]])
    assert torch.equal(present(joined.clip_prompt_embeds), tokens)


def test_joining_pads_the_shorter_with_masked_tokens() -> None:
    joined = PromptEmbeds.cat([embeds(1, 3), embeds(2, 5)])
    assert present(joined.clip_prompt_embeds).shape == (3, 5, 4)
    assert present(joined.clip_prompt_mask).sum(1).tolist() == [3, 5, 5]
    with pytest.raises(ValueError, match="same encoders"):
        PromptEmbeds.cat([embeds(1, 3), PromptEmbeds(pooled_prompt_embeds=torch.zeros(1, 4))])


def test_casting_leaves_masks_alone() -> None:
    cast = embeds(1, 3).to(dtype=torch.bfloat16)
    assert present(cast.clip_prompt_embeds).dtype == torch.bfloat16
    assert present(cast.clip_prompt_mask).dtype == torch.bool


def test_t5_in_float16_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="float16"):
        load(tiny_checkpoint, dtype=torch.float16)
    encoders = load(tiny_checkpoint, dtype=torch.bfloat16)
    assert present(encoders.encode(PROMPTS).t5_prompt_embeds).dtype == torch.bfloat16


def test_one_encoder_alone(tiny_checkpoint: Path) -> None:
    encoded = TextEncoders.from_pretrained(None, tiny_checkpoint / "t5", t5_max_length=8).encode(PROMPTS)
    assert encoded.clip_prompt_embeds is None and encoded.pooled_prompt_embeds is None
    with pytest.raises(ValueError, match="at least one"):
        TextEncoders(None, None)


def test_remarks_name_unknown_words_and_cut_prompts(encoders: TextEncoders) -> None:
    assert encoders.remarks(PROMPTS) == []
    remarks = encoders.remarks(["a Mauve circle?", "a red circle and " * 10])
    assert any("mauve" in line and "circle" not in line for line in remarks)
    assert [line for line in remarks if "clip reads 16 tokens: the end of 1 prompt is cut off" in line]
    assert len(remarks) == 3  # a line for each encoder, one for the words


def test_missing_or_damaged_folders_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path)
    shutil.copytree(tiny_checkpoint, tmp_path / "cut")
    weights = tmp_path / "cut" / "t5" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot load the t5 text encoder"):
        load(tmp_path / "cut")


def test_missing_weights_are_not_filled_in(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_checkpoint, tmp_path / "part")
    weights = tmp_path / "part" / "clip" / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        load(tmp_path / "part")


def test_a_tokenizer_without_end_token_is_refused(encoders: TextEncoders) -> None:
    from dataclasses import replace

    from tokenizers import processors

    assert encoders.t5 is not None
    bare = build_tokenizer(begin=False, max_length=MAX_LENGTH)
    bare.backend_tokenizer.post_processor = processors.Sequence([])
    with pytest.raises(ValueError, match="end token"):
        replace(encoders.t5, tokenizer=bare).encode([""])


def test_hash_tokenizer_is_stable_and_has_the_real_form() -> None:
    tokenizer = HashTokenizer(100, bos=98, eos=99, pad=99)
    tokens = tokenizer(["a Red circle", "a red circle", ""], truncation=True, max_length=4)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert torch.equal(ids[0], ids[1])
    assert ids[:, 0].tolist() == [98] * 3 and ids[0, -1] == 99
    assert ids[2].tolist() == [98, 99, 99, 99] and mask[2].tolist() == [1, 1, 0, 0]
    assert (ids[0, 1:3] < 98).all()
    assert tokenizer(["a red circle"])["attention_mask"] == [[1] * 5]
    assert HashTokenizer(50, eos=1, pad=0)(["red"])["input_ids"] == [[47, 1]]


def test_random_encoders_of_other_widths_run() -> None:
    with torch.random.fork_rng(devices=[]):
        encoders = TextEncoders(random_clip(32), random_t5(32, dtype=torch.float32))
    encoded = encoders.encode(PROMPTS)
    assert present(encoded.clip_prompt_embeds).shape == (3, 77, 32)
    assert present(encoded.t5_prompt_embeds).shape == (3, 120, 32)
    assert present(encoded.t5_prompt_embeds).isfinite().all()


def test_the_papers_encoders_have_their_parameter_counts() -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    from gentron.text import CLIP_L, T5_XXL

    with torch.device("meta"):
        clip, t5 = CLIPTextModel(CLIPTextConfig(**CLIP_L)), T5EncoderModel(T5Config(**T5_XXL))
    assert sum(p.numel() for p in clip.parameters()) == 123_060_480
    assert sum(p.numel() for p in t5.parameters()) == 4_762_310_656


def test_tiny_encoders_know_every_word_of_the_world(encoders: TextEncoders) -> None:
    assert encoders.clip is not None
    assert encoders.clip.unknown_words([word for word in words() if word.isalpha()]) == set()
