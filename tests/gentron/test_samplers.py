"""Samplers: against diffusers on the same model outputs, and against the closed form of a Gaussian."""

# B batch, C latent channels, H W latent size, S num_inference_steps

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from gentron.diffusion import Denoiser, NoiseSchedule, PredictionType, Spacing, inference_timesteps
from gentron.samplers import SAMPLERS, ddim, ddpm, dpmpp_2m, heun, unipc

# diffusers 0.42 calls np.array on a tensor in the way that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULE = NoiseSchedule()
SHAPE = (2, 4, 6, 6)
PREDICTION_TYPES = get_args(PredictionType)
UNKNOWN: Any = "karras"


def seeded(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_noise(step_index: int) -> Tensor:
    return seeded(1000 + step_index)


def toy_denoiser() -> Denoiser:
    """A fixed non-linear network of latents and timestep; its pictures stay at a scale of about 1 to 20."""
    first, second = seeded(1, (16, 4, 3, 3)) / 6, seeded(2, (4, 16, 3, 3)) / 12
    frequencies = seeded(3, (16, 1, 1))

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        clock = torch.sin(frequencies * timestep.double() / 100).to(latents.dtype)
        hidden = torch.tanh(F.conv2d(latents, first.to(latents.dtype), padding=1) + clock)
        return 0.7 * latents + F.conv2d(hidden, second.to(latents.dtype), padding=1)

    return denoiser


def diffusers_scheduler(name: str, spacing: Spacing, **kwargs: Any) -> Any:
    common = {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "timestep_spacing": spacing,
        **kwargs,
    }
    match name:
        case "ddpm":
            return DDPMScheduler(**common, clip_sample=False)
        case "ddim":
            return DDIMScheduler(**common, clip_sample=False)
        case "dpmpp_2m":
            return DPMSolverMultistepScheduler(**common)
        case "heun":
            return HeunDiscreteScheduler(**common)
        case "unipc":
            return UniPCMultistepScheduler(**common)
    raise AssertionError(name)


def put_in_float64(scheduler: Any, timesteps: Tensor, *, is_heun: bool) -> None:
    """Give a diffusers scheduler our timesteps, and its own float32 tables in float64."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    scheduler.alphas_cumprod = alphas_cumprod
    if not hasattr(scheduler, "sigmas"):
        scheduler.timesteps = timesteps
        return
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()[timesteps]
    clean = torch.zeros(1, dtype=torch.float64)
    if is_heun:  # it visits each level but the first twice
        scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2), clean])
        scheduler.timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
    else:
        scheduler.sigmas, scheduler.timesteps = torch.cat([sigmas, clean]), timesteps


def run_diffusers(name: str, scheduler: Any, denoiser: Denoiser, noise: Tensor, eta: float = 0.0) -> Tensor:
    """A pipeline's loop over a scheduler whose timesteps are set; the noise is at the first level."""
    latents = noise
    if name == "heun":
        latents = noise * (scheduler.sigmas[0] ** 2 + 1).sqrt().to(noise.dtype)
    for i, timestep in enumerate(scheduler.timesteps):
        model_output = denoiser(scheduler.scale_model_input(latents, timestep), timestep)
        extra = {}
        if name == "ddim":
            extra = {"eta": eta, "variance_noise": step_noise(i).to(noise.dtype) if eta else None}
        latents = scheduler.step(model_output, timestep, latents, **extra).prev_sample
    return latents


@pytest.fixture
def shared_step_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """DDPMScheduler takes no noise: let it draw ours, one draw a step."""
    draws = iter(range(10_000))
    monkeypatch.setattr(
        scheduling_ddpm, "randn_tensor", lambda *_, dtype, **__: step_noise(next(draws)).to(dtype)
    )


def relative_error(ours: Tensor, reference: Tensor) -> float:
    assert ours.dtype == reference.dtype and torch.isfinite(ours).all()
    return ((ours - reference).abs().max() / reference.abs().max().clamp(min=1.0)).item()


@pytest.mark.usefixtures("shared_step_noise")
@pytest.mark.parametrize("num_inference_steps", [1, 2, 10, 20, 50])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_agree_with_the_diffusers_scheduler_as_it_comes(
    name: str, prediction_type: PredictionType, num_inference_steps: int
) -> None:
    scheduler = diffusers_scheduler(name, "trailing", prediction_type=prediction_type)
    scheduler.set_timesteps(num_inference_steps)
    noise, denoiser = seeded(0).float(), toy_denoiser()
    expected = run_diffusers(name, scheduler, denoiser, noise)
    ours = SAMPLERS[name](
        denoiser,
        noise,
        SCHEDULE,
        num_inference_steps,
        prediction_type=prediction_type,
        step_noise=step_noise,
    )
    # in one or two steps, diffusers' Heun rounds x / alpha, 157 times the latents, in float32
    tolerance = 1e-4 if name == "heun" and num_inference_steps <= 2 else 1e-5
    assert relative_error(ours, expected) < tolerance


@pytest.mark.usefixtures("shared_step_noise")
@pytest.mark.parametrize("num_inference_steps", [1, 2, 10, 37])
@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m", "heun", "unipc"])
def test_samplers_agree_with_diffusers_in_float64_at_any_timesteps(
    name: str, prediction_type: PredictionType, spacing: Spacing, num_inference_steps: int
) -> None:
    scheduler = diffusers_scheduler(name, spacing, prediction_type=prediction_type)
    scheduler.set_timesteps(num_inference_steps)
    timesteps = inference_timesteps(SCHEDULE, num_inference_steps, spacing)
    put_in_float64(scheduler, timesteps, is_heun=name == "heun")
    noise, denoiser = seeded(0), toy_denoiser()
    expected = run_diffusers(name, scheduler, denoiser, noise)
    ours = SAMPLERS[name](
        denoiser,
        noise,
        SCHEDULE,
        num_inference_steps,
        prediction_type=prediction_type,
        spacing=spacing,
        step_noise=step_noise,
    )
    # DPMSolverMultistepScheduler rounds its state to float32; DDPM adds noise of 1e-10 in its last step
    assert relative_error(ours, expected) < {"dpmpp_2m": 1e-5, "ddpm": 1e-8}.get(name, 1e-10)


@pytest.mark.parametrize(
    ("spacing", "num_inference_steps"),
    [("trailing", 2), ("trailing", 10), ("trailing", 20), ("trailing", 50)]
    + [("leading", 10), ("leading", 37), ("leading", 50)],
)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_ddim_agrees_with_diffusers_in_float64_for_every_eta(
    prediction_type: PredictionType, eta: float, spacing: Spacing, num_inference_steps: int
) -> None:
    scheduler = diffusers_scheduler("ddim", spacing, prediction_type=prediction_type)
    scheduler.set_timesteps(num_inference_steps)
    timesteps = inference_timesteps(SCHEDULE, num_inference_steps, spacing)
    assert torch.equal(scheduler.timesteps, timesteps)
    put_in_float64(scheduler, timesteps, is_heun=False)
    noise, denoiser = seeded(0), toy_denoiser()
    expected = run_diffusers("ddim", scheduler, denoiser, noise, eta)
    ours = ddim(
        denoiser,
        noise,
        SCHEDULE,
        num_inference_steps,
        prediction_type=prediction_type,
        spacing=spacing,
        eta=eta,
        step_noise=step_noise,
    )
    assert relative_error(ours, expected) < 1e-10


@pytest.mark.parametrize("num_inference_steps", [3, 7, 30])
def test_ddim_at_uneven_timesteps_is_first_order_dpm_solver(num_inference_steps: int) -> None:
    scheduler = diffusers_scheduler("dpmpp_2m", "trailing", prediction_type="v_prediction", solver_order=1)
    timesteps = inference_timesteps(SCHEDULE, num_inference_steps)
    scheduler.set_timesteps(timesteps=timesteps.tolist())
    noise, denoiser = seeded(0).float(), toy_denoiser()
    expected = run_diffusers("dpmpp_2m", scheduler, denoiser, noise)
    ours = ddim(denoiser, noise, SCHEDULE, num_inference_steps, prediction_type="v_prediction")
    assert relative_error(ours, expected) < 1e-5


@pytest.mark.usefixtures("shared_step_noise")
@pytest.mark.parametrize(
    ("name", "tolerance"), [("ddpm", 1e-5), ("ddim", 1e-5), ("dpmpp_2m", 1e-3), ("unipc", 1e-3)]
)
@pytest.mark.parametrize("num_inference_steps", [1, 2, 10])
def test_zero_terminal_snr_agrees_with_diffusers(
    name: str, tolerance: float, num_inference_steps: int
) -> None:
    # the two with a tolerance of 1e-3: diffusers puts alphas_cumprod = 2^-24 where ours is 0
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    scheduler = diffusers_scheduler(
        name, "trailing", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    scheduler.set_timesteps(num_inference_steps)
    noise, denoiser = seeded(0).float(), toy_denoiser()
    expected = run_diffusers(name, scheduler, denoiser, noise)
    ours = SAMPLERS[name](
        denoiser,
        noise,
        schedule,
        num_inference_steps,
        prediction_type="v_prediction",
        step_noise=step_noise,
    )
    assert relative_error(ours, expected) < tolerance


# ---- a Gaussian world, where the exact denoiser and the exact solution are known

MEAN, STD = 0.8, 0.5
FINE = NoiseSchedule(num_train_timesteps=100_000, beta_start=1e-6, beta_end=2e-4)
"""The same curve with a hundred times the timesteps, so that rounding them does not hide the order."""


def gaussian_denoiser(schedule: NoiseSchedule, prediction_type: PredictionType) -> Denoiser:
    """The exact model for data from N(MEAN, STD^2): E[x0 | x_t] is linear in x_t."""
    betas = torch.linspace(
        schedule.beta_start, schedule.beta_end, schedule.num_train_timesteps, dtype=torch.float64
    )
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        alpha, sigma = alphas_cumprod[timestep].sqrt(), (1 - alphas_cumprod[timestep]).sqrt()
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x0 = MEAN + gain * (latents - alpha * MEAN)
        epsilon = (latents - alpha * x0) / sigma
        return epsilon if prediction_type == "epsilon" else alpha * epsilon - sigma * x0

    return denoiser


def gaussian_solution(schedule: NoiseSchedule, noise: Tensor, alphas_cumprod: float) -> Tensor:
    """Where the probability-flow ODE takes the noise: to the same quantile of p(x_t), a Gaussian too."""

    def mean_and_std(alphas_cumprod: float) -> tuple[float, float]:
        return math.sqrt(alphas_cumprod) * MEAN, math.sqrt(alphas_cumprod * STD**2 + 1 - alphas_cumprod)

    start_mean, start_std = mean_and_std(float(schedule.alphas_cumprod[-1]))
    mean, std = mean_and_std(alphas_cumprod)
    return mean + std * (noise - start_mean) / start_std


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2), ("unipc", 3)])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_ode_samplers_follow_the_exact_solution_at_their_order(
    name: str, order: int, prediction_type: PredictionType
) -> None:
    noise = seeded(4, (64,))
    half_way = gaussian_solution(FINE, noise, float(FINE.alphas_cumprod[49_999]))
    end = gaussian_solution(FINE, noise, 1.0)

    def errors(num_inference_steps: int) -> tuple[float, float]:
        path: list[Tensor] = []
        SAMPLERS[name](
            gaussian_denoiser(FINE, prediction_type),
            noise,
            FINE,
            num_inference_steps,
            prediction_type=prediction_type,
            callback=lambda _, latents: path.append(latents),
        )
        middle = path[num_inference_steps // 2 - 1]
        return (middle - half_way).abs().max().item(), (path[-1] - end).abs().max().item()

    # half-way, because the last step, a jump to sigma = 0, is of first order whatever the sampler
    (coarse, _), (fine, at_end) = errors(50), errors(100)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert at_end < (0.05 if order == 1 else 0.01)


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 1.0), ("ddim", 0.5)])
def test_stochastic_samplers_reach_the_mean_and_variance_of_the_data(name: str, eta: float) -> None:
    num_samples = 20_000
    generator = torch.Generator().manual_seed(5)
    latents = SAMPLERS[name](
        gaussian_denoiser(SCHEDULE, "epsilon"),
        torch.randn(num_samples, generator=generator, dtype=torch.float64),
        SCHEDULE,
        250,
        eta=eta,
        step_noise=lambda _: torch.randn(num_samples, generator=generator, dtype=torch.float64),
    )
    # 4 standard errors, and the discretisation of 250 steps
    assert latents.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(num_samples) + 0.005)
    assert latents.std().item() == pytest.approx(STD, abs=4 * STD / math.sqrt(2 * num_samples) + 0.01)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_inference_steps", [1, 2, 5])
