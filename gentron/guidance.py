"""A maker of denoisers + PromptEmbeds -> one denoiser: plain, classifier-free or motion-free guidance.

Each is a chain of branches (a text and whether frames see each other). With outputs e_1 ... e_K and scales
1, s_2 ... s_K it gives e_1 + s_2 (e_2 - e_1) + ... + s_K (e_K - e_(K-1)), all branches in one batch.
"""

# B batch, K branches; latents and model outputs are (B, ...), images and video alike.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gentron.diffusion import Denoiser
from gentron.text import PromptEmbeds

MakeDenoiser = Callable[[PromptEmbeds], Denoiser]
"""Binds the text to a model, as GenTron.conditioned does: K/V and modulation are computed in it, once."""


class MakeMotionDenoiser(Protocol):
    """Binds text and motion to a video model, as GenTron.conditioned does."""

    def __call__(
        self,
        prompt_embeds: PromptEmbeds,
        *,
        motion_free: Tensor | bool | None = None,
        rows: Sequence[int] | None = None,
    ) -> Denoiser:
        """motion_free: of all latents, or (K B,) bool.   rows: the prompt of each latent; None: in order."""
        ...


class Branch(NamedTuple):
    """One evaluation of the model in a chain."""

    text: Literal["prompt", "negative"]
    motion: bool
    """False: every frame attends to itself alone, the paper's motion-free mode."""
    scale: float
    """Of the difference to the branch before; 1 for the first."""


def check_guidance(guidance_scale: float, guidance_interval: tuple[float, float] | None = None) -> None:
    """ValueError unless guidance_scale is finite and >= 1, and the interval low < high within [0, 1]."""
    if not (math.isfinite(guidance_scale) and guidance_scale >= 1.0):
        raise ValueError(f"guidance_scale must be a finite number >= 1, got {guidance_scale}")
    _check_interval(guidance_interval)


def check_motion_guidance(
    guidance_scale: float,
    motion_guidance_scale: float,
    guidance_interval: tuple[float, float] | None = None,
) -> None:
    """ValueError unless both scales are finite and >= 0, and the interval low < high within [0, 1]."""
    scales = {"guidance_scale": guidance_scale, "motion_guidance_scale": motion_guidance_scale}
    for name, scale in scales.items():
        if not (math.isfinite(scale) and scale >= 0.0):
            raise ValueError(f"{name} must be a finite number >= 0 for a clip, got {scale}")
    _check_interval(guidance_interval)


def _check_interval(guidance_interval: tuple[float, float] | None) -> None:
    if guidance_interval is None:
        return
    low, high = guidance_interval
    if not 0.0 <= low < high <= 1.0:  # also false for NaN
        raise ValueError(f"guidance_interval must satisfy 0 <= low < high <= 1, got ({low}, {high})")


# ---- branches ----------------------------------------------------------------------------------------------


def classifier_free_branches(guidance_scale: float) -> list[Branch]:
    """What classifier-free guidance evaluates: two branches, one at scale 1."""
    return _needed([Branch("negative", True, 1.0), Branch("prompt", True, guidance_scale)])


def motion_free_branches(guidance_scale: float, motion_guidance_scale: float) -> list[Branch]:
    """What motion-free guidance evaluates: three branches, fewer where one has weight 0.

    The weights are 1 - lM, lM - lT and lT (lM = motion_guidance_scale, lT = guidance_scale): two branches
    are left at lM = 1 (ordinary classifier-free guidance with motion on), at lM = lT and at lT = 0, and the
    conditional one alone where both are 1.
    """
    return _needed(
        [
            Branch("negative", False, 1.0),
            Branch("negative", True, motion_guidance_scale),
            Branch("prompt", True, guidance_scale),
        ]
    )


def branch_weights(branches: Sequence[Branch]) -> list[float]:
    """The weight of each output in the sum that the chain is; together 1."""
    scales = [branch.scale for branch in branches]
    return [scale - after for scale, after in zip(scales, [*scales[1:], 0.0], strict=True)]


def _needed(branches: Sequence[Branch]) -> list[Branch]:
    """The chain without branches of weight 0. Those left keep their scales: with s_k = s_(k+1), the terms
    s_k (e_k - e_(k-1)) + s_(k+1) (e_(k+1) - e_k) are s_(k+1) (e_(k+1) - e_(k-1))."""
    weights = branch_weights(branches)
    return [branch for branch, weight in zip(branches, weights, strict=True) if weight != 0.0]


def combine(outputs: Sequence[Tensor], branches: Sequence[Branch]) -> Tensor:
    """The guided output of the chain. outputs: (B, ...) of each branch, float32 or wider."""
    guided, before = outputs[0], outputs[0]
    for output, branch in zip(outputs[1:], branches[1:], strict=True):
        guided = guided + branch.scale * (output - before)
        before = output
    return guided


def _all_in_one_batch(evaluate: Denoiser, branches: Sequence[Branch]) -> Denoiser:
    """The guided denoiser. evaluate: takes the latents of all branches, (K B, ...), branch after branch."""
    if len(branches) == 1:
        return evaluate

    def guided(latents: Tensor, timestep: Tensor) -> Tensor:
        timesteps = torch.cat([timestep] * len(branches)) if timestep.ndim else timestep
        outputs = evaluate(torch.cat([latents] * len(branches)), timesteps)
        # guidance amplifies the difference of two close numbers: half precision ends here
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return combine(outputs.chunk(len(branches)), branches)

    return guided


