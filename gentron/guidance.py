"""A maker of denoisers + PromptEmbeds -> one denoiser: plain or with classifier-free guidance."""

# B batch; latents and model outputs are (B, ...), images and video alike.

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from gentron.diffusion import Denoiser
from gentron.text import PromptEmbeds

MakeDenoiser = Callable[[PromptEmbeds], Denoiser]
"""Binds the text to a model, as GenTron.conditioned does: K/V and modulation are computed in it, once."""


def check_guidance(guidance_scale: float, guidance_interval: tuple[float, float] | None = None) -> None:
    """ValueError unless guidance_scale is finite and >= 1, and the interval low < high within [0, 1]."""
    if not (math.isfinite(guidance_scale) and guidance_scale >= 1.0):
        raise ValueError(f"guidance_scale must be a finite number >= 1, got {guidance_scale}")
    if guidance_interval is None:
        return
    low, high = guidance_interval
    if not 0.0 <= low < high <= 1.0:  # also false for NaN
        raise ValueError(f"guidance_interval must satisfy 0 <= low < high <= 1, got ({low}, {high})")


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
    if guidance_scale == 1.0:
        return plain(make_denoiser, prompt_embeds)
    if prompt_embeds.batch_size != negative_prompt_embeds.batch_size:
        raise ValueError(
            "prompts and negative_prompts must be equally many, "
            f"got {prompt_embeds.batch_size} and {negative_prompt_embeds.batch_size}"
        )
    both_branches = make_denoiser(PromptEmbeds.cat([negative_prompt_embeds, prompt_embeds]))

    def guided(latents: Tensor, timestep: Tensor) -> Tensor:
        timesteps = torch.cat([timestep, timestep]) if timestep.ndim else timestep
        model_output = both_branches(torch.cat([latents, latents]), timesteps)
        # guidance amplifies the difference of two close numbers: half precision ends here
        model_output = model_output.to(torch.promote_types(model_output.dtype, torch.float32))
        negative, conditional = model_output.chunk(2)
        return negative + guidance_scale * (conditional - negative)

    if guidance_interval is None:
        return guided
    conditional_only = cache(lambda: plain(make_denoiser, prompt_embeds))  # built if a timestep falls outside
    return _within(guidance_interval, num_train_timesteps, guided, conditional_only)


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
