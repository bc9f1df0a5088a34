# B batch, C latent channels, H W latent size

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gentron.errors import UserError
from gentron.media import Sample
from gentron.pipeline import (
    GenTronPipeline,
    KeyedNoise,
    open_pipeline,
    prompts_per_pass,
    samples_per_pass,
    to_pil,
)
from gentron.samplers import SAMPLERS
from tests.tiny import IMAGE_SIZE, TINY_MODEL

PROMPTS = ["a red circle", "a red circle and a blue square", "", "a green star", "a blue square"] * 4
SEEDS = list(range(100, 100 + len(PROMPTS)))


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> GenTronPipeline:
    return GenTronPipeline.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def reference(pipeline: GenTronPipeline) -> list[np.ndarray]:
    return arrays(pipeline(PROMPTS, seeds=SEEDS))


def arrays(samples: list[Sample]) -> list[np.ndarray]:
    return [np.asarray(sample.image) for sample in samples]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def test_pictures_are_rgb_of_the_configured_size(reference: list[np.ndarray]) -> None:
    assert len(reference) == len(PROMPTS)
    assert {(image.shape, image.dtype.name) for image in reference} == {
        ((IMAGE_SIZE, IMAGE_SIZE, 3), "uint8")
    }
    assert min(image.std() for image in reference) > 1


def test_prompt_and_seed_both_matter(pipeline: GenTronPipeline) -> None:
    a, b, c, d = arrays(pipeline(["a red circle", "a green star"] * 2, seeds=[1, 1, 2, 1]))
    assert not np.array_equal(a, b) and not np.array_equal(a, c)
    assert np.array_equal(b, d)


# ---- image k, whatever the batch ---------------------------------------------------------------------------


