"""Guidance: how often and on what the model is called, and what becomes of its outputs."""

# B batch, C latent channels, L prompt tokens, E text width

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gentron.diffusion import Denoiser
from gentron.guidance import classifier_free, plain
from gentron.text import PromptEmbeds

B, E = 2, 3
PROMPT_VALUES = torch.tensor([1.0, 2.0])


def prompt_embeds(values: Tensor, length: int) -> PromptEmbeds:
    """One encoder: prompt b is `length` real tokens that all hold values[b]."""
    batch_size = len(values)
    return PromptEmbeds(
        clip_prompt_embeds=values.reshape(-1, 1, 1).expand(batch_size, length, E).clone(),
        clip_prompt_mask=torch.ones(batch_size, length, dtype=torch.bool),
        pooled_prompt_embeds=values.reshape(-1, 1).expand(batch_size, E).clone(),
    )


@dataclass
class RecordingModel:
    """Its output is the mean of the real tokens, in every channel, plus a share of the latents."""

    texts: list[PromptEmbeds] = field(default_factory=list)
    calls: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    dtype: torch.dtype = torch.float32

    def conditioned(self, text: PromptEmbeds) -> Denoiser:
        self.texts.append(text)
        tokens, mask = text.clip_prompt_embeds, text.clip_prompt_mask
        assert tokens is not None and mask is not None
        means = (tokens.mean(dim=2) * mask).sum(dim=1) / mask.sum(dim=1)

        def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
            self.calls.append((latents.shape[0], tuple(timestep.shape)))
            return (means.reshape(-1, 1, 1, 1) + 0.1 * latents).to(self.dtype)

        return denoiser


LATENTS = torch.randn(B, 4, 2, 2, generator=torch.Generator().manual_seed(0))
PROMPT = prompt_embeds(PROMPT_VALUES, length=5)
NEGATIVE = prompt_embeds(torch.tensor([-1.0, -3.0]), length=2)


def at(timestep: int) -> Tensor:
    return torch.tensor(timestep)


def test_plain_is_one_evaluation_of_the_conditional_model() -> None:
    model = RecordingModel()
    output = plain(model.conditioned, PROMPT)(LATENTS, at(3))
    torch.testing.assert_close(output, PROMPT_VALUES.reshape(-1, 1, 1, 1) + 0.1 * LATENTS)
    assert model.calls == [(B, ())]


def test_both_branches_are_one_call_and_the_text_is_bound_once() -> None:
    model = RecordingModel()
    denoiser = classifier_free(model.conditioned, PROMPT, NEGATIVE, guidance_scale=3.0)
    for timestep in (900, 500, 100):
        denoiser(LATENTS, at(timestep))
    assert model.calls == [(2 * B, ())] * 3
    assert len(model.texts) == 1


def test_every_channel_is_guided_by_the_difference_of_the_branches() -> None:
    denoiser = classifier_free(RecordingModel().conditioned, PROMPT, NEGATIVE, guidance_scale=3.0)
    # -1 + 3 * (1 + 1) = 5 and -3 + 3 * (2 + 3) = 12
    expected = torch.tensor([5.0, 12.0]).reshape(-1, 1, 1, 1) + 0.1 * LATENTS
    torch.testing.assert_close(denoiser(LATENTS, at(500)), expected)


def test_branches_of_other_lengths_are_padded_behind_the_mask() -> None:
    model = RecordingModel()
    classifier_free(model.conditioned, PROMPT, NEGATIVE, guidance_scale=2.0)
    (text,) = model.texts
    assert text.clip_prompt_mask is not None and text.clip_prompt_embeds is not None
    assert text.clip_prompt_embeds.shape == (2 * B, 5, E)
    assert text.clip_prompt_mask.sum(dim=1).tolist() == [2, 2, 5, 5]


def test_scale_one_is_the_conditional_model_with_a_single_branch() -> None:
    model = RecordingModel()
    output = classifier_free(model.conditioned, PROMPT, NEGATIVE, guidance_scale=1.0)(LATENTS, at(3))
    assert model.calls == [(B, ())]
    assert torch.equal(output, plain(RecordingModel().conditioned, PROMPT)(LATENTS, at(3)))


def test_outside_the_interval_only_the_conditional_branch_runs() -> None:
    model = RecordingModel()
    denoiser = classifier_free(
        model.conditioned,
        PROMPT,
        NEGATIVE,
        guidance_scale=3.0,
        guidance_interval=(0.2, 0.8),
        num_train_timesteps=500,
    )
    inside, outside = denoiser(LATENTS, at(250)), denoiser(LATENTS, at(450))
    assert not torch.equal(inside, outside)
    assert torch.equal(outside, plain(RecordingModel().conditioned, PROMPT)(LATENTS, at(450)))
    model.calls.clear()
    for timestep in (499, 401, 400, 100, 99, 0):
        denoiser(LATENTS, at(timestep))
    assert [batch_size for batch_size, _ in model.calls] == [B, B, 2 * B, 2 * B, B, B]
    assert len(model.texts) == 2  # bound once each, however often they run


def test_timesteps_per_image_are_guided_image_by_image() -> None:
    model = RecordingModel()
    denoiser = classifier_free(
        model.conditioned, PROMPT, NEGATIVE, guidance_scale=3.0, guidance_interval=(0.2, 0.8)
    )
    output = denoiser(LATENTS, torch.tensor([500, 900]))
    assert torch.equal(output[0], denoiser(LATENTS, at(500))[0])
    assert torch.equal(output[1], denoiser(LATENTS, at(900))[1])
    assert model.calls[0] == (2 * B, (2 * B,))


def test_guidance_of_half_precision_outputs_is_done_in_float32() -> None:
    model = RecordingModel(dtype=torch.bfloat16)
    denoiser = classifier_free(model.conditioned, PROMPT, NEGATIVE, guidance_scale=7.5)
    assert denoiser(LATENTS, at(3)).dtype == torch.float32


@pytest.mark.parametrize("guidance_scale", [math.nan, math.inf, -math.inf, 0.0, 0.99, -2.0])
def test_a_guidance_scale_below_one_or_not_finite_is_refused(guidance_scale: float) -> None:
    model = RecordingModel()
    with pytest.raises(ValueError, match=r"^guidance_scale must be a finite number >= 1, got "):
        classifier_free(model.conditioned, PROMPT, NEGATIVE, guidance_scale=guidance_scale)
    assert not model.texts


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.8, 0.2), (-0.1, 0.5), (0.0, 1.1), (math.nan, 1.0)])
def test_an_empty_or_outlying_interval_is_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="guidance_interval must satisfy"):
        classifier_free(
            RecordingModel().conditioned, PROMPT, NEGATIVE, guidance_scale=2.0, guidance_interval=interval
        )


def test_prompts_and_negative_prompts_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match="equally many, got 2 and 1"):
        classifier_free(RecordingModel().conditioned, PROMPT, NEGATIVE[:1], guidance_scale=2.0)
