"""Is it learning? A loss at fixed timesteps with fixed noise, and pictures of fixed prompts."""

# B batch, C latent channels, H W latent size, K timesteps, T num_train_timesteps

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gentron.autoencoder import Autoencoder
from gentron.data import Batch, Stream, keyed_rng
from gentron.diffusion import NoiseSchedule, add_noise, target
from gentron.guidance import classifier_free
from gentron.model import GenTron
from gentron.pixels import to_uint8
from gentron.samplers import SAMPLERS
from gentron.text import PromptEmbeds, TextEncoders
from gentron.train.loss import squared_error
from gentron.train.prefetch import trim_padding
from gentron.train.recipe import TrainRecipe

NUM_TIMESTEPS = 8


class ValidationSet(NamedTuple):
    """Held-back samples with everything random fixed. noise: (K, B, C, H, W). timesteps: K integers."""

    latents: Tensor
    prompt_embeds: PromptEmbeds
    noise: Tensor
    timesteps: list[int]


def normal(seed: int, index: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian float32 on the CPU, from (seed, index) alone."""
    return torch.from_numpy(keyed_rng(seed, index, stream).standard_normal(shape, np.float32))


def validation_set(
    batch: Batch, text_encoders: TextEncoders, schedule: NoiseSchedule, *, seed: int, device: torch.device
) -> ValidationSet:
    """Timesteps in the middle of K equal parts of [0, T); noise keyed on the sample."""
    total = schedule.num_train_timesteps
    timesteps = [int((k + 0.5) * total / NUM_TIMESTEPS) for k in range(NUM_TIMESTEPS)]
    shape = (NUM_TIMESTEPS, *batch.latents.shape[1:])
    noise = [normal(seed, i, Stream.VALIDATION, shape) for i in range(len(batch.captions))]
    embeds = text_encoders.encode(batch.captions, batch_size=64).to(device)
    embeds = trim_padding(embeds) if device.type == "cpu" else embeds
    return ValidationSet(batch.latents.to(device), embeds, torch.stack(noise, 1).to(device), timesteps)


@torch.no_grad()
def validation_losses(
    model: nn.Module,
    fixed: ValidationSet,
    schedule: NoiseSchedule,
    recipe: TrainRecipe,
    *,
    batch_size: int = 64,
) -> dict[int, float]:
    """Unweighted mean squared error at each of the fixed timesteps."""
    losses = {}
    for k, timestep in enumerate(fixed.timesteps):
        total = torch.zeros((), device=fixed.latents.device)
        for start in range(0, len(fixed.latents), batch_size):
            part = slice(start, start + batch_size)
            latents, noise = fixed.latents[part], fixed.noise[k, part]
            timesteps = torch.full((len(latents),), timestep, device=latents.device)
            noisy_latents = add_noise(schedule, latents, noise, timesteps)
            model_output = model(noisy_latents, timesteps, fixed.prompt_embeds[part])
            wanted = target(schedule, latents, noise, timesteps, recipe.prediction_type)
            total += squared_error(model_output, wanted).sum()
        losses[timestep] = total.item() / len(fixed.latents)
    return losses


class SampleSet(NamedTuple):
    """The recipe's prompts, the empty prompt as often, and noise that never changes (B, C, H, W)."""

    prompt_embeds: PromptEmbeds
    negative_prompt_embeds: PromptEmbeds
    noise: Tensor


def sample_set(
    text_encoders: TextEncoders,
    shape: tuple[int, ...],
    recipe: TrainRecipe,
    *,
    seed: int,
    device: torch.device,
) -> SampleSet | None:
    """shape: of one sample's latents, (C, H, W) or (F, C, H, W).   None if the recipe has no prompts."""
    prompts = list(recipe.sample_prompts)
    if not prompts:
        return None
    noise = torch.stack([normal(seed, i, Stream.SAMPLING, shape) for i in range(len(prompts))])
    return SampleSet(
        text_encoders.encode(prompts).to(device),
        text_encoders.encode([""] * len(prompts)).to(device),
        noise.to(device),
    )


@torch.no_grad()
def sample_grid(
    model: GenTron, sampled: SampleSet, autoencoder: Autoencoder, schedule: NoiseSchedule, recipe: TrainRecipe
) -> Image.Image:
    """Pictures of the sample set, four a row."""
    denoiser = classifier_free(
        model.conditioned,
        sampled.prompt_embeds,
        sampled.negative_prompt_embeds,
        guidance_scale=recipe.guidance_scale,
    )
    sampler = SAMPLERS[recipe.sampler]
    latents = sampler(
        denoiser,
        sampled.noise,
        schedule,
        recipe.num_inference_steps,
        prediction_type=recipe.prediction_type,
    )
    pixels = to_uint8(autoencoder.decode(latents.to(autoencoder.dtype)))
    side = recipe.image_size
    grid = Image.new("RGB", (4 * side, -(-len(pixels) // 4) * side))
    for i, picture in enumerate(pixels):
        grid.paste(Image.fromarray(picture), (i % 4 * side, i // 4 * side))
    return grid
