"""Motion-free guidance against the paper's equation written out, and what it evaluates."""

# B batch, F frames, K branches

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gentron.diffusion import Denoiser
from gentron.guidance import (
    Branch,
    branch_weights,
    classifier_free,
    classifier_free_branches,
    combine,
    motion_free_branches,
    motion_free_guidance,
)
from gentron.model import GenTron
from gentron.text import PromptEmbeds
from tests.gentron.test_guidance import LATENTS, NEGATIVE, PROMPT, B, at
from tests.gentron.test_model import random_model, random_prompts
from tests.gentron.test_video_model import VIDEO, random_clips

LAMBDAS = [0.0, 0.5, 1.0, 1.1, 1.3, 2.0, 7.5]


@dataclass
class RecordingModel:
    """Its output is nonlinear in latents, text and motion; it notes every call and the texts it was given."""

    texts: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def conditioned(
        self,
        prompt_embeds: PromptEmbeds,
        *,
        motion_free: Tensor | bool | None = None,
        rows: Sequence[int] | None = None,
    ) -> Denoiser:
        self.texts.append(prompt_embeds.batch_size)
        tokens, mask = prompt_embeds.clip_prompt_embeds, prompt_embeds.clip_prompt_mask
        assert tokens is not None and mask is not None and motion_free is not None
        text = ((tokens.mean(dim=2) * mask).sum(dim=1) / mask.sum(dim=1)).reshape(-1, 1, 1, 1)
        text = text if rows is None else text[list(rows)]
        free = torch.as_tensor(motion_free).reshape(-1, 1, 1, 1)

        def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
            assert len(latents) == len(text)
            self.calls.append(len(latents))
            still = torch.sin(latents * 3) + text * latents
            return torch.where(free, still, still * text.exp() + torch.cos(latents))

        return denoiser


def paper(
    model: GenTron,
    clips: Tensor,
    timestep: Tensor,
    texts: tuple[PromptEmbeds, PromptEmbeds],
    *,
    lambda_t: float,
    lambda_m: float,
) -> Tensor:
    """e = e(0,0) + lT [e(cT,cM) - e(0,cM)] + lM [e(0,cM) - e(0,0)], three evaluations in float64."""
    prompt, negative = texts
    steps = timestep.expand(len(clips))
    e_00 = model(clips, steps, negative, motion_free=True).double()
    e_0m = model(clips, steps, negative, motion_free=False).double()
    e_tm = model(clips, steps, prompt, motion_free=False).double()
    return e_00 + lambda_t * (e_tm - e_0m) + lambda_m * (e_0m - e_00)


@pytest.mark.parametrize("lambda_t", LAMBDAS)
@torch.no_grad()
def test_guidance_is_the_paper_s_equation(lambda_t: float) -> None:
    model = random_model(VIDEO).double()
    prompts = random_prompts(3).to(dtype=torch.float64)
    prompt, negative = prompts[[0, 1]], prompts[[2, 2]]
    clips = random_clips(2).double()
    for lambda_m in LAMBDAS:
        guided = motion_free_guidance(
            model.conditioned, prompt, negative, guidance_scale=lambda_t, motion_guidance_scale=lambda_m
        )
        expected = paper(model, clips, at(501), (prompt, negative), lambda_t=lambda_t, lambda_m=lambda_m)
        torch.testing.assert_close(guided(clips, at(501)), expected, rtol=1e-6, atol=1e-6)


def recorded(
    lambda_t: float, lambda_m: float, *, guidance_interval: tuple[float, float] | None = None
) -> RecordingModel:
    """The model after one step of guidance at timestep 500."""
    model = RecordingModel()
    denoiser = motion_free_guidance(
        model.conditioned,
        PROMPT,
        NEGATIVE,
        guidance_scale=lambda_t,
        motion_guidance_scale=lambda_m,
        guidance_interval=guidance_interval,
    )
    denoiser(LATENTS, at(500))
    return model


@pytest.mark.parametrize(
    ("lambda_t", "lambda_m", "evaluations", "texts"),
    [
        (7.5, 1.1, 3, 2),
        (7.5, 0.0, 3, 2),  # motion off in the unconditional direction: -lT e(0, cM) is left
        (7.5, 1.0, 2, 2),  # ordinary classifier-free guidance with motion on
        (2.0, 2.0, 2, 2),
        (1.0, 1.0, 1, 1),
        (0.0, 1.1, 2, 1),
        (0.0, 1.0, 1, 1),
        (0.0, 0.0, 1, 1),
        (1.0, 1.1, 3, 2),
    ],
)
def test_branches_of_weight_zero_are_not_run(
    lambda_t: float, lambda_m: float, evaluations: int, texts: int
) -> None:
    model = recorded(lambda_t, lambda_m)
    assert model.calls == [evaluations * B]
    assert model.texts == [texts * B]  # the two unconditional branches share their text


