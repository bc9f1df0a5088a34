"""The forward process: noise schedule, training targets, and a model output read as x0 and noise."""

# B batch, T num_train_timesteps, S num_inference_steps; latents are (B, ...), images and video alike.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]
Spacing = Literal["trailing", "leading", "linspace"]

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(latents (B, ...), timestep 0-dim or (B,) int64) -> model_output (B, ...); the text is inside."""


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The linear-beta schedule of DDPM (Ho et al. 2020, arXiv 2006.11239, section 4)."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    rescale_zero_terminal_snr: bool = False
    """Make the last timestep pure noise (arXiv 2305.08891, algorithm 1); v_prediction only."""

    def __post_init__(self) -> None:
        num_train_timesteps = self.num_train_timesteps
        if isinstance(num_train_timesteps, bool) or not isinstance(num_train_timesteps, int):
            raise ValueError(f"num_train_timesteps must be an integer, got {num_train_timesteps!r}")
        if num_train_timesteps < 2:
            raise ValueError(f"num_train_timesteps must be >= 2, got {num_train_timesteps}")
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:  # also false for NaN
            raise ValueError(
                "betas must satisfy 0 < beta_start <= beta_end < 1, "
                f"got {self.beta_start} and {self.beta_end}"
            )

    @property
    def betas(self) -> Tensor:
        """(T,) float32: variance added by each step."""
        alphas_cumprod = alphas_cumprod_table(self)
        previous = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        return (1.0 - alphas_cumprod / previous).float()

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) float32: the share of the data's variance left at each timestep."""
        return alphas_cumprod_table(self).float()


@lru_cache(maxsize=32)
def alphas_cumprod_table(schedule: NoiseSchedule, device: torch.device | None = None) -> Tensor:
    """(T,) alphas_cumprod, a shared table that must not be written to.

    Without a device: float64 on the CPU, where the product of a thousand factors is built.
    With one: there, in float64 too, except on devices that lack it (MPS), which get float32.
    """
    if device is not None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return alphas_cumprod_table(schedule).to(device=device, dtype=dtype)
    betas = torch.linspace(
        schedule.beta_start,
        schedule.beta_end,
        schedule.num_train_timesteps,
        dtype=torch.float64,
        device="cpu",
    )
    alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    if not schedule.rescale_zero_terminal_snr:
        return alphas_cumprod
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()


def check_prediction_type(schedule: NoiseSchedule, prediction_type: str) -> None:
    """Raise ValueError for an unknown type, and for one that the schedule leaves without information."""
    if prediction_type not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise ValueError(f"unknown prediction_type {prediction_type!r}; known: {known}")
    if prediction_type == "epsilon" and schedule.rescale_zero_terminal_snr:
        raise ValueError("rescale_zero_terminal_snr needs prediction_type 'v_prediction', got 'epsilon'")


class SignalAndNoise(NamedTuple):
    """x_t = signal * x0 + noise * epsilon; both (B, 1, ...)."""

    signal: Tensor
    noise: Tensor


def _signal_and_noise(schedule: NoiseSchedule, timesteps: Tensor, like: Tensor) -> SignalAndNoise:
    """sqrt(alphas_cumprod) and sqrt(1 - alphas_cumprod), in like's dtype or float32 if that is wider."""
    assert timesteps.shape == like.shape[:1], f"timesteps {tuple(timesteps.shape)} for {tuple(like.shape)}"
    table = alphas_cumprod_table(schedule, like.device)
    # index_select refuses a negative timestep, which plain indexing would read from the other end
    alphas_cumprod = table.index_select(0, timesteps.to(like.device)).reshape(-1, *[1] * (like.ndim - 1))
    dtype = torch.promote_types(like.dtype, torch.float32)
    return SignalAndNoise(alphas_cumprod.sqrt().to(dtype), (1.0 - alphas_cumprod).sqrt().to(dtype))


