"""Clips through the pipeline of a tiny video model."""

# B samples, F frames, C latent channels, K branches

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gentron.errors import UserError
from gentron.guidance import motion_free_branches
from gentron.media import Sample
from gentron.model import GenTron
from gentron.pipeline import GenTronPipeline, find_config, hold_first_frame
from gentron.samplers import SAMPLERS
from tests.tiny import IMAGE_SIZE

PROMPTS = ["a red circle", "a red circle and a blue square", "", "a green star", "a blue square"]
SEEDS = list(range(100, 100 + len(PROMPTS)))
SHORT: dict[str, Any] = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipeline(tiny_video_checkpoint: Path) -> GenTronPipeline:
    return GenTronPipeline.from_pretrained(tiny_video_checkpoint)


@pytest.fixture(scope="module")
def reference(pipeline: GenTronPipeline) -> list[np.ndarray]:
    return arrays(pipeline(PROMPTS, seeds=SEEDS, **SHORT))


def arrays(samples: list[Sample]) -> list[np.ndarray]:
    return [sample.numpy() for sample in samples]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def picture(colour: str = "orange") -> Image.Image:
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), colour)


def test_clips_are_frames_at_the_model_s_rate(pipeline: GenTronPipeline) -> None:
    (sample,) = pipeline(["a red circle"], seeds=[1], **SHORT)
    assert (sample.num_frames, sample.fps) == (4, 4.0)
    frames = sample.numpy()
    assert frames.shape == (4, IMAGE_SIZE, IMAGE_SIZE, 3) and frames.dtype == np.uint8
    assert not np.array_equal(frames[0], frames[1])  # noise of its own in every frame
    (sample,) = pipeline(["a red circle"], seeds=[1], num_frames=16, fps=12.5, height=16, **SHORT)
    assert (sample.num_frames, sample.fps, sample.frames[0].size) == (16, 12.5, (IMAGE_SIZE, 16))


# ---- clip k, whatever else is asked ------------------------------------------------------------------------


