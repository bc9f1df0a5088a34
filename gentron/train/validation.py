"""Is it learning? A loss at fixed timesteps with fixed noise, and pictures of fixed prompts."""

# B batch, F frames, C latent channels, H W latent size, K timesteps, T num_train_timesteps

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gentron.autoencoder import Autoencoder
from gentron.data import Batch, Stream, keyed_rng
from gentron.diffusion import NoiseSchedule
from gentron.guidance import classifier_free
from gentron.model import GenTron
from gentron.pixels import to_uint8
from gentron.samplers import SAMPLERS
from gentron.text import PromptEmbeds, TextEncoders
from gentron.train.loss import noisy_and_target, squared_error
from gentron.train.prefetch import trim_padding
from gentron.train.recipe import TrainRecipe

NUM_TIMESTEPS = 8


Predict = Callable[[Tensor, Tensor, PromptEmbeds], Tensor]
"""(noisy_latents, timesteps, prompt_embeds) -> model output."""


class ValidationSet(NamedTuple):
    """Held-back samples with everything random fixed. noise: (K, B, C, H, W). timesteps: K integers.

    Of clips: latents (B, F, C, H, W), noise (K, B, F, C, H, W).
    """

    latents: Tensor
    prompt_embeds: PromptEmbeds
    noise: Tensor
    timesteps: list[int]


def normal(seed: int, index: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian float32 on the CPU, from (seed, index) alone."""
    return torch.from_numpy(keyed_rng(seed, index, stream).standard_normal(shape, np.float32))


def middle_timesteps(schedule: NoiseSchedule) -> list[int]:
    """In the middle of NUM_TIMESTEPS equal parts of [0, T)."""
    total = schedule.num_train_timesteps
    return [int((k + 0.5) * total / NUM_TIMESTEPS) for k in range(NUM_TIMESTEPS)]


def validation_set(
    batch: Batch,
    text_encoders: TextEncoders,
    timesteps: Sequence[int],
    *,
    seed: int,
    device: torch.device,
) -> ValidationSet:
    """Noise for each of the timesteps, keyed on the sample."""
    shape = (len(timesteps), *batch.latents.shape[1:])
    noise = [normal(seed, i, Stream.VALIDATION, shape) for i in range(len(batch.captions))]
    embeds = encoded(text_encoders, batch.captions, device)
    return ValidationSet(batch.latents.to(device), embeds, torch.stack(noise, 1).to(device), list(timesteps))


def encoded(text_encoders: TextEncoders, captions: Sequence[str], device: torch.device) -> PromptEmbeds:
    """Many captions, for good."""
    embeds = text_encoders.encode(captions, batch_size=64).to(device)
    return trim_padding(embeds) if device.type == "cpu" else embeds


@torch.no_grad()
def validation_losses(
    predict: Predict,
    fixed: ValidationSet,
    schedule: NoiseSchedule,
    recipe: TrainRecipe,
    *,
    clean_first_frame: bool = False,
    batch_size: int = 64,
) -> dict[int, float]:
    """Unweighted mean squared error at each of the fixed timesteps.

    clean_first_frame: of clips; the first frame then has timestep 0 and no part in the error.
    """
    losses = {}
    for k, timestep in enumerate(fixed.timesteps):
        total = torch.zeros((), device=fixed.latents.device)
        for start in range(0, len(fixed.latents), batch_size):
            part = slice(start, start + batch_size)
            latents, noise = fixed.latents[part], fixed.noise[k, part]
            shape, seen = (latents.shape[:2], 1) if clean_first_frame else (latents.shape[:1], 0)
            timesteps = torch.full(shape, timestep, device=latents.device)
            if clean_first_frame:
                timesteps[:, 0] = 0
            noisy_latents, wanted = noisy_and_target(recipe, schedule, latents, noise, timesteps)
            model_output = predict(noisy_latents, timesteps, fixed.prompt_embeds[part])
            total += squared_error(model_output[:, seen:], wanted[:, seen:]).sum()
        losses[timestep] = total.item() / len(fixed.latents)
    return losses


def losses_row(losses: dict[int, float], *, mean_over: Sequence[int] | None = None) -> dict[str, float]:
    """A row of metrics: the mean (over some of the timesteps), then every timestep's own."""
    chosen = [losses[t] for t in mean_over] if mean_over else list(losses.values())
    return {"loss": float(np.mean(chosen)), **{f"t{t}": loss for t, loss in losses.items()}}


class SampleSet(NamedTuple):
    """The recipe's prompts, the empty prompt as often, and noise that never changes (B, C, H, W), of clips
    (B, F, C, H, W)."""

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
def draw_samples(
    model: GenTron, sampled: SampleSet, autoencoder: Autoencoder, schedule: NoiseSchedule, recipe: TrainRecipe
) -> np.ndarray:
    """Pictures of the sample set, (B, S, S, 3) uint8; clips (B, F, S, S, 3)."""
    denoiser = classifier_free(
        model.conditioned,
        sampled.prompt_embeds,
        sampled.negative_prompt_embeds,
        guidance_scale=recipe.guidance_scale,
    )
    latents = SAMPLERS[recipe.sampler](
        denoiser,
        sampled.noise,
        schedule,
        recipe.num_inference_steps,
        prediction_type=recipe.prediction_type,
    )
    if latents.ndim == 4:
        return to_uint8(autoencoder.decode(latents.to(autoencoder.dtype)))
    return np.stack([to_uint8(autoencoder.decode(clip.to(autoencoder.dtype))) for clip in latents])


def tiled(pictures: np.ndarray, num_columns: int) -> Image.Image:
    """(N, S, S, 3) uint8 -> one picture, row by row."""
    side = pictures.shape[1]
    grid = Image.new("RGB", (num_columns * side, -(-len(pictures) // num_columns) * side))
    for i, picture in enumerate(pictures):
        grid.paste(Image.fromarray(picture), (i % num_columns * side, i // num_columns * side))
    return grid