def add_noise(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Noisy latents x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) epsilon (Eq. 4 of arXiv 2006.11239).

    latents, noise: (B, ...), unit variance.   timesteps: (B,), int64 in [0, num_train_timesteps).
    Returns (B, ...) in the dtype of latents.
    """
    signal, sigma = _signal_and_noise(schedule, timesteps, latents)
    return (signal * latents + sigma * noise).to(latents.dtype)


def target(
    schedule: NoiseSchedule,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    prediction_type: PredictionType,
) -> Tensor:
    """What the model is to predict from add_noise(schedule, latents, noise, timesteps).

    epsilon: the noise.   v_prediction: sqrt(ab_t) epsilon - sqrt(1 - ab_t) x0 (arXiv 2202.00512, appendix D).
    """
    check_prediction_type(schedule, prediction_type)
    if prediction_type == "epsilon":
        return noise
    signal, sigma = _signal_and_noise(schedule, timesteps, latents)
    return (signal * noise - sigma * latents).to(latents.dtype)


class X0AndEpsilon(NamedTuple):
    """The two ends of the line on which noisy latents lie, as a model output places them."""

    pred_x0: Tensor
    pred_epsilon: Tensor


def read_model_output(
    model_output: Tensor,
    noisy_latents: Tensor,
    signal: Tensor | float,
    sigma: Tensor | float,
    prediction_type: PredictionType,
) -> X0AndEpsilon:
    """The x0 and the noise that a model output stands for, where x_t = signal * x0 + sigma * epsilon.

    An epsilon output says little about x0 where there is little signal: its error grows by sigma / signal.
    """
    if prediction_type == "epsilon":
        return X0AndEpsilon((noisy_latents - sigma * model_output) / signal, model_output)
    pred_x0 = signal * noisy_latents - sigma * model_output
    pred_epsilon = sigma * noisy_latents + signal * model_output
    return X0AndEpsilon(pred_x0, pred_epsilon)


def pred_x0_and_epsilon(
    schedule: NoiseSchedule,
    model_output: Tensor,
    noisy_latents: Tensor,
    timesteps: Tensor,
    prediction_type: PredictionType,
) -> X0AndEpsilon:
    """Read a model output as the data and the noise: the inverse of add_noise and target.

    model_output, noisy_latents: (B, ...).   timesteps: (B,), int64 in [0, num_train_timesteps).
    """
    check_prediction_type(schedule, prediction_type)
    signal, sigma = _signal_and_noise(schedule, timesteps, noisy_latents)
    pred_x0, pred_epsilon = read_model_output(model_output, noisy_latents, signal, sigma, prediction_type)
    return X0AndEpsilon(pred_x0.to(noisy_latents.dtype), pred_epsilon.to(noisy_latents.dtype))


def check_num_inference_steps(schedule: NoiseSchedule, num_inference_steps: int) -> None:
    """Raise ValueError unless num_inference_steps is an integer in 1..num_train_timesteps."""
    last = schedule.num_train_timesteps
    if isinstance(num_inference_steps, float) and not math.isfinite(num_inference_steps):
        raise ValueError(f"num_inference_steps must be an integer in 1..{last}, got {num_inference_steps}")
    if isinstance(num_inference_steps, bool) or not isinstance(num_inference_steps, int):
        raise ValueError(f"num_inference_steps must be an integer in 1..{last}, got {num_inference_steps!r}")
    if not 1 <= num_inference_steps <= last:
        raise ValueError(f"num_inference_steps must be in 1..{last}, got {num_inference_steps}")


def inference_timesteps(
    schedule: NoiseSchedule, num_inference_steps: int, spacing: Spacing = "trailing"
) -> Tensor:
    """(S,) int64, strictly descending, on the CPU: where the samplers evaluate the model.

    The three spacings of Table 2 of arXiv 2305.08891. "trailing" starts at the noisiest timestep, as pure
    noise demands; "leading" ends at 0 and starts a stride below the top; "linspace" holds both ends.
    """
    check_num_inference_steps(schedule, num_inference_steps)
    total = schedule.num_train_timesteps
    index = torch.arange(num_inference_steps, dtype=torch.float64, device="cpu")
    if spacing == "trailing":
        return (total - index * total / num_inference_steps).round().long() - 1
    if spacing == "leading":
        return (index * (total // num_inference_steps)).long().flip(0)
    if spacing == "linspace":
        if num_inference_steps == 1:
            return torch.tensor([total - 1], device="cpu")  # of the two ends, the one where noise is
        return (index * ((total - 1) / (num_inference_steps - 1))).round().long().flip(0)
    raise ValueError(f"unknown spacing {spacing!r}; known: {', '.join(get_args(Spacing))}")
