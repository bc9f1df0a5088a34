"""The video form of GenTron at tiny size; random weights wherever the zero init would hide a fault."""

# B batch, F frames, N image tokens, D hidden size, K heads, d head size

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gentron.checkpointing import CheckpointPolicy
from gentron.layers import TempSelfAttn, frame_positions
from gentron.model import GenTron, GenTronConfig, TemporalConfig, is_temporal
from gentron.text import PromptEmbeds
from tests.gentron.test_model import CONFIG, random_latents, random_model, random_prompts

VIDEO = replace(CONFIG, depth=2, temporal=TemporalConfig(num_frames=4, fps=4.0))
VARIANTS = {
    "plain": VIDEO,
    "null_key": replace(VIDEO, temporal=TemporalConfig(num_frames=4, fps=4.0, null_key=True)),
    "qk_norm": replace(VIDEO, qk_norm=True),
    "adaln": replace(VIDEO, conditioning="adaln"),
}
EVERY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
TIMESTEPS = torch.tensor([999, 501, 3])


def random_clips(batch: int = 3, num_frames: int = 4) -> Tensor:
    return random_latents(batch * num_frames).unflatten(0, (batch, num_frames))


def by_frame(model: GenTron, clips: Tensor, prompts: PromptEmbeds) -> Tensor:
    """The model run on each frame alone."""
    return torch.stack([model(frame, TIMESTEPS, prompts) for frame in clips.unbind(1)], dim=1)


def random_layer(*, null_key: bool = False, qk_norm: bool = False) -> TempSelfAttn:
    generator = torch.Generator().manual_seed(0)
    layer = TempSelfAttn(32, 4, qk_norm=qk_norm, null_key=null_key)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return layer


# The layer


