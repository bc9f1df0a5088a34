"""Noise -> latents: one function per ODE or SDE solver, each around any denoiser."""

# B batch, S num_inference_steps; latents are (B, ...), images and video alike.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gentron.diffusion import (
    Denoiser,
    NoiseSchedule,
    PredictionType,
    Spacing,
    X0AndEpsilon,
    alphas_cumprod_table,
    check_prediction_type,
    inference_timesteps,
    read_model_output,
)

StepNoise = Callable[[int], Tensor]
"""step_index -> unit-variance noise (B, ...), keyed per image by the caller: no global generator is used."""

Callback = Callable[[int, Tensor], None]
"""(step_index, latents after that step) -> None, called S times."""


class Sampler(Protocol):
    """The one signature of all samplers, so that a name chosen on a command line can be called blindly."""

    def __call__(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        schedule: NoiseSchedule,
        num_inference_steps: int,
        *,
        prediction_type: PredictionType = "epsilon",
        spacing: Spacing = "trailing",
        eta: float = 0.0,
        step_noise: StepNoise | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Integrate from noise to clean latents.

        noise: (B, ...), unit variance; it is the latents at the first timestep, for every sampler.
        eta: ddim only.   step_noise: for ddpm, and for ddim with eta > 0; the others ignore it.
        Returns latents (B, ...) in the dtype of noise, which is also the dtype the denoiser is given; the
        state in between is float32 at least. Gradients flow if the caller lets them.
        """
        ...


class Level(NamedTuple):
    """One noise level: x_t = alpha * x0 + sigma * epsilon with alpha^2 + sigma^2 = 1."""

    alpha: float
    sigma: float

    @property
    def log_ratio(self) -> float:
        """lambda = log(alpha / sigma) of the DPM-Solver papers; -inf at pure noise, inf when clean."""
        if self.alpha == 0.0:
            return -math.inf
        return math.log(self.alpha / self.sigma) if self.sigma > 0.0 else math.inf


class _Knot(NamedTuple):
    """A level that a multistep solver has passed, with the prediction made there."""

    level: Level
    pred_x0: Tensor


class Walk(NamedTuple):
    """What every solver walks along."""

    levels: list[Level]
    """S + 1 levels in float64: one per timestep, and the clean end (diffusers' final_sigmas_type "zero")."""
    start: Tensor
    """(B, ...): the noise, in float32 at least."""
    predict: Callable[[Tensor, int], X0AndEpsilon]
    """(latents, step_index) -> the model's prediction at that level."""
    arrived: Callback
    """To be told of the latents after each step."""
    eta: float
    """ddim's; 0 elsewhere."""
    step_noise: StepNoise | None

    @property
    def num_steps(self) -> int:
        return len(self.levels) - 1


Solver = Callable[[Walk], Tensor]
"""Walk from the start to the clean end; returns the latents there."""


def _sampler(solve: Solver) -> Sampler:
    """The sampler of a solver: checks the arguments that all have, lays out the walk, restores the dtype."""
    name = solve.__name__

    def sampler(
        denoiser: Denoiser,
        noise: Tensor,
        schedule: NoiseSchedule,
        num_inference_steps: int,
        *,
        prediction_type: PredictionType = "epsilon",
        spacing: Spacing = "trailing",
        eta: float = 0.0,
        step_noise: StepNoise | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        if eta != 0.0 and name != "ddim":
            raise ValueError(f"eta belongs to the sampler ddim, got eta={eta} with {name}")
        check_prediction_type(schedule, prediction_type)
        timesteps = inference_timesteps(schedule, num_inference_steps, spacing)
        alphas_cumprod = alphas_cumprod_table(schedule)[timesteps].tolist()
        levels = [Level(math.sqrt(value), math.sqrt(1.0 - value)) for value in alphas_cumprod]
        state_dtype = torch.promote_types(noise.dtype, torch.float32)
        timesteps = timesteps.to(noise.device)

        def predict(latents: Tensor, step_index: int) -> X0AndEpsilon:
            model_output = denoiser(latents.to(noise.dtype), timesteps[step_index]).to(state_dtype)
            assert model_output.shape == noise.shape, (
                f"model_output {tuple(model_output.shape)}, latents {noise.shape}"
            )
            return read_model_output(model_output, latents, *levels[step_index], prediction_type)

        walk = Walk(
            levels=[*levels, Level(1.0, 0.0)],
            start=noise.to(state_dtype),
            predict=predict,
            arrived=callback or (lambda step_index, latents: None),
            eta=eta,
            step_noise=step_noise,
        )
        return solve(walk).to(noise.dtype)

    sampler.__name__, sampler.__doc__ = name, solve.__doc__
    return sampler


def _checked_step_noise(step_noise: StepNoise | None, like: Tensor) -> StepNoise:
    """step_noise, its results checked and moved to like's dtype and device; ValueError if there is none."""
    if step_noise is None:
        raise ValueError("a stochastic sampler (ddpm, or ddim with eta > 0) needs step_noise")

    def draw(step_index: int) -> Tensor:
        noise = step_noise(step_index)
        assert noise.shape == like.shape, f"step_noise {tuple(noise.shape)} for latents {tuple(like.shape)}"
        return noise.to(like)

    return draw


def _denoise_and_renoise(walk: Walk, *, eta: float) -> Tensor:
    """DDIM's steps."""
    if not 0.0 <= eta <= 1.0:  # also false for NaN
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    levels, latents = walk.levels, walk.start
    draw = _checked_step_noise(walk.step_noise, latents) if eta > 0.0 else None
    for i in range(walk.num_steps):
        now, then = levels[i], levels[i + 1]
        pred = walk.predict(latents, i)
        # Eq. 16: then.sigma / now.sigma * sqrt(1 - ab_now / ab_then), which is 0 at the clean end
        std = eta * then.sigma / now.sigma * math.sqrt(1.0 - (now.alpha / then.alpha) ** 2)
        direction = math.sqrt(max(then.sigma**2 - std**2, 0.0))
        latents = then.alpha * pred.pred_x0 + direction * pred.pred_epsilon
        if draw is not None and std > 0.0:
            latents = latents + std * draw(i)
        walk.arrived(i, latents)
    return latents


@_sampler
def ddim(walk: Walk) -> Tensor:
    """DDIM: Eq. 12 and 16 of Song et al. 2021 (arXiv 2010.02502). eta in [0, 1]: 0 is the ODE, 1 is DDPM.

    The previous timestep is the next one of the sequence, where diffusers always subtracts
    num_train_timesteps // num_inference_steps: equal when that divides evenly, as in 10, 20, 50.
    """
    return _denoise_and_renoise(walk, eta=walk.eta)


@_sampler
def ddpm(walk: Walk) -> Tensor:
    """DDPM ancestral sampling: the posterior of Eq. 6 and 7 of Ho et al. 2020 (arXiv 2006.11239).

    Its variance is the lower bound (diffusers' fixed_small). On any subsequence of timesteps this is DDIM
    with eta = 1 (arXiv 2010.02502, section 4.1), and so it is written.
    """
    return _denoise_and_renoise(walk, eta=1.0)


def _exponential_step(latents: Tensor, pred_x0: Tensor, now: Level, then: Level) -> Tensor:
    """The exact solution over [now, then] for a constant pred_x0: Eq. 9 of arXiv 2211.01095, first order.

    The factor -alpha_then * (exp(-h) - 1) is written without h, which is infinite at the clean end.
    """
    shrink = then.sigma / now.sigma
    return shrink * latents + (then.alpha - now.alpha * shrink) * pred_x0


def _extrapolated(pred_x0: Tensor, now: Level, then: Level, previous: _Knot | None) -> Tensor:
    """pred_x0 carried to the middle of [now, then] in lambda, along the line from the previous prediction."""
    if previous is None:
        return pred_x0
    h = then.log_ratio - now.log_ratio
    previous_h = now.log_ratio - previous.level.log_ratio
    return pred_x0 + (0.5 * h / previous_h) * (pred_x0 - previous.pred_x0)


@_sampler
def dpmpp_2m(walk: Walk) -> Tensor:
    """DPM-Solver++(2M): algorithm 2 of Lu et al. 2022 (arXiv 2211.01095), midpoint form.

    The first step has no history and the last one ends at sigma = 0: both are first order, as in diffusers.
    """
    levels, latents = walk.levels, walk.start
    previous: _Knot | None = None
    for i in range(walk.num_steps):
        now, then = levels[i], levels[i + 1]
        pred_x0 = walk.predict(latents, i).pred_x0
        is_last = i == walk.num_steps - 1
        extrapolated = _extrapolated(pred_x0, now, then, None if is_last else previous)
        latents = _exponential_step(latents, extrapolated, now, then)
        previous = _Knot(now, pred_x0)
        walk.arrived(i, latents)
    return latents


@_sampler
def heun(walk: Walk) -> Tensor:
    """Heun's method: algorithm 1 of Karras et al. 2022 (arXiv 2206.00364) without churn: 2 S - 1 evaluations.

    It integrates d(latents / alpha) / d(sigma / alpha) = epsilon, their variance-exploding form. The last
    step ends at sigma = 0, where there is no slope, and is Euler's.
    """
    if walk.levels[0].alpha == 0.0:
        raise ValueError(
            "heun divides by sqrt(alphas_cumprod), 0 with rescale_zero_terminal_snr: use dpmpp_2m or unipc"
        )
    levels, latents = walk.levels, walk.start
    for i in range(walk.num_steps):
        now, then = levels[i], levels[i + 1]
        step_size = then.sigma / then.alpha - now.sigma / now.alpha
        slope = walk.predict(latents, i).pred_epsilon
        exploding = latents / now.alpha
        latents = then.alpha * (exploding + step_size * slope)
        if i < walk.num_steps - 1:
            slope = 0.5 * (slope + walk.predict(latents, i + 1).pred_epsilon)
            latents = then.alpha * (exploding + step_size * slope)
        walk.arrived(i, latents)
    return latents


def _unipc_correct(latents: Tensor, pred_x0: Tensor, knots: list[_Knot], level: Level) -> Tensor:
    """UniC: repeat the step from knots[-1] to level, now that pred_x0 at level is known.

    latents: those at knots[-1].   knots: the last one or two; their number is the order of the step repeated.
    """
    start = knots[-1]
    h = level.log_ratio - start.level.log_ratio
    b_h = math.expm1(-h)
    change = pred_x0 - start.pred_x0
    if len(knots) == 1:
        correction = 0.5 * change
    else:
        ratio = (knots[-2].level.log_ratio - start.level.log_ratio) / h
        # phi_2 and phi_3 of the paper's Eq. 5, and the 2x2 system R rho = b of its Theorem 3.1
        phi_2 = b_h / -h - 1.0
        phi_3 = phi_2 / -h - 0.5
        b_1, b_2 = phi_2 / b_h, 2.0 * phi_3 / b_h
        rho_1 = (b_1 - b_2) / (1.0 - ratio)
        correction = (rho_1 / ratio) * (knots[-2].pred_x0 - start.pred_x0) + (b_1 - rho_1) * change
    return _exponential_step(latents, start.pred_x0, start.level, level) - level.alpha * b_h * correction


@_sampler
def unipc(walk: Walk) -> Tensor:
    """UniPC of order 2 with B(h) = e^h - 1: algorithms 1 and 2 of Zhao et al. 2023 (arXiv 2302.04867).

    The predictor is DPM-Solver++(2M); every evaluation is used once more, to correct the step that led to it.
    The callback sees the predicted latents, corrected by the next evaluation.
    """
    levels, latents = walk.levels, walk.start
    corrected = latents
    knots: list[_Knot] = []  # those the last step was made of
    for i in range(walk.num_steps):
        now, then = levels[i], levels[i + 1]
        pred_x0 = walk.predict(latents, i).pred_x0
        corrected = _unipc_correct(corrected, pred_x0, knots, now) if knots else latents
        is_last = i == walk.num_steps - 1
        previous = knots[-1] if knots and not is_last else None
        latents = _exponential_step(corrected, _extrapolated(pred_x0, now, then, previous), now, then)
        knots = [*knots[-1:], _Knot(now, pred_x0)]
        walk.arrived(i, latents)
    return latents


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "heun": heun,
    "unipc": unipc,
}
