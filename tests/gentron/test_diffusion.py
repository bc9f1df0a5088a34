"""The forward process: its variance, its targets, their inverse, and the timesteps of inference."""

# B batch, T num_train_timesteps

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from gentron.diffusion import (
    NoiseSchedule,
    PredictionType,
    Spacing,
    add_noise,
    inference_timesteps,
    pred_x0_and_epsilon,
    target,
)

SCHEDULE = NoiseSchedule()
PREDICTION_TYPES = get_args(PredictionType)


def seeded(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rescale", [False, True])
def test_the_schedule_is_that_of_diffusers(rescale: bool) -> None:
    reference: Any = DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", rescale_betas_zero_snr=rescale
    )
    schedule = NoiseSchedule(rescale_zero_terminal_snr=rescale)
    torch.testing.assert_close(schedule.betas, reference.betas, rtol=0, atol=5e-6)  # its are float32
    torch.testing.assert_close(schedule.alphas_cumprod, reference.alphas_cumprod, rtol=1e-5, atol=1e-7)
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == torch.float32


def test_zero_terminal_snr_ends_in_noise_and_keeps_the_first_timestep() -> None:
    rescaled = NoiseSchedule(rescale_zero_terminal_snr=True).alphas_cumprod
    assert rescaled[-1] == 0.0
    assert rescaled[0] == SCHEDULE.alphas_cumprod[0]
    assert (rescaled.diff() < 0).all()


def test_the_served_tables_can_be_written_to_without_harm() -> None:
    before = SCHEDULE.alphas_cumprod
    SCHEDULE.alphas_cumprod.zero_()
    SCHEDULE.betas.zero_()
    assert torch.equal(SCHEDULE.alphas_cumprod, before)


@pytest.mark.parametrize("timestep", [0, 1, 250, 999])
def test_noisy_latents_have_the_schedules_mean_and_unit_variance(timestep: int) -> None:
    latents, noise = seeded(0, 200_000, 1), seeded(1, 200_000, 1)
    noisy_latents = add_noise(SCHEDULE, latents, noise, torch.full((200_000,), timestep))
    assert noisy_latents.var().item() == pytest.approx(1.0, abs=0.02)
    signal = (noisy_latents * latents).mean().item()
    assert signal == pytest.approx(SCHEDULE.alphas_cumprod[timestep].sqrt().item(), abs=0.02)


def test_a_thousand_small_steps_are_the_one_closed_form_step() -> None:
    mean, variance = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for beta in torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64):  # q(x_t | x_t-1), Eq. 2 of 2006.11239
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
    last, one = torch.tensor([999]), torch.ones(1, 1, dtype=torch.float64)
    assert add_noise(SCHEDULE, one, 0 * one, last).item() == pytest.approx(mean.item(), rel=1e-9)
    assert add_noise(SCHEDULE, 0 * one, one, last).item() ** 2 == pytest.approx(variance.item(), rel=1e-9)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (5, 2, 4, 3, 3), (5,)])
def test_a_perfect_model_output_gives_back_data_and_noise(
    prediction_type: PredictionType, shape: tuple[int, ...]
) -> None:
    latents, noise = seeded(0, *shape), seeded(1, *shape)
    timesteps = torch.tensor([0, 1, 500, 998, 999])
    noisy_latents = add_noise(SCHEDULE, latents, noise, timesteps)
    model_output = target(SCHEDULE, latents, noise, timesteps, prediction_type)
    pred = pred_x0_and_epsilon(SCHEDULE, model_output, noisy_latents, timesteps, prediction_type)
    torch.testing.assert_close(pred.pred_x0, latents, rtol=0, atol=1e-12)
    torch.testing.assert_close(pred.pred_epsilon, noise, rtol=0, atol=1e-12)


