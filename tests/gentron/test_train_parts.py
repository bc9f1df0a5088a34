"""Draws, weights, schedule, average: what can be said in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gentron.config import from_dict, to_dict
from gentron.diffusion import NoiseSchedule
from gentron.text import PromptEmbeds
from gentron.train.ema import make_ema, update_ema
from gentron.train.loss import draw, loss_weights, squared_error
from gentron.train.optimizer import learning_rate_at, make_optimizer, step_unless
from gentron.train.prefetch import prefetch, trim_padding
from gentron.train.recipe import TrainRecipe
from gentron.train.recipes import RECIPES
from tests.tiny_recipe import tiny_recipe

SHAPE = (4, 4, 4)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_its_stored_form(name: str) -> None:
    recipe = RECIPES[name]()
    assert from_dict(TrainRecipe, to_dict(recipe)) == recipe


@pytest.mark.parametrize("name", ["xl2_256", "g2_256"])
def test_paper_recipes_hold_the_papers_numbers(name: str) -> None:
    first, second = RECIPES[name](), RECIPES[name.replace("256", "512")]()
    assert (first.image_size, first.global_batch_size, first.total_images) == (256, 2048, 2048 * 500_000)
    assert (second.image_size, second.global_batch_size, second.total_images) == (512, 784, 784 * 300_000)
    assert first.learning_rate == second.learning_rate == 1e-4 and first.lr_schedule == "constant"
    assert first.prediction_type == "epsilon" and first.loss_weighting == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch_size": 3}, "micro_batch_size must divide global_batch_size 8, got 3"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"caption_dropout": 1.5}, r"caption_dropout must be in \[0, 1\], got 1.5"),
        ({"ema_halflife_images": 100}, "exactly one of ema_decay and ema_halflife_images"),
        ({"zero_terminal_snr": True}, "needs prediction_type v_prediction"),
        ({"total_images": 0}, "total_images must be >= 1, got 0"),
        ({"sampler": "plms"}, "unknown sampler 'plms'"),
    ],
)
def test_recipe_refuses_bad_values(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny_recipe(), **changes)  # type: ignore[arg-type]


def draws(recipe: TrainRecipe, count: int = 4000, seed: int = 0):  # noqa: ANN201
    return draw(recipe, seed=seed, global_indices=range(count), shape=(1, 2, 2), num_timesteps=1000)


def test_draw_depends_on_seed_and_index_alone() -> None:
    recipe = tiny_recipe()
    options = {"shape": SHAPE, "num_timesteps": 1000}
    whole = draw(recipe, seed=5, global_indices=range(10), **options)
    part = draw(recipe, seed=5, global_indices=[7, 2], **options)
    assert torch.equal(part.noise, whole.noise[[7, 2]])
    assert torch.equal(part.timesteps, whole.timesteps[[7, 2]])
    other = draw(recipe, seed=6, global_indices=range(10), **options)
    assert not torch.equal(other.noise, whole.noise)


def test_noise_is_unit_gaussian_and_captions_drop_at_their_rate() -> None:
    drawn = draws(tiny_recipe())
    assert drawn.noise.mean().abs() < 0.03 and abs(drawn.noise.std() - 1) < 0.03
    assert np.mean(drawn.drops_caption) == pytest.approx(0.1, abs=0.015)
    assert not any(draws(replace(tiny_recipe(), caption_dropout=0.0)).drops_caption)


def test_timesteps_cover_the_range_as_the_recipe_says() -> None:
    uniform = draws(tiny_recipe()).timesteps
    assert 0 <= uniform.min() < 10 and 990 <= uniform.max() < 1000
    assert uniform.float().mean() == pytest.approx(499.5, abs=15)
    mix = replace(tiny_recipe(), timestep_sampling="logit_normal_mix", logit_normal_mean=1.0)
    mixed = draws(mix).timesteps.float()
    # P(t < 500) = 1/4 * 1/2 + 3/4 * Phi(-1 / 0.7)
    expected = 0.125 + 0.75 * float(torch.distributions.Normal(0, 1).cdf(torch.tensor(-1 / 0.7)))
    assert (mixed < 500).float().mean() == pytest.approx(expected, abs=0.02)


def test_loss_weights_are_those_of_min_snr() -> None:
    schedule = NoiseSchedule()
    alpha_bar = schedule.alphas_cumprod.double()
    snr = alpha_bar / (1 - alpha_bar)
    plain = tiny_recipe()
    assert torch.equal(loss_weights(plain, schedule), torch.ones(1000))
    epsilon = replace(plain, loss_weighting="min_snr")
    torch.testing.assert_close(
        loss_weights(epsilon, schedule).double(), snr.clamp(max=5) / snr, rtol=1e-5, atol=0
    )
    velocity = replace(epsilon, prediction_type="v_prediction", zero_terminal_snr=True)
    terminal = loss_weights(velocity, NoiseSchedule(rescale_zero_terminal_snr=True))
    assert torch.isfinite(terminal).all() and terminal[-1] == 0
    capped = loss_weights(replace(plain, inverse_alpha_bar_cap=40.0), schedule)
    assert capped[-1] == 40 and capped[0] == pytest.approx(1, abs=1e-3)


def test_squared_error_is_a_mean_per_sample() -> None:
    output, target = torch.zeros(2, *SHAPE), torch.ones(2, *SHAPE)
    target[1] *= 3
    assert squared_error(output.bfloat16(), target).tolist() == [1.0, 9.0]


def test_learning_rate_warms_up_and_falls_over_images_seen() -> None:
    recipe = replace(tiny_recipe(), global_batch_size=10, warmup_images=100, total_images=1100)
    assert learning_rate_at(recipe, 0) == pytest.approx(2e-4)
    assert learning_rate_at(recipe, 40) == pytest.approx(1e-3)
    assert learning_rate_at(recipe, 100) == pytest.approx(2e-3)
    assert learning_rate_at(recipe, 600) == pytest.approx(1e-3)
    assert learning_rate_at(recipe, 1100) == pytest.approx(0, abs=1e-12)
    constant = replace(recipe, lr_schedule="constant")
    assert learning_rate_at(constant, 600) == learning_rate_at(constant, 5000) == 2e-3


def test_average_has_its_closed_form() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = make_ema(model)
    nn.init.ones_(model.weight)
    for _ in range(5):
        update_ema(ema, model, decay=0.9, non_finite=torch.tensor(0.0))
    assert ema.weight.item() == pytest.approx(1 - 0.9**5)
    update_ema(ema, model, decay=0.9, non_finite=torch.tensor(1.0))
    assert ema.weight.item() == pytest.approx(1 - 0.9**5)
    halflife = replace(tiny_recipe(), ema_decay=None, ema_halflife_images=80)
    assert halflife.ema_decay_per_step**10 == pytest.approx(0.5)


def test_non_finite_gradient_changes_neither_weights_nor_moments() -> None:
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, tiny_recipe())
    before = [p.clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    step_unless(optimizer, torch.tensor(1.0), learning_rate=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(float(s["step"]) == 0 and not s["exp_avg"].any() for s in optimizer.state.values())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    step_unless(optimizer, torch.tensor(0.0), learning_rate=1e-2)
    assert all(
        torch.allclose(a - b, torch.tensor(1e-2)) for a, b in zip(before, model.parameters(), strict=True)
    )


def test_prefetch_keeps_order_and_raises_where_the_result_is_taken() -> None:
    asked: list[int] = []

    def prepare(item: int) -> int:
        asked.append(item)
        if item == 3:
            raise OSError("unreadable")
        return item * 10

    with prefetch(prepare, range(9)) as results:
        assert [next(results) for _ in range(3)] == [0, 10, 20]
        with pytest.raises(OSError, match="unreadable"):
            next(results)
    assert asked == sorted(asked) and len(asked) <= 6

    def nothing() -> Iterator[int]:
        yield from ()

    with prefetch(prepare, nothing()) as results:
        assert list(results) == []


def test_trimming_drops_only_columns_that_are_padding_everywhere() -> None:
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()
    tokens = torch.randn(2, 5, 3)
    embeds = PromptEmbeds(t5_prompt_embeds=tokens, t5_prompt_mask=mask)
    trimmed = trim_padding(embeds)
    assert trimmed.t5_prompt_embeds is not None and trimmed.t5_prompt_mask is not None
    assert torch.equal(trimmed.t5_prompt_embeds, tokens[:, :3])
    assert torch.equal(trimmed.t5_prompt_mask, mask[:, :3])
    assert trimmed.clip_prompt_embeds is None
