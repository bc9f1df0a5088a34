"""A GenTron that starts from a class-conditional DiT predicts what that DiT predicts."""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gentron.dit import LICENCE_NOTE, NUM_CLASSES, dit_shapes, initial_from_dit
from gentron.errors import UserError
from gentron.model import GenTron, GenTronConfig
from gentron.text import PromptEmbeds

# B batch, C latent channels, p patch size, N image tokens, D hidden size

CONFIG = GenTronConfig(
    hidden_size=48, depth=3, num_heads=4, sample_size=8, clip_width=24, t5_width=40, pooled_width=24
)
SIDE = CONFIG.sample_size // CONFIG.patch_size
Weights = dict[str, Tensor]


def dit_weights(config: GenTronConfig = CONFIG, seed: int = 0) -> Weights:
    """Random weights in the published format, large enough for every part to move the output."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator) * (0.5 if name.endswith("bias") else shape[-1] ** -0.5)
        for name, shape in dit_shapes(config).items()
    }
    return weights | {"pos_embed": dit_positions(config)}


def dit_positions(config: GenTronConfig) -> Tensor:
    """Sections 3.2 of DiT and of MAE: sin-cos of the column in the first half, of the row in the second."""
    side, quarter = config.sample_size // config.patch_size, config.hidden_size // 4
    rates = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    tokens = []
    for row in range(side):
        for column in range(side):
            parts = [(column * rates).sin(), (column * rates).cos(), (row * rates).sin(), (row * rates).cos()]
            tokens.append(torch.cat(parts))
    return torch.stack(tokens)[None].float()


def write(weights: Any, path: Path) -> Path:
    torch.save(weights, path)
    return path


def without_class(weights: Weights, x: Tensor, timesteps: Tensor) -> Tensor:
    """DiT's forward pass in the words of its paper, float64, for the null class: noise and variance.

    x: (B, C, H, W) -> (B, 2C, H, W).
    """
    w = {name: tensor.double() for name, tensor in weights.items()}
    heads, patch = CONFIG.num_heads, CONFIG.patch_size

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())

    rates = 10_000.0 ** -(torch.arange(128, dtype=torch.float64) / 128)
    angles = timesteps.double()[:, None] * rates
    features = torch.cat([angles.cos(), angles.sin()], dim=1)
    embedded = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", features)))
    condition = F.silu(embedded + w["y_embedder.embedding_table.weight"][NUM_CLASSES])

    x = F.conv2d(x.double(), w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]  # (B, N, D)
    for k in range(CONFIG.depth):
        vectors = linear(f"blocks.{k}.adaLN_modulation.1", condition)[:, None].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        qkv = linear(f"blocks.{k}.attn.qkv", norm(x) * (1 + scale1) + shift1)
        q, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ key.mT / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + gate1 * linear(f"blocks.{k}.attn.proj", (attention @ value).transpose(1, 2).flatten(2))
        hidden = gelu(linear(f"blocks.{k}.mlp.fc1", norm(x) * (1 + scale2) + shift2))
        x = x + gate2 * linear(f"blocks.{k}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", condition)[:, None].chunk(2, dim=-1)
    x = linear("final_layer.linear", norm(x) * (1 + scale) + shift)
    x = x.unflatten(-1, (patch, patch, -1)).unflatten(1, (SIDE, SIDE))  # (B, h, w, p, p, 2C)
    return torch.einsum("nhwpqc->nchpwq", x).flatten(4, 5).flatten(2, 3)


def prompts(batch_size: int, seed: int = 0) -> PromptEmbeds:
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    mask = torch.ones(batch_size, 5, dtype=torch.bool)
    return PromptEmbeds(
        random(batch_size, 5, 24), mask, random(batch_size, 5, 40), mask, random(batch_size, 24)
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([0, 321, 999])


def test_the_first_prediction_is_the_dits_whatever_the_prompt(tmp_path: Path) -> None:
    weights = dit_weights()
    model = initial_from_dit(write(weights, tmp_path / "dit.pt"), CONFIG)
    latents, timesteps = batch()
    theirs = without_class(weights, latents, timesteps)[:, :4]
    assert theirs.std() > 0.3 and (theirs[0] - theirs[1]).std() > 0.3  # nothing is switched off
    for seed in (0, 1):
        ours = model(latents, timesteps, prompts(3, seed))
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)  # float32 against float64


def test_diffusers_own_dit_agrees(tmp_path: Path) -> None:
    """DiTTransformer2DModel with the same weights: a third implementation, positions included."""
    weights = dit_weights()
    theirs = diffusers_dit(weights)
    latents, timesteps = batch()
    no_class = torch.full((3,), NUM_CLASSES)
    with torch.no_grad():
        expected = theirs(latents, timestep=timesteps, class_labels=no_class).sample[:, :4]
        ours = initial_from_dit(write(weights, tmp_path / "dit.pt"), CONFIG)(latents, timesteps, prompts(3))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def diffusers_dit(weights: Weights) -> Any:
    """Published names -> diffusers'. Its blocks each hold a copy of both embeddings, and its qkv is three.

    diffusers spaces the timestep rates over 127 intervals where DiT has 128; that is set right here.
    """
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    d = CONFIG.hidden_size
    model = DiTTransformer2DModel(
        num_attention_heads=CONFIG.num_heads,
        attention_head_dim=d // CONFIG.num_heads,
        in_channels=4,
        out_channels=8,
        num_layers=CONFIG.depth,
        sample_size=CONFIG.sample_size,
        patch_size=CONFIG.patch_size,
        num_embeds_ada_norm=NUM_CLASSES,
    ).eval()
    embeddings = {
        f"{part}.{kind}": weights[f"{name}.{kind}"]
        for part, name in (
            ("timestep_embedder.linear_1", "t_embedder.mlp.0"),
            ("timestep_embedder.linear_2", "t_embedder.mlp.2"),
        )
        for kind in ("weight", "bias")
    } | {"class_embedder.embedding_table.weight": weights["y_embedder.embedding_table.weight"]}
    state = {}
    for kind in ("weight", "bias"):
        state[f"pos_embed.proj.{kind}"] = weights[f"x_embedder.proj.{kind}"]
        state[f"proj_out_1.{kind}"] = weights[f"final_layer.adaLN_modulation.1.{kind}"]
        state[f"proj_out_2.{kind}"] = weights[f"final_layer.linear.{kind}"]
        for k in range(CONFIG.depth):
            theirs, ours = f"transformer_blocks.{k}", f"blocks.{k}"
            for name, part in zip("qkv", weights[f"{ours}.attn.qkv.{kind}"].chunk(3), strict=True):
                state[f"{theirs}.attn1.to_{name}.{kind}"] = part
            state[f"{theirs}.attn1.to_out.0.{kind}"] = weights[f"{ours}.attn.proj.{kind}"]
            state[f"{theirs}.ff.net.0.proj.{kind}"] = weights[f"{ours}.mlp.fc1.{kind}"]
            state[f"{theirs}.ff.net.2.{kind}"] = weights[f"{ours}.mlp.fc2.{kind}"]
            state[f"{theirs}.norm1.linear.{kind}"] = weights[f"{ours}.adaLN_modulation.1.{kind}"]
    for k in range(CONFIG.depth):
        state |= {f"transformer_blocks.{k}.norm1.emb.{name}": value for name, value in embeddings.items()}
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown and all("pos_embed" in name for name in missing), (missing, unknown)
    for block in model.transformer_blocks:
        cast(Any, block).norm1.emb.time_proj.downscale_freq_shift = 0
    return model


def test_everything_fresh_gets_a_gradient(tmp_path: Path) -> None:
    """The text is not cut off: two steps reach every weight, the first those behind which nothing is zero."""
    torch.manual_seed(0)
    model = initial_from_dit(write(dit_weights(), tmp_path / "dit.pt"), CONFIG)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(*batch(), prompts(3)).square().mean().backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_licence_is_said_when_the_weights_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write({"ema": dit_weights(), "model": {}}, tmp_path / "training.pt")  # a training checkpoint's
    with caplog.at_level(logging.WARNING):
        initial_from_dit(path, CONFIG)
    assert caplog.messages == [f"{path}: {LICENCE_NOTE}"] and "CC-BY-NC" in LICENCE_NOTE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.pop("pos_embed"), "lacks tensor pos_embed"),
        (lambda w: w.pop("blocks.1.attn.qkv.bias"), "lacks tensor blocks.1.attn.qkv.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "has the unknown tensor extra"),
        (lambda w: w.update({"final_layer.linear.bias": torch.zeros(16)}), r"must be \(32,\).*got \(16,\)"),
        (lambda w: w.update(pos_embed=torch.zeros(1, 16, 48)), "other positions"),
        (lambda w: w.update(pos_embed=torch.zeros(1, 64, 48)), "the checkpoint trained at 64 px"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: Any, expected: str) -> None:
    weights = dit_weights()
    change(weights)
    with pytest.raises(UserError, match=expected):
        initial_from_dit(write(weights, tmp_path / "dit.pt"), CONFIG)


def test_other_models_are_refused(tmp_path: Path) -> None:
    path = write(dit_weights(), tmp_path / "dit.pt")
    with pytest.raises(UserError, match="no qk-norm"):
        initial_from_dit(path, replace(CONFIG, qk_norm=True))
    with pytest.raises(UserError, match="has the unknown tensor blocks.2"):
        initial_from_dit(path, replace(CONFIG, depth=2))
    with pytest.raises(UserError, match="a DiT of width 384 has 6 heads, the model 8"):
        initial_from_dit(path, replace(CONFIG, hidden_size=384, num_heads=8))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is no file of tensors alone"),
        (b"not a checkpoint", "is no file of tensors alone"),
        ({"args": argparse.Namespace(lr=1)}, "is no file of tensors alone"),
        ([1, 2], "holds no state dict"),
        ({"ema": {"a": 1}}, "holds no state dict"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    path = tmp_path / "dit.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(content, path)
    with pytest.raises(UserError, match=expected):
        initial_from_dit(path, CONFIG)
    with pytest.raises(UserError, match="cannot read"):
        initial_from_dit(tmp_path / "none.pt", CONFIG)


def test_the_published_names_are_those_of_dit_xl_2() -> None:
    """675,129,632 numbers with the positions, as the published DiT-XL-2-256x256.pt holds."""
    xl = GenTronConfig(hidden_size=1152, depth=28, num_heads=16)
    numbers = sum(math.prod(shape) for shape in dit_shapes(xl).values()) + 256 * 1152
    assert numbers == 675_129_632
    with torch.device("meta"):
        assert sum(p.numel() for p in GenTron(xl).parameters()) > numbers