def test_v_at_the_two_ends_is_the_noise_and_minus_the_data() -> None:
    schedule = NoiseSchedule(beta_start=1e-9, rescale_zero_terminal_snr=True)
    latents, noise = seeded(0, 2, 3), seeded(1, 2, 3)
    v = target(schedule, latents, noise, torch.tensor([0, 999]), "v_prediction")
    torch.testing.assert_close(v[0], noise[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(v[1], -latents[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_noise_and_targets_are_those_of_diffusers(prediction_type: PredictionType) -> None:
    reference: Any = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    latents, noise = seeded(0, 6, 4, 3, 3).float(), seeded(1, 6, 4, 3, 3).float()
    timesteps = torch.tensor([0, 3, 99, 500, 998, 999])
    noisy_latents = add_noise(SCHEDULE, latents, noise, timesteps)
    torch.testing.assert_close(
        noisy_latents, reference.add_noise(latents, noise, timesteps), rtol=0, atol=1e-5
    )
    expected = noise if prediction_type == "epsilon" else reference.get_velocity(latents, noise, timesteps)
    ours = target(SCHEDULE, latents, noise, timesteps, prediction_type)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    latents, noise = seeded(0, 2, 4).to(dtype), seeded(1, 2, 4).to(dtype)
    timesteps = torch.tensor([10, 900])
    for prediction_type in PREDICTION_TYPES:
        model_output = target(SCHEDULE, latents, noise, timesteps, prediction_type)
        pred = pred_x0_and_epsilon(SCHEDULE, model_output, latents, timesteps, prediction_type)
        assert {model_output.dtype, pred.pred_x0.dtype, pred.pred_epsilon.dtype} == {dtype}
    assert add_noise(SCHEDULE, latents, noise, timesteps).dtype == dtype


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_a_timestep_outside_the_schedule_is_refused(timestep: int) -> None:
    with pytest.raises((IndexError, RuntimeError), match="index out of range"):
        add_noise(SCHEDULE, seeded(0, 1, 2), seeded(1, 1, 2), torch.tensor([timestep]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_train_timesteps": 1}, "num_train_timesteps must be >= 2, got 1"),
        ({"num_train_timesteps": 10.0}, "num_train_timesteps must be an integer"),
        ({"beta_start": math.nan}, "betas must satisfy"),
        ({"beta_start": 0.0}, "betas must satisfy"),
        ({"beta_end": 1.0}, "betas must satisfy"),
        ({"beta_start": 0.03}, "betas must satisfy"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(**fields)


def test_epsilon_under_zero_terminal_snr_is_refused() -> None:
    latents = seeded(0, 1, 2)
    with pytest.raises(ValueError, match="needs prediction_type 'v_prediction', got 'epsilon'"):
        target(NoiseSchedule(rescale_zero_terminal_snr=True), latents, latents, torch.tensor([3]), "epsilon")
    with pytest.raises(ValueError, match="unknown prediction_type 'sample'; known: epsilon, v_prediction"):
        target(SCHEDULE, latents, latents, torch.tensor([3]), "sample")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_inference_timesteps_descend_within_the_schedule_for_every_count(spacing: Spacing) -> None:
    for num_inference_steps in range(1, 1001):
        timesteps = inference_timesteps(SCHEDULE, num_inference_steps, spacing)
        assert timesteps.shape == (num_inference_steps,) and timesteps.dtype == torch.int64
        assert (timesteps.diff() < 0).all()
        assert timesteps[-1] >= 0 and timesteps[0] <= 999
        if spacing != "leading":
            assert timesteps[0] == 999


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("num_inference_steps", [2, 3, 7, 10, 20, 25, 30, 50, 100, 250, 999, 1000])
def test_inference_timesteps_are_those_of_diffusers(spacing: Spacing, num_inference_steps: int) -> None:
    reference: Any = DDPMScheduler(timestep_spacing=spacing)
    reference.set_timesteps(num_inference_steps)
    ours = inference_timesteps(SCHEDULE, num_inference_steps, spacing)
    np.testing.assert_array_equal(ours.numpy(), reference.timesteps.numpy())
