"""What a training sample draws, and what its error weighs."""

# B batch, C latent channels, H W latent size, T num_train_timesteps

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gentron.data.keyed import Stream, keyed_rng
from gentron.diffusion import NoiseSchedule
from gentron.train.recipe import TrainRecipe


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
) -> Draw:
    """Everything random about these samples' diffusion step, each from (seed, global index) alone.

    Every number is drawn whatever the recipe uses, so that recipes differ in what they say, not in the noise.
    """
    noise = np.empty((len(global_indices), *shape), np.float32)
    places, drops = [], []
    for row, index in enumerate(global_indices):
        rng = keyed_rng(seed, index, Stream.DIFFUSION)
        drop, branch, uniform = rng.random(3)
        normal = rng.standard_normal()
        rng.standard_normal(out=noise[row], dtype=np.float32)
        if recipe.timestep_sampling == "logit_normal_mix" and branch >= recipe.uniform_share:
            uniform = 1 / (1 + np.exp(-(recipe.logit_normal_mean + recipe.logit_normal_std * normal)))
        places.append(min(int(uniform * num_timesteps), num_timesteps - 1))
        drops.append(bool(drop < recipe.caption_dropout))
    return Draw(torch.from_numpy(noise), torch.tensor(places), drops)


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
    return (model_output.float() - target.float()).square().flatten(1).mean(1)