# ---- guidance ----------------------------------------------------------------------------------------------


def plain(make_denoiser: MakeDenoiser, prompt_embeds: PromptEmbeds) -> Denoiser:
    """The conditional model alone: one evaluation of B latents a step."""
    return make_denoiser(prompt_embeds)


def classifier_free(
    make_denoiser: MakeDenoiser,
    prompt_embeds: PromptEmbeds,
    negative_prompt_embeds: PromptEmbeds,
    *,
    guidance_scale: float,
    guidance_interval: tuple[float, float] | None = None,
    num_train_timesteps: int = 1000,
) -> Denoiser:
    """e(neg) + guidance_scale * (e(prompt) - e(neg)) (Eq. 6 of arXiv 2207.12598), over all channels.

    Both branches are one batch of 2B, the negative first. guidance_scale 1 is the conditional model alone.
    guidance_interval: (low, high) as fractions of num_train_timesteps, 1 being the noisy end; at timesteps
    outside it only the conditional branch is evaluated (arXiv 2404.07724).
    """
    check_guidance(guidance_scale, guidance_interval)
    branches = classifier_free_branches(guidance_scale)
    if len(branches) == 1:
        return plain(make_denoiser, prompt_embeds)
    _check_equally_many(prompt_embeds, negative_prompt_embeds)
    both_texts = make_denoiser(PromptEmbeds.cat([negative_prompt_embeds, prompt_embeds]))
    guided = _all_in_one_batch(both_texts, branches)
    if guidance_interval is None:
        return guided
    conditional_only = cache(lambda: plain(make_denoiser, prompt_embeds))  # built if a timestep falls outside
    return _within(guidance_interval, num_train_timesteps, guided, conditional_only)


def motion_free_guidance(
    make_denoiser: MakeMotionDenoiser,
    prompt_embeds: PromptEmbeds,
    negative_prompt_embeds: PromptEmbeds,
    *,
    guidance_scale: float,
    motion_guidance_scale: float,
    guidance_interval: tuple[float, float] | None = None,
    num_train_timesteps: int = 1000,
) -> Denoiser:
    """e(0, 0) + lT [e(cT, cM) - e(0, cM)] + lM [e(0, cM) - e(0, 0)] (arXiv 2312.04557, section 3.3).

    lT = guidance_scale, lM = motion_guidance_scale, both finite and >= 0; text cT is the prompt and 0 the
    negative prompt; motion cM is on, 0 is the motion-free mode. The paper has lT = 7.5 and lM in [1, 1.3].
    All branches of weight other than 0 (`motion_free_branches`) are one batch; those without the prompt
    share their text. guidance_interval: as in `classifier_free`, of text and motion alike; outside it
    e(cT, cM) alone is evaluated.
    """
    check_motion_guidance(guidance_scale, motion_guidance_scale, guidance_interval)
    _check_equally_many(prompt_embeds, negative_prompt_embeds)
    branches = motion_free_branches(guidance_scale, motion_guidance_scale)
    texts = {"negative": negative_prompt_embeds, "prompt": prompt_embeds}
    guided = _all_in_one_batch(_bound(make_denoiser, branches, texts), branches)
    if guidance_interval is None:
        return guided
    conditional_only = cache(lambda: make_denoiser(prompt_embeds, motion_free=False))
    return _within(guidance_interval, num_train_timesteps, guided, conditional_only)


def _bound(
    make_denoiser: MakeMotionDenoiser, branches: Sequence[Branch], texts: dict[str, PromptEmbeds]
) -> Denoiser:
    """The model with the texts of the branches, each once, for latents (K B, ...)."""
    used = list(dict.fromkeys(branch.text for branch in branches))
    batch_size = texts[used[0]].batch_size
    rows = [used.index(branch.text) * batch_size + row for branch in branches for row in range(batch_size)]
    motion_free = torch.tensor([not branch.motion for branch in branches]).repeat_interleave(batch_size)
    return make_denoiser(
        PromptEmbeds.cat([texts[name] for name in used]),
        motion_free=motion_free,
        rows=None if rows == list(range(len(rows))) else rows,
    )


def _check_equally_many(prompt_embeds: PromptEmbeds, negative_prompt_embeds: PromptEmbeds) -> None:
    if prompt_embeds.batch_size != negative_prompt_embeds.batch_size:
        raise ValueError(
            "prompts and negative_prompts must be equally many, "
            f"got {prompt_embeds.batch_size} and {negative_prompt_embeds.batch_size}"
        )


def _within(
    interval: tuple[float, float], num_train_timesteps: int, inside: Denoiser, outside: Callable[[], Denoiser]
) -> Denoiser:
    """The denoiser that is `inside` at timesteps within the interval and `outside()` at all others."""
    low, high = interval

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        fraction = timestep / num_train_timesteps
        is_inside = (fraction >= low) & (fraction <= high)
        if is_inside.all():
            return inside(latents, timestep)
        if not is_inside.any():
            return outside()(latents, timestep)
        chosen = is_inside.reshape(-1, *[1] * (latents.ndim - 1))
        return torch.where(chosen, inside(latents, timestep), outside()(latents, timestep))

    return denoiser