def test_a_denoiser_that_knows_the_picture_leads_to_it_in_any_number_of_steps(
    name: str, num_inference_steps: int
) -> None:
    picture = seeded(6)
    alphas_cumprod = SCHEDULE.alphas_cumprod.double()

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        return (latents - alphas_cumprod[timestep].sqrt() * picture) / (1 - alphas_cumprod[timestep]).sqrt()

    latents = SAMPLERS[name](denoiser, seeded(0), SCHEDULE, num_inference_steps, step_noise=step_noise)
    torch.testing.assert_close(latents, picture, atol=1e-3, rtol=0)


# ---- the contract of every sampler


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_evaluate_only_at_the_inference_timesteps(name: str) -> None:
    seen: list[int] = []

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        assert timestep.ndim == 0 and timestep.dtype == torch.int64
        seen.append(int(timestep))
        return latents

    SAMPLERS[name](denoiser, seeded(0), SCHEDULE, 6, step_noise=step_noise)
    timesteps = inference_timesteps(SCHEDULE, 6).tolist()
    expected = timesteps[:1] + [t for t in timesteps[1:] for _ in range(2)] if name == "heun" else timesteps
    assert seen == expected


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callback_sees_every_step_and_last_the_result(name: str) -> None:
    seen: list[tuple[int, Tensor]] = []
    latents = SAMPLERS[name](
        toy_denoiser(),
        seeded(0),
        SCHEDULE,
        4,
        step_noise=step_noise,
        callback=lambda step_index, latents: seen.append((step_index, latents)),
    )
    assert [step_index for step_index, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], latents)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_leave_the_global_generator_and_the_noise_alone(name: str) -> None:
    before, noise = torch.get_rng_state(), seeded(0)
    SAMPLERS[name](toy_denoiser(), noise, SCHEDULE, 4, step_noise=step_noise)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noise, seeded(0))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    def pointwise(latents: Tensor, timestep: Tensor) -> Tensor:
        return torch.tanh(latents) * (1 + timestep / 1000)

    together = SAMPLERS[name](pointwise, seeded(0), SCHEDULE, 5, step_noise=step_noise)
    alone = SAMPLERS[name](pointwise, seeded(0)[1:], SCHEDULE, 5, step_noise=lambda i: step_noise(i)[1:])
    assert torch.equal(together[1:], alone)