def written_out(layer: TempSelfAttn, x: Tensor, *, mask: Tensor) -> Tensor:
    """Temporal attention of x (F, D), one position of one clip, head by head in float64.

    mask: (F, F), True = attend; the null key is attended to where the layer has one and the mask is full.
    """
    layer, x = layer.double(), x.double()
    placed = x + frame_positions(*x.shape).double()
    q, k = layer.qk(placed).chunk(2, dim=-1)
    v, size = layer.v(x), x.shape[-1] // layer.num_heads
    heads = []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (q[:, part] @ k[:, part].T / math.sqrt(size)).exp() * mask
        null = 1.0 if layer.null_key and mask.all() else 0.0
        heads.append(weights @ v[:, part] / (weights.sum(dim=-1, keepdim=True) + null))
    return layer.out(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("null_key", [False, True])
@torch.no_grad()
def test_temporal_attention_is_its_formula_written_out(null_key: bool) -> None:
    x = torch.randn(2, 4, 3, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = random_layer(null_key=null_key).double()
    output = layer(x, motion_free=False)
    full = torch.ones(4, 4, dtype=torch.bool)
    for clip in range(2):
        for token in range(3):
            expected = written_out(layer, x[clip, :, token], mask=full)
            torch.testing.assert_close(output[clip, :, token], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("null_key", [False, True])
@torch.no_grad()
def test_motion_free_is_the_identity_mask_of_the_formula(null_key: bool) -> None:
    x = torch.randn(2, 4, 3, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = random_layer(null_key=null_key).double()
    output = layer(x, motion_free=True)
    expected = written_out(layer, x[1, :, 2], mask=torch.eye(4, dtype=torch.bool))
    torch.testing.assert_close(output[1, :, 2], expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_rows_of_a_mixed_batch_are_those_of_whole_batches_to_the_bit() -> None:
    layer, x = random_layer(null_key=True), torch.randn(2, 4, 3, 32)
    mixed = layer(x, motion_free=torch.tensor([True, False]))
    assert torch.equal(mixed[0], layer(x, motion_free=True)[0])
    assert torch.equal(mixed[1], layer(x, motion_free=False)[1])


@torch.no_grad()
def test_frames_can_be_told_apart_by_attention_to_a_null_key_alone() -> None:
    """Where all frames look alike, weights that sum to one give every frame the same."""
    x = torch.randn(1, 1, 1, 32).expand(1, 4, 1, 32)
    same, told = (
        random_layer(null_key=null_key)(x, motion_free=False)[0, :, 0] for null_key in (False, True)
    )
    torch.testing.assert_close(same[0].expand_as(same), same, rtol=1e-5, atol=1e-5)
    assert (told[0] - told[3]).abs().max() > 1e-2


def test_frame_positions_are_sines_and_cosines_of_periods_from_2_pi_to_200_pi() -> None:
    positions = frame_positions(3, 32)
    rates = [100 ** (-i / 16) for i in range(16)]
    expected = [[f(t * rate) for f in (math.sin, math.cos) for rate in rates] for t in range(3)]
    torch.testing.assert_close(positions, torch.tensor(expected))


# The model


@EVERY_VARIANT
@torch.no_grad()
def test_a_video_model_starts_as_the_image_model_frame_by_frame(config: GenTronConfig) -> None:
    image_model = random_model(replace(config, temporal=None))
    model = GenTron.from_t2i(image_model.state_dict(), config)
    clips, prompts = random_clips(), random_prompts()
    expected = by_frame(image_model, clips, prompts)
    for motion_free in (False, True, torch.tensor([True, False, True])):
        output = model(clips, TIMESTEPS, prompts, motion_free=motion_free)
        torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)


@EVERY_VARIANT
@torch.no_grad()
def test_motion_free_frames_are_runs_of_the_video_model_on_one_frame(config: GenTronConfig) -> None:
    model, clips, prompts = random_model(config), random_clips(), random_prompts()
    free = model(clips, TIMESTEPS, prompts, motion_free=True)
    torch.testing.assert_close(free, by_frame(model, clips, prompts), rtol=1e-5, atol=1e-5)
    single = model(clips[:, :1], TIMESTEPS, prompts)  # (B, 1, C, H, W), an image
    assert torch.equal(single[:, 0], model(clips[:, 0], TIMESTEPS, prompts))
    assert (model(clips, TIMESTEPS, prompts) - free).abs().max() > 1e-2


@EVERY_VARIANT
@torch.no_grad()
def test_a_motion_free_row_of_a_mixed_batch_is_that_of_a_whole_one(config: GenTronConfig) -> None:
    model, clips, prompts = random_model(config), random_clips(), random_prompts()
    mixed = model(clips, TIMESTEPS, prompts, motion_free=torch.tensor([True, False, True]))
    free, moving = (model(clips, TIMESTEPS, prompts, motion_free=value) for value in (True, False))
    assert torch.equal(mixed[[0, 2]], free[[0, 2]]) and torch.equal(mixed[1], moving[1])


@torch.no_grad()
def test_the_order_of_frames_enters_through_the_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clips, prompts = random_model(VIDEO), random_clips(), random_prompts()
    order = torch.tensor([2, 0, 3, 1])
    output, permuted = (model(x, TIMESTEPS, prompts) for x in (clips, clips[:, order]))
    assert (permuted - output[:, order]).abs().max() > 1e-2
    free, permuted = (model(x, TIMESTEPS, prompts, motion_free=True) for x in (clips, clips[:, order]))
    torch.testing.assert_close(permuted, free[:, order])
    monkeypatch.setattr("gentron.layers.frame_positions", lambda f, d, device: torch.zeros(f, d))
    output, permuted = (model(x, TIMESTEPS, prompts) for x in (clips, clips[:, order]))
    torch.testing.assert_close(permuted, output[:, order], rtol=1e-4, atol=1e-4)


@EVERY_VARIANT
def test_gradients_reach_every_weight(config: GenTronConfig) -> None:
    model = random_model(config)
    model(random_clips(), TIMESTEPS, random_prompts()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        gradient = parameter.grad
        rows = gradient.flatten(1).any(dim=1) if gradient.ndim > 1 else gradient.any()
        assert rows.all(), f"{name} has weights without a gradient"


def test_gradients_reach_the_output_projections_at_the_start_and_motion_free_steps_only_values() -> None:
    model = GenTron.from_t2i(random_model(replace(VIDEO, temporal=None)).state_dict(), VIDEO)
    model(random_clips(), TIMESTEPS, random_prompts()).square().sum().backward()
    layer = model.blocks[0].temporal_attention
    assert isinstance(layer, TempSelfAttn)
    assert not layer.out.weight.any() and not layer.out.bias.any()
    assert layer.out.weight.grad is not None and layer.out.weight.grad.flatten(1).any(dim=1).all()
    layer = random_layer()
    layer(torch.randn(2, 4, 3, 32), motion_free=True).square().sum().backward()
    assert layer.qk.weight.grad is None and layer.v.weight.grad is not None


@pytest.mark.parametrize("policy", ["selective", "full"])
def test_gradient_checkpointing_changes_no_gradient(policy: CheckpointPolicy) -> None:
    gradients = []
    policies: tuple[CheckpointPolicy, ...] = ("none", policy)
    for checkpointing in policies:
        model = random_model(VIDEO)
        model.gradient_checkpointing = checkpointing
        free = torch.tensor([True, False, True])
        model(random_clips(), TIMESTEPS, random_prompts(), motion_free=free).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        assert first is not None and second is not None and torch.equal(first, second)


@EVERY_VARIANT
@torch.no_grad()
def test_a_timestep_a_frame_with_equal_ones_is_a_timestep_a_clip(config: GenTronConfig) -> None:
    model, clips, prompts = random_model(config), random_clips(), random_prompts()
    output = model(clips, TIMESTEPS, prompts)
    per_frame = model(clips, TIMESTEPS[:, None].expand(3, 4), prompts)
    torch.testing.assert_close(per_frame, output, rtol=1e-5, atol=1e-5)
    clean_first = TIMESTEPS[:, None].repeat(1, 4)
    clean_first[:, 0] = 0
    free = model(clips, clean_first, prompts, motion_free=True)
    torch.testing.assert_close(free[:, 1:], by_frame(model, clips, prompts)[:, 1:], rtol=1e-5, atol=1e-5)
    expected = model(clips[:, 0], torch.zeros(3, dtype=torch.int64), prompts)
    torch.testing.assert_close(free[:, 0], expected, rtol=1e-5, atol=1e-5)
    assert (model(clips, clean_first, prompts) - output)[:, 1:].abs().max() > 1e-2


@EVERY_VARIANT
@pytest.mark.parametrize("with_table", [False, True])
@torch.no_grad()
def test_conditioned_equals_forward(config: GenTronConfig, with_table: bool) -> None:
    model, clips, prompts = random_model(config), random_clips(), random_prompts()
    free = torch.tensor([True, False, False])
    known = torch.tensor([999, 501, 3, 0]) if with_table else None
    denoise = model.conditioned(prompts, timesteps=known, motion_free=free)
    clean_first = TIMESTEPS[:, None].repeat(1, 4)
    clean_first[:, 0] = 0
    for timestep in (torch.tensor(501), TIMESTEPS, clean_first):
        expected = model(
            clips, timestep.expand(3) if timestep.ndim == 0 else timestep, prompts, motion_free=free
        )
        torch.testing.assert_close(denoise(clips, timestep), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_table", [False, True])
@torch.no_grad()
def test_rows_share_the_text_of_their_prompt(with_table: bool) -> None:
    model, clips, prompts = random_model(VIDEO), random_clips(4), random_prompts(2)
    free = torch.tensor([True, False, False, True])
    known = torch.tensor([999, 501]) if with_table else None
    denoise = model.conditioned(prompts, timesteps=known, motion_free=free, rows=[0, 0, 1, 1])
    for timestep in (torch.tensor(501), torch.tensor([999, 501, 501, 999])):
        expected = model(clips, timestep.expand(4), prompts[[0, 0, 1, 1]], motion_free=free)
        torch.testing.assert_close(denoise(clips, timestep), expected, rtol=1e-5, atol=1e-5)


def test_from_t2i_may_lack_exactly_the_temporal_weights() -> None:
    state = random_model(replace(VIDEO, temporal=None)).state_dict()
    model = GenTron.from_t2i(state, VIDEO)
    new = model.state_dict().keys() - state.keys()
    assert all(is_temporal(name) for name in new) and len(new) == 2 * 6
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    name = "blocks.0.mlp.fc1.bias"
    with pytest.raises(ValueError, match=f"lacks tensor {name}"):
        GenTron.from_t2i({key: tensor for key, tensor in state.items() if key != name}, VIDEO)
    with pytest.raises(ValueError, match="has the unknown tensor surprise"):
        GenTron.from_t2i({**state, "surprise": torch.zeros(1)}, VIDEO)
    with pytest.raises(ValueError, match="unknown tensor blocks.0.temporal_attention.out.bias"):
        GenTron.from_t2i(model.state_dict(), VIDEO)
    with pytest.raises(ValueError, match=r"fc1.bias must be \(128,\), got \(3,\)"):
        GenTron.from_t2i({**state, name: torch.zeros(3)}, VIDEO)
    with pytest.raises(ValueError, match="temporal"):
        GenTron.from_t2i(state, replace(VIDEO, temporal=None))


def test_wrong_clips_are_clear_errors() -> None:
    model, image_model, prompts = random_model(VIDEO), random_model(), random_prompts()
    with pytest.raises(ValueError, match=r"num_frames must be in \[1, 16\] .* got 17"):
        model(random_clips(3, 17), TIMESTEPS, prompts)
    model(random_clips(3, 16), TIMESTEPS, prompts)
    with pytest.raises(ValueError, match="latents must be"):
        image_model(random_clips(), TIMESTEPS, prompts)
    with pytest.raises(ValueError, match="motion_free belongs to a video model"):
        image_model(random_latents(), TIMESTEPS, prompts, motion_free=True)
    with pytest.raises(ValueError, match="motion_free must be a bool or"):
        model(random_clips(), TIMESTEPS, prompts, motion_free=torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"timesteps must be \(3,\) or \(3, 4\), got \(3, 2\)"):
        model(random_clips(), TIMESTEPS[:, None].expand(3, 2), prompts)
    with pytest.raises(ValueError, match="num_frames must be >= 2, got 1"):
        TemporalConfig(num_frames=1, fps=4.0)
    with pytest.raises(ValueError, match="fps must be positive, got nan"):
        TemporalConfig(num_frames=8, fps=float("nan"))