def test_a_clip_is_the_same_in_any_company(pipeline: GenTronPipeline, reference: list[np.ndarray]) -> None:
    assert samples_in_a_pass(pipeline) == 2
    alone = [
        pipeline([prompt], seeds=[seed], **SHORT)[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert same(arrays(alone), reference)
    order = [3, 1, 4]
    some = pipeline([PROMPTS[k] for k in order], seeds=[SEEDS[k] for k in order], batch_size=3, **SHORT)
    assert same(arrays(some), [reference[k] for k in order])


def samples_in_a_pass(pipeline: GenTronPipeline) -> int:
    seen: list[float] = []
    pipeline(PROMPTS[:3], seeds=SEEDS[:3], callback=seen.append, **SHORT)
    return round(2 * seen[0])  # after one of two steps


@pytest.mark.parametrize("lambda_m", [0.0, 1.0, 1.3, 3.0])
def test_a_clip_is_the_same_whatever_other_scales_are_swept(
    pipeline: GenTronPipeline, lambda_m: float
) -> None:
    """A pass holds clips of one value: so many clips x the branches of that value."""
    first = arrays(pipeline(PROMPTS[:2], seeds=SEEDS[:2], motion_guidance_scale=lambda_m, **SHORT))
    pipeline(PROMPTS[1:4], seeds=SEEDS[1:4], motion_guidance_scale=1.1, **SHORT)
    again = arrays(pipeline(PROMPTS[1:2], seeds=SEEDS[1:2], motion_guidance_scale=lambda_m, **SHORT))
    assert same(again, first[1:])


@pytest.mark.parametrize("options", [{"sampler": "ddpm"}, {"sampler": "ddim", "eta": 0.7}])
def test_step_noise_belongs_to_the_clip(pipeline: GenTronPipeline, options: dict[str, Any]) -> None:
    together = arrays(pipeline(PROMPTS[:3], seeds=SEEDS[:3], **SHORT, **options))
    alone = arrays(pipeline([PROMPTS[2]], seeds=[SEEDS[2]], **SHORT, **options))
    assert same(alone, together[2:])


# ---- guidance and motion -----------------------------------------------------------------------------------


def counted_rows(pipeline: GenTronPipeline, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[int]:
    """Latents of every evaluation of the model."""
    rows: list[int] = []
    conditioned = GenTron.conditioned

    def counting(self: GenTron, *arguments: Any, **keywords: Any) -> Any:
        denoise = conditioned(self, *arguments, **keywords)

        def counted(latents: Tensor, timestep: Tensor) -> Tensor:
            rows.append(len(latents))
            return denoise(latents, timestep)

        return counted

    monkeypatch.setattr(GenTron, "conditioned", counting)
    pipeline(["a red circle"], seeds=[0], **SHORT, **options)
    return rows


@pytest.mark.parametrize("lambda_t", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("lambda_m", [0.0, 1.0, 1.2, 2.0])
def test_a_step_is_one_evaluation_of_the_branches_it_needs(
    pipeline: GenTronPipeline, monkeypatch: pytest.MonkeyPatch, lambda_t: float, lambda_m: float
) -> None:
    rows = counted_rows(pipeline, monkeypatch, guidance_scale=lambda_t, motion_guidance_scale=lambda_m)
    assert rows == [2 * len(motion_free_branches(lambda_t, lambda_m))] * 2  # 2 clips a pass, 2 steps


def test_scales_and_negative_prompts_matter(pipeline: GenTronPipeline, reference: list[np.ndarray]) -> None:
    changes: list[dict[str, Any]] = [
        {"motion_guidance_scale": 2.0},
        {"guidance_scale": 1.0},
        {"negative_prompts": ["a blue square"]},
        {"guidance_interval": (0.0, 0.7)},
    ]
    for options in changes:
        assert not same(arrays(pipeline(PROMPTS[:1], seeds=SEEDS[:1], **SHORT, **options)), reference[:1])
    assert same(
        arrays(pipeline(PROMPTS[:1], seeds=SEEDS[:1], motion_guidance_scale=1.2, **SHORT)), reference[:1]
    )


def test_accelerations_change_at_most_a_level(pipeline: GenTronPipeline, reference: list[np.ndarray]) -> None:
    plain = arrays(pipeline(PROMPTS, seeds=SEEDS, accelerate=False, **SHORT))
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(plain, reference, strict=True)) <= 1


def test_one_frame_is_a_picture(pipeline: GenTronPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = pipeline(PROMPTS[:3], seeds=SEEDS[:3], num_frames=1, **SHORT)
    assert {(sample.num_frames, sample.fps) for sample in samples} == {(1, None)}
    assert samples[0].image.size == (IMAGE_SIZE, IMAGE_SIZE)
    assert counted_rows(pipeline, monkeypatch, num_frames=1) == [16, 16]  # 8 pictures a pass, text guidance


# ---- first frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_clip_begins_with_the_given_picture(pipeline: GenTronPipeline, sampler: str) -> None:
    given = picture()
    (sample,) = pipeline(
        ["a red circle"], seeds=[0], first_frames=[given], sampler=sampler, num_inference_steps=3
    )
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(given)).permute(2, 0, 1)[None] / 127.5 - 1
        expected = pipeline.autoencoder.decode(pipeline.autoencoder.encode(pixels))[0]
    levels = ((expected.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(sample.numpy()[0] - levels).max() <= 1


def test_the_first_frame_reaches_the_others_and_company_does_not_matter(pipeline: GenTronPipeline) -> None:
    pictures = [picture(colour) for colour in ("orange", "navy", "white")]
    clips = arrays(pipeline(PROMPTS[:3], seeds=[7] * 3, first_frames=pictures, **SHORT))
    alone = pipeline([PROMPTS[1]], seeds=[7], first_frames=[pictures[1]], **SHORT)
    assert same(arrays(alone), clips[1:2])
    other = pipeline([PROMPTS[1]], seeds=[7], first_frames=[pictures[2]], **SHORT)[0].numpy()
    assert not np.array_equal(other[1:], clips[1][1:])


def test_a_picture_of_another_size_is_cut_at_its_centre(pipeline: GenTronPipeline) -> None:
    wide = Image.new("L", (3 * IMAGE_SIZE, IMAGE_SIZE))
    wide.paste(255, (IMAGE_SIZE, 0, 2 * IMAGE_SIZE, IMAGE_SIZE))
    drawn = [
        pipeline(["a red circle"], seeds=[0], first_frames=[frame], **SHORT)[0].numpy()
        for frame in (wide, picture("white"))
    ]
    assert same(drawn[:1], drawn[1:])


def test_the_held_frame_is_seen_clean_at_timestep_zero() -> None:
    clean = torch.arange(2.0).reshape(2, 1, 1, 1)
    seen: list[tuple[Tensor, Tensor]] = []
    denoiser = hold_first_frame(lambda x, t: seen.append((x, t)) or x, clean)
    latents = torch.full((4, 3, 1, 1, 1), 5.0)
    denoiser(latents, torch.tensor(900))
    denoiser(latents, torch.tensor([900, 800, 700, 600]))
    (x, t), (_, per_row) = seen
    assert x[:, 0].flatten().tolist() == [0, 1, 0, 1] and (x[:, 1:] == 5).all()
    assert t.tolist() == [[0, 900, 900]] * 4
    assert per_row.tolist() == [[0, k, k] for k in (900, 800, 700, 600)]
    assert (latents == 5).all()


# ---- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"motion_guidance_scale": math.nan},
            "motion_guidance_scale must be a finite number >= 0 .* got nan",
        ),
        ({"motion_guidance_scale": -1.0}, "motion_guidance_scale must be a finite number >= 0"),
        ({"guidance_scale": math.inf}, "guidance_scale must be a finite number >= 0"),
        (
            {"num_frames": 1000},
            r"num_frames must be in \[1, 16\] \(4 times the 4 of the training\), got 1000",
        ),
        ({"num_frames": 0}, r"num_frames must be in \[1, 16\]"),
        ({"fps": 0.0}, "fps must be positive, got 0.0"),
        ({"fps": math.nan}, "fps must be positive, got nan"),
        ({"num_frames": 1, "fps": 4.0}, "fps is for clips, but num_frames is 1"),
        ({"num_frames": 1, "motion_guidance_scale": 1.2}, "motion_guidance_scale is for clips"),
        ({"num_frames": 1, "first_frames": [picture()]}, "first_frames is for clips"),
        ({"num_frames": 1, "guidance_scale": 0.5}, "guidance_scale must be a finite number >= 1"),
        ({"first_frames": []}, r"first_frames must be as many as prompts \(1\), got 0"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance_interval"),
    ],
)
def test_bad_calls_are_refused_before_anything_runs(
    pipeline: GenTronPipeline, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.stream(["a red circle"], seeds=[0], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 8}, "num_frames must be 1: this is an image model, got 8"),
        ({"motion_guidance_scale": 1.1}, "motion_guidance_scale is for clips, but this is an image model"),
        ({"fps": 4.0}, "fps is for clips, but this is an image model"),
        ({"first_frames": [picture()]}, "first_frames is for clips, but this is an image model"),
    ],
)
def test_an_image_model_draws_no_clips(tiny_checkpoint: Path, options: dict[str, Any], message: str) -> None:
    pipeline = GenTronPipeline.from_pretrained(tiny_checkpoint)
    with pytest.raises(ValueError, match=message):
        pipeline.stream(["a red circle"], seeds=[0], **options)
    assert pipeline(["a red circle"], seeds=[0], num_frames=1, **SHORT)[0].fps is None


def test_an_overflow_is_an_error_not_a_black_clip(tiny_video_checkpoint: Path) -> None:
    pipeline = GenTronPipeline.from_pretrained(tiny_video_checkpoint)
    assert pipeline._model is not None
    pipeline._model.patch_embed.weight[0, 0] = math.inf
    with pytest.raises(UserError, match="clip 0 is not finite"):
        pipeline(["a red circle"], seeds=[0], **SHORT)


# ---- untrained models and records --------------------------------------------------------------------------


def test_random_init_of_a_video_preset_draws_clips_with_the_paper_s_scales() -> None:
    config = find_config("mini-t2v", random_weights=True)
    sampling = config.sampling
    assert (sampling.guidance_scale, sampling.motion_guidance_scale) == (7.5, 1.1)
    assert (sampling.num_frames, sampling.fps, sampling.image_size) == (8, 4.0, 64)
    with pytest.raises(UserError, match="--random-weights needs a preset's name"):
        find_config("nowhere", random_weights=True)


def test_a_sample_is_a_picture_or_a_clip() -> None:
    assert Sample((picture(),)).image.size == (IMAGE_SIZE, IMAGE_SIZE)
    with pytest.raises(AssertionError, match="not one picture"):
        _ = Sample((picture(), picture()), 4.0).image
    for frames, fps in (((), None), ((picture(), picture()), None), ((picture(),), 4.0)):
        with pytest.raises(AssertionError):
            Sample(frames, fps)