def test_images_alone_equal_images_in_company(pipeline: GenTronPipeline, reference: list[np.ndarray]) -> None:
    alone = [pipeline([prompt], seeds=[seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert same(arrays(alone), reference)


def test_order_and_companions_do_not_matter(pipeline: GenTronPipeline, reference: list[np.ndarray]) -> None:
    order = np.random.default_rng(0).permutation(len(PROMPTS))[:13].tolist()
    shuffled = arrays(pipeline([PROMPTS[k] for k in order], seeds=[SEEDS[k] for k in order]))
    assert same(shuffled, [reference[k] for k in order])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_batch_size_does_not_matter_on_a_cpu(
    pipeline: GenTronPipeline, reference: list[np.ndarray], batch_size: int
) -> None:
    assert same(arrays(pipeline(PROMPTS[:9], seeds=SEEDS[:9], batch_size=batch_size)), reference[:9])


@pytest.mark.parametrize("options", [{"sampler": "ddpm"}, {"sampler": "ddim", "eta": 0.7}])
def test_step_noise_belongs_to_the_image(pipeline: GenTronPipeline, options: dict[str, Any]) -> None:
    together = arrays(pipeline(PROMPTS[:10], seeds=SEEDS[:10], **options))
    alone = arrays(pipeline([PROMPTS[9]], seeds=[SEEDS[9]], **options))
    assert same(alone, together[9:])


def test_preparing_prompts_changes_nothing(tiny_checkpoint: Path, reference: list[np.ndarray]) -> None:
    pipeline = GenTronPipeline.from_pretrained(tiny_checkpoint)
    pipeline.prepare(PROMPTS)
    assert same(arrays(pipeline(PROMPTS[:5], seeds=SEEDS[:5])), reference[:5])


def test_sequential_loading_changes_nothing(tiny_checkpoint: Path, reference: list[np.ndarray]) -> None:
    pipeline = GenTronPipeline.from_pretrained(tiny_checkpoint, sequential=True)
    assert same(arrays(pipeline(PROMPTS[:5], seeds=SEEDS[:5])), reference[:5])


def test_sequential_pipeline_never_holds_text_encoders_and_model(tiny_checkpoint: Path) -> None:
    pipeline = GenTronPipeline.from_pretrained(tiny_checkpoint, sequential=True)
    held, load_text, load_model = [], pipeline._load_text_encoders, pipeline._load_model
    pipeline._load_text_encoders = lambda: held.append(("text", pipeline._model)) or load_text()
    pipeline._load_model = lambda: held.append(("model", pipeline._text_encoders)) or load_model()
    pipeline(["a red circle"], seeds=[0])
    pipeline(["a blue square"], seeds=[0])
    pipeline.prepare(["a red circle", "a blue square"])
    for _ in range(2):
        pipeline(["a red circle"], seeds=[0])
    assert held == [(kind, None) for kind in ("text", "model", "text", "model", "text", "model")]


def test_accelerations_change_at_most_the_last_level(
    pipeline: GenTronPipeline, reference: list[np.ndarray]
) -> None:
    plain = arrays(pipeline(PROMPTS, seeds=SEEDS, accelerate=False))
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(plain, reference, strict=True)) <= 1


# ---- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_draws(pipeline: GenTronPipeline, sampler: str) -> None:
    (sample,) = pipeline(["a red circle"], seeds=[0], sampler=sampler, num_inference_steps=3)
    assert sample.image.size == (IMAGE_SIZE, IMAGE_SIZE)


def test_guidance_one_ignores_the_negative_prompt(pipeline: GenTronPipeline) -> None:
    def draw(negative: str, scale: float) -> list[np.ndarray]:
        return arrays(
            pipeline(["a red circle"], seeds=[0], negative_prompts=[negative], guidance_scale=scale)
        )

    assert same(draw("", 1.0), draw("a blue square", 1.0))
    assert not same(draw("", 4.0), draw("a blue square", 4.0))


def test_guidance_interval_reaches_the_denoiser(pipeline: GenTronPipeline) -> None:
    whole, upper, all_of_it = (
        arrays(pipeline(["a red circle"], seeds=[0], guidance_scale=6.0, guidance_interval=interval))
        for interval in (None, (0.6, 1.0), (0.0, 1.0))
    )
    assert not same(whole, upper)
    assert same(whole, all_of_it)


def test_other_picture_sizes(pipeline: GenTronPipeline) -> None:
    (sample,) = pipeline(["a red circle"], seeds=[0], height=16, width=48)
    assert sample.image.size == (48, 16)


def test_progress_counts_images(pipeline: GenTronPipeline) -> None:
    seen: list[float] = []
    pipeline(PROMPTS[:9], seeds=SEEDS[:9], num_inference_steps=2, callback=seen.append)
    assert seen == sorted(seen) and seen[-1] == 9 and seen[0] == 4.0  # 8 images a pass, half of 2 steps


def test_stream_hands_out_each_pass_when_it_is_done(pipeline: GenTronPipeline) -> None:
    seen: list[float] = []
    stream: Iterator[Sample] = pipeline.stream(PROMPTS[:9], seeds=SEEDS[:9], callback=seen.append)
    next(stream)
    assert seen[-1] == 8
    assert len(list(stream)) == 8


def test_unknown_words_and_cut_prompts_are_logged(
    pipeline: GenTronPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline(["a mauve circle", "a red circle and " * 9], seeds=[0, 1])
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "mauve" in line]
    assert [line for line in lines if "clip reads 16 tokens" in line]


# ---- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": "a red circle"}, "must be a list"),
        ({"seeds": [1, 2]}, r"seeds must be as many as prompts \(1\), got 2"),
        ({"seeds": [-1]}, "a seed must be in"),
        ({"negative_prompts": []}, "negative_prompts must be as many"),
        ({"guidance_scale": math.nan}, "guidance_scale must be a finite number >= 1, got nan"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance_interval"),
        ({"num_inference_steps": -5}, "num_inference_steps must be in 1..1000, got -5"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"sampler": "euler"}, "unknown sampler 'euler'; known: ddpm"),
        ({"height": 30}, "height must be a positive multiple of 8 up to 4096, got 30"),
        ({"width": 0}, "width must be a positive multiple of 8 up to 4096, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"prompts": ["x" * 10_000]}, "prompt 0 has 10000 characters, the limit is 1000"),
    ],
)
def test_bad_calls_are_refused_before_anything_runs(
    pipeline: GenTronPipeline, options: dict[str, Any], message: str
) -> None:
    call: dict[str, Any] = {"prompts": ["a red circle"], "seeds": [0]} | options
    with pytest.raises((ValueError, UserError), match=message):
        pipeline.stream(call.pop("prompts"), **call)


def test_an_overflow_is_an_error_not_a_black_picture(tiny_checkpoint: Path) -> None:
    pipeline = GenTronPipeline.from_pretrained(tiny_checkpoint)
    assert pipeline._model is not None
    pipeline._model.patch_embed.weight[0, 0] = math.inf
    with pytest.raises(UserError, match="image 0 is not finite"):
        pipeline(["a red circle"], seeds=[0])


def test_a_checkpoint_without_its_autoencoder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    shutil.rmtree(copy / "autoencoder")
    with pytest.raises(UserError, match="lacks its folder 'autoencoder'"):
        GenTronPipeline.from_pretrained(copy)


# ---- untrained models --------------------------------------------------------------------------------------


def test_random_init_runs_and_says_untrained() -> None:
    pipeline = GenTronPipeline.random_init(TINY_MODEL, downscale=2)
    assert pipeline.is_untrained
    first, again = (
        arrays(pipeline(["a fox", "a red hen"], seeds=[0, 1], num_inference_steps=2)) for _ in range(2)
    )
    assert first[0].shape == (16, 16, 3)
    assert same(first, again)
    other = GenTronPipeline.random_init(TINY_MODEL, downscale=2, sequential=True)
    assert same(first, arrays(other(["a fox", "a red hen"], seeds=[0, 1], num_inference_steps=2)))


def test_random_init_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    GenTronPipeline.random_init(replace(TINY_MODEL, t5_width=None), downscale=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_open_pipeline_needs_a_preset_for_random_weights(tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="needs a preset's name"):
        open_pipeline(str(tiny_checkpoint), random_weights=True)
    assert not open_pipeline(str(tiny_checkpoint), dtype="bfloat16").is_untrained


# ---- parts -------------------------------------------------------------------------------------------------


def test_noise_of_a_row_depends_on_its_seed_alone() -> None:
    both, alone = KeyedNoise([5, 7], (4, 2, 2)), KeyedNoise([7], (4, 2, 2))
    for _ in range(3):
        assert torch.equal(both.draw()[1:], alone.draw())


def test_pictures_are_rounded_and_clamped() -> None:
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).repeat(3, 1, 1)
    assert np.asarray(to_pil(image))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_passes_have_a_fixed_size() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [samples_per_pass(cpu, tokens, 3) for tokens in (16, 100, 128, 256)] == [8, 1, 1, 1]
    assert [samples_per_pass(gpu, 256, size) for size in (None, 3)] == [16, 3]
    assert [prompts_per_pass(cpu, length) for length in (16, 48, 120, 512)] == [8, 2, 1, 1]