@pytest.mark.parametrize("lambda_t", LAMBDAS)
@pytest.mark.parametrize("lambda_m", LAMBDAS)
def test_weights_are_those_of_the_rearranged_equation(lambda_t: float, lambda_m: float) -> None:
    branches = motion_free_branches(lambda_t, lambda_m)
    found = {(b.text, b.motion): w for b, w in zip(branches, branch_weights(branches), strict=True)}
    expected = {
        ("negative", False): 1 - lambda_m,
        ("negative", True): lambda_m - lambda_t,
        ("prompt", True): lambda_t,
    }
    assert found == {branch: weight for branch, weight in expected.items() if weight}
    outputs = [torch.tensor([value], dtype=torch.float64) for value in (0.3, -1.2, 2.5)][: len(branches)]
    weighted = sum(w * o for w, o in zip(branch_weights(branches), outputs, strict=True))
    assert isinstance(weighted, Tensor)
    torch.testing.assert_close(combine(outputs, branches), weighted)


@torch.no_grad()
def test_at_motion_scale_one_it_is_classifier_free_guidance_to_the_bit() -> None:
    model, prompt, clips = random_model(VIDEO), random_prompts(2), random_clips(2)
    negative = random_prompts(3)[[2, 2]]
    guided = motion_free_guidance(
        model.conditioned, prompt, negative, guidance_scale=3.0, motion_guidance_scale=1.0
    )
    expected = classifier_free(model.conditioned, prompt, negative, guidance_scale=3.0)
    assert torch.equal(guided(clips, at(500)), expected(clips, at(500)))


def test_classifier_free_guidance_in_branches() -> None:
    assert classifier_free_branches(3.0) == [Branch("negative", True, 1.0), Branch("prompt", True, 3.0)]
    assert branch_weights(classifier_free_branches(3.0)) == [-2.0, 3.0]
    assert classifier_free_branches(1.0) == [Branch("prompt", True, 1.0)]


def test_the_interval_is_of_text_and_motion_alike() -> None:
    assert recorded(7.5, 1.2, guidance_interval=(0.2, 0.6)).calls == [3 * B]
    model = recorded(7.5, 1.2, guidance_interval=(0.6, 1.0))
    assert model.calls == [B]
    alone = model.conditioned(PROMPT, motion_free=False)
    denoiser = motion_free_guidance(
        model.conditioned,
        PROMPT,
        NEGATIVE,
        guidance_scale=7.5,
        motion_guidance_scale=1.2,
        guidance_interval=(0.6, 1.0),
    )
    assert torch.equal(denoiser(LATENTS, at(500)), alone(LATENTS, at(500)))
    mixed = denoiser(LATENTS, torch.tensor([500, 900]))
    assert torch.equal(mixed[0], denoiser(LATENTS, at(500))[0])
    assert torch.equal(mixed[1], denoiser(LATENTS, at(900))[1])


def test_negative_prompts_take_the_place_of_the_empty_one_in_both_branches() -> None:
    """Where the prompt is the negative prompt, text guidance has nothing to say at any scale."""
    results = []
    for lambda_t in (1.0, 7.5):
        denoiser = motion_free_guidance(
            RecordingModel().conditioned,
            NEGATIVE,
            NEGATIVE,
            guidance_scale=lambda_t,
            motion_guidance_scale=1.2,
        )
        results.append(denoiser(LATENTS, at(500)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
@pytest.mark.parametrize("name", ["guidance_scale", "motion_guidance_scale"])
def test_a_scale_that_is_negative_or_not_finite_is_refused(name: str, value: float) -> None:
    model = RecordingModel()
    with pytest.raises(ValueError, match=rf"^{name} must be a finite number >= 0 for a clip, got "):
        motion_free_guidance(
            model.conditioned,
            PROMPT,
            NEGATIVE,
            guidance_scale=value if name == "guidance_scale" else 2.0,
            motion_guidance_scale=value if name == "motion_guidance_scale" else 1.1,
        )
    assert not model.texts


def test_unequal_numbers_and_empty_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many, got 2 and 1"):
        motion_free_guidance(
            RecordingModel().conditioned,
            PROMPT,
            NEGATIVE[:1],
            guidance_scale=2.0,
            motion_guidance_scale=1.1,
        )
    with pytest.raises(ValueError, match="guidance_interval must satisfy"):
        recorded(2.0, 1.1, guidance_interval=(0.5, 0.5))
