"""What a training sample draws, and what its error weighs."""

# B batch, F frames, C latent channels, H W latent size, T num_train_timesteps

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gentron.data.keyed import Stream, keyed_rng
from gentron.diffusion import NoiseSchedule, add_noise, target
from gentron.train.recipe import TrainRecipe, VideoRecipe


class Draw(NamedTuple):
    """noise: (B, C, H, W) float32.   timesteps: (B,) int64.   drops_caption: B booleans."""

    noise: Tensor
    timesteps: Tensor
    drops_caption: list[bool]


def draw(
    recipe: TrainRecipe,
    *,
    seed: int,
    global_indices: Sequence[int],
    shape: tuple[int, ...],
    num_timesteps: int,
    stream: Stream = Stream.DIFFUSION,
) -> Draw:
    """Everything random about these samples' diffusion step, each from (seed, global index) alone.

    Every number is drawn whatever the recipe uses, so that recipes differ in what they say, not in the noise.
    """
    noise = np.empty((len(global_indices), *shape), np.float32)
    places, drops = [], []
    for row, index in enumerate(global_indices):
        rng = keyed_rng(seed, index, stream)
        drop, branch, uniform = rng.random(3)
        normal = rng.standard_normal()
        rng.standard_normal(out=noise[row], dtype=np.float32)
        if recipe.timestep_sampling == "logit_normal_mix" and branch >= recipe.uniform_share:
            uniform = _sigmoid(recipe.logit_normal_mean + recipe.logit_normal_std * normal)
        places.append(min(int(uniform * num_timesteps), num_timesteps - 1))
        drops.append(bool(drop < recipe.caption_dropout))
    return Draw(torch.from_numpy(noise), torch.tensor(places), drops)


def _sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


class ClipDraw(NamedTuple):
    """noise: (B, F, C, H, W) float32, independent in every frame.   timesteps: (B, F) int64.
    has_loss: (B, F) bool, False at a clean first frame.   drops_caption: B booleans."""

    noise: Tensor
    timesteps: Tensor
    has_loss: Tensor
    drops_caption: list[bool]


def draw_clips(
    recipe: TrainRecipe,
    video: VideoRecipe,
    *,
    seed: int,
    global_indices: Sequence[int],
    shape: tuple[int, ...],
    num_timesteps: int,
) -> ClipDraw:
    """As `draw`, for clips of shape (F, C, H, W): one timestep a clip, but for some of the first frames."""
    noise = np.empty((len(global_indices), *shape), np.float32)
    timesteps = torch.empty((len(global_indices), shape[0]), dtype=torch.int64)
    has_loss = torch.ones_like(timesteps, dtype=torch.bool)
    drops = []
    for row, index in enumerate(global_indices):
        rng = keyed_rng(seed, index, Stream.CLIP_DIFFUSION)
        drop, branch, uniform, first, clean, fraction = rng.random(6)
        normal = rng.standard_normal()
        rng.standard_normal(out=noise[row], dtype=np.float32)
        if recipe.timestep_sampling == "logit_normal_mix" and branch >= video.uniform_share:
            uniform = _sigmoid(video.logit_normal_mean + video.logit_normal_std * normal)
        timesteps[row] = min(int(uniform * num_timesteps), num_timesteps - 1)
        if shape[0] > 1 and first < first_frame_share_at(recipe, video, index):
            is_clean = clean < video.clean_first_frame
            timesteps[row, 0] = 0 if is_clean else int(fraction * int(timesteps[row, 0]))
            has_loss[row, 0] = not is_clean
        drops.append(bool(drop < recipe.caption_dropout))
    return ClipDraw(torch.from_numpy(noise), timesteps, has_loss, drops)


def first_frame_share_at(recipe: TrainRecipe, video: VideoRecipe, index: int) -> float:
    """The share of clips whose first frame is cleaner than the rest, at the run's sample `index`."""
    start, end = video.first_frame_share, video.first_frame_share_end
    return start if end is None else start + (end - start) * min(1.0, index / recipe.total_images)


class NoisyAndTarget(NamedTuple):
    """Both of the latents' shape."""

    noisy_latents: Tensor
    target: Tensor


def noisy_and_target(
    recipe: TrainRecipe, schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> NoisyAndTarget:
    """What the model is given and what it is to say.

    latents, noise: (B, ...).   timesteps: (B,), or (B, F) for latents (B, F, ...) with one a frame.
    """
    shape, dims = latents.shape, timesteps.ndim - 1
    latents, noise, timesteps = latents.flatten(0, dims), noise.flatten(0, dims), timesteps.flatten()
    noisy_latents = add_noise(schedule, latents, noise, timesteps)
    wanted = target(schedule, latents, noise, timesteps, recipe.prediction_type)
    return NoisyAndTarget(noisy_latents.reshape(shape), wanted.reshape(shape))


def loss_weights(recipe: TrainRecipe, schedule: NoiseSchedule) -> Tensor:
    """(T,) float32: the weight of each timestep's squared error.

    min_snr: min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (arXiv 2303.09556, section 3.4).
    """
    alpha_bar = schedule.alphas_cumprod.double()
    weights = torch.ones_like(alpha_bar)
    if recipe.loss_weighting == "min_snr":
        snr = alpha_bar / (1 - alpha_bar)
        clipped = snr.clamp(max=recipe.min_snr_gamma)
        weights = clipped / (snr if recipe.prediction_type == "epsilon" else snr + 1)
    if recipe.inverse_alpha_bar_cap is not None:
        weights = weights * (1 / alpha_bar).clamp(max=recipe.inverse_alpha_bar_cap)
    return weights.float()


def squared_error(model_output: Tensor, target: Tensor) -> Tensor:
    """(B,) float32: mean over everything but the batch."""
    return _squared(model_output, target).flatten(1).mean(1)


def frame_errors(model_output: Tensor, target: Tensor) -> Tensor:
    """(B, F) float32 of clips (B, F, C, H, W): mean over everything but batch and frames."""
    return _squared(model_output, target).flatten(2).mean(2)


def _squared(model_output: Tensor, target: Tensor) -> Tensor:
    return (model_output.float() - target.float()).square()