@pytest.mark.parametrize("name", SAMPLERS)
def test_half_precision_reaches_the_denoiser_but_not_the_state(name: str) -> None:
    states: list[Tensor] = []

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        assert latents.dtype == torch.bfloat16
        return latents

    latents = SAMPLERS[name](
        denoiser,
        seeded(0).bfloat16(),
        SCHEDULE,
        3,
        step_noise=step_noise,
        callback=lambda _, latents: states.append(latents),
    )
    assert latents.dtype == torch.bfloat16
    assert {state.dtype for state in states} == {torch.float32}


@pytest.mark.parametrize("name", SAMPLERS)
def test_video_latents_pass_through_every_sampler(name: str) -> None:
    noise = seeded(0, (1, 3, 4, 2, 2))
    latents = SAMPLERS[name](
        lambda x, t: x, noise, SCHEDULE, 3, step_noise=lambda i: seeded(i, (1, 3, 4, 2, 2))
    )
    assert latents.shape == noise.shape


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_inference_steps", [0, -1, 1001, 2.5, math.nan, math.inf, True, "ten"])
def test_a_bad_number_of_steps_is_refused_before_the_model_runs(name: str, num_inference_steps: Any) -> None:
    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        raise AssertionError("the model ran")

    with pytest.raises(ValueError, match=r"^num_inference_steps must be .*1\.\.1000, got [^\n]+$"):
        SAMPLERS[name](denoiser, seeded(0), SCHEDULE, num_inference_steps, step_noise=step_noise)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ddpm(toy_denoiser(), seeded(0), SCHEDULE, 2), "needs step_noise"),
        (lambda: ddim(toy_denoiser(), seeded(0), SCHEDULE, 2, eta=0.5), "needs step_noise"),
        (lambda: ddim(toy_denoiser(), seeded(0), SCHEDULE, 2, eta=1.5), "eta must be in"),
        (lambda: ddim(toy_denoiser(), seeded(0), SCHEDULE, 2, eta=math.nan), "eta must be in"),
        (lambda: heun(toy_denoiser(), seeded(0), SCHEDULE, 2, eta=0.5), "eta belongs to the sampler ddim"),
        (lambda: unipc(toy_denoiser(), seeded(0), SCHEDULE, 2, spacing=UNKNOWN), "unknown spacing 'karras'"),
        (
            lambda: dpmpp_2m(toy_denoiser(), seeded(0), SCHEDULE, 2, prediction_type=UNKNOWN),
            "unknown prediction",
        ),
        (
            lambda: ddim(toy_denoiser(), seeded(0), NoiseSchedule(rescale_zero_terminal_snr=True), 2),
            "needs prediction_type 'v_prediction'",
        ),
        (
            lambda: heun(
                toy_denoiser(),
                seeded(0),
                NoiseSchedule(rescale_zero_terminal_snr=True),
                2,
                prediction_type="v_prediction",
            ),
            "use dpmpp_2m or unipc",
        ),
    ],
)
def test_what_a_person_can_get_wrong_is_one_clear_line(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
