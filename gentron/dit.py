"""Class-conditional DiT (Peebles and Xie, arXiv 2212.09748): its parameters, and its weights as a start.

GenTron with `conditioning="adaln"` is a DiT whose class embedding became the pooled text, so the parameter
report of the one counts the other, and a published DiT checkpoint fills the part that both share.

What carries over exactly (the noise that both predict is equal to float rounding, whatever the prompt):
patch and timestep embedding, positions, self-attention, MLP, adaLN and the noise half of the final layer.
- DiT writes a patch as a convolution over (C, p, p), GenTron as a product with (p, p, C): the same numbers.
- The timestep features are the same ones in the same order: 128 cosines, then 128 sines.
- DiT's positions hold the column in their first half and the row in the second, GenTron's the row first. The
  two halves of the hidden channels are therefore exchanged in every weight that reads or writes them; a
  permutation of channels changes no LayerNorm and no product, so the function stays the same.
- The null class (the row that guidance trains in place of a dropped label) becomes the bias of the pooled
  text's second layer, whose matrix starts at zero: every prompt begins as "no class" and learns from there.
What does not: the other class embeddings; the half of the final layer that predicts the variance; and what
DiT has nothing for (cross-attention and temporal attention, whose output projections start at zero, token
adapters, the first layer of the pooled text), which keeps GenTron's own initialisation.
"""

# C latent channels, p patch size, h w token grid, N = h w image tokens, D hidden size

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gentron.errors import UserError
from gentron.layers import TIMESTEP_FEATURES, position_embedding
from gentron.model import GenTron, GenTronConfig, ParameterRow, parameter_report

logger = logging.getLogger(__name__)

LICENCE = "CC-BY-NC-4.0"
LICENCE_NOTE = (
    "started from class-conditional DiT weights, which Meta published under CC-BY-NC 4.0: neither they nor"
    " what was trained from them may be used commercially"
)
PREFIX = "dit:"
"""`--initial dit:PATH` names such a file."""

NUM_CLASSES = 1000
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Hidden size -> heads of DiT's S, B, L and XL; a checkpoint does not hold the number."""
PUBLISHED_PARAMETERS = {(12, 384): 33e6, (12, 768): 130e6, (24, 1024): 458e6, (28, 1152): 675e6}
"""(depth, hidden_size) -> parameters of DiT-S, B, L and XL with patch size 2, from its table 1."""
POSITION_TOLERANCE = 1e-4
"""DiT computed its positions in float64, GenTron does in float32."""


def class_conditional_report(config: GenTronConfig) -> list[ParameterRow]:
    """Parameters of the class-conditional DiT with a GenTron's depth, width and patch, beside its paper's.

    A class embedding stands where the pooled text is, the final layer also predicts the variance, and the
    fixed positions are counted, because DiT stores them.
    """
    image_only = replace(config, conditioning="adaln", temporal=None)
    rows = parameter_report(replace(image_only, t5_width=None, clip_width=config.pooled_width))
    width, outputs = config.hidden_size, config.patch_size**2 * config.in_channels
    counts = {row.component: row.parameters for row in rows[:-1]}
    for textual in ("pooled text", "token adapters", "cross-attention", "temporal attention"):
        del counts[textual]
    counts["class embedding"] = (NUM_CLASSES + 1) * width
    counts["final layer"] += outputs * width + outputs
    counts["positions"] = (config.sample_size // config.patch_size) ** 2 * width
    total = sum(counts.values())
    paper = PUBLISHED_PARAMETERS.get((config.depth, width)) if config.patch_size == 2 else None
    difference = None if paper is None else 100 * (total - paper) / paper
    return [*(ParameterRow(*row) for row in counts.items()), ParameterRow("total", total, paper, difference)]


# ---- weights -----------------------------------------------------------------------------------------------


def initial_from_dit(path: Path, config: GenTronConfig) -> GenTron:
    """A GenTron in float32 that predicts what the DiT checkpoint at `path` predicts without a class.

    path: a published .pt (a flat state dict, or a training checkpoint that holds one as "ema"), read with
    weights_only=True. Raises UserError where it is no such file or of another size than `config`.
    """
    _check_config(path, config)
    state = read_dit(path)
    _check_shapes(path, state, config)
    _check_positions(path, state["pos_embed"], config)
    model = GenTron(config)
    shared = shared_weights(state, config)
    missing, unknown = model.load_state_dict(shared, strict=False)
    assert not unknown and not set(missing) & set(shared), f"no place for {unknown}"
    logger.warning("%s: %s", path, LICENCE_NOTE)
    return model


def read_dit(path: Path) -> dict[str, Tensor]:
    """The state dict of a DiT checkpoint file, memory-mapped; UserError if it is none."""
    try:
        data: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"'{path}' is no file of tensors alone ({reason[:100]}): expected a published DiT .pt such as"
            " DiT-XL-2-256x256.pt"
        ) from error
    if isinstance(data, dict) and isinstance(data.get("ema"), dict):
        data = data["ema"]
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise UserError(f"'{path}' holds no state dict: expected a published DiT .pt")
    return data


def dit_shapes(config: GenTronConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the checkpoint of a DiT of this size, its positions left open."""
    d, p, c, mlp = config.hidden_size, config.patch_size, config.in_channels, config.mlp_size
    linears = {
        "t_embedder.mlp.0": (d, TIMESTEP_FEATURES),
        "t_embedder.mlp.2": (d, d),
        "final_layer.linear": (p * p * 2 * c, d),
        "final_layer.adaLN_modulation.1": (2 * d, d),
    }
    for index in range(config.depth):
        linears |= {
            f"blocks.{index}.attn.qkv": (3 * d, d),
            f"blocks.{index}.attn.proj": (d, d),
            f"blocks.{index}.mlp.fc1": (mlp, d),
            f"blocks.{index}.mlp.fc2": (d, mlp),
            f"blocks.{index}.adaLN_modulation.1": (6 * d, d),
        }
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (d, c, p, p),
        "x_embedder.proj.bias": (d,),
        "y_embedder.embedding_table.weight": (NUM_CLASSES + 1, d),
    }
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def shared_weights(state: Mapping[str, Tensor], config: GenTronConfig) -> dict[str, Tensor]:
    """What GenTron takes from a DiT state dict, under GenTron's names and with its order of channels."""
    d, p, c = config.hidden_size, config.patch_size, config.in_channels
    dit = {name: tensor.float() for name, tensor in state.items()}

    def writes(name: str, vectors: int = 1) -> Tensor:  # rows: `vectors` stacked outputs of D channels
        return _exchanged(dit[name].unflatten(0, (vectors, d)), 1).flatten(0, 1)

    def reads(name: str) -> Tensor:
        return _exchanged(dit[name], 1)

    patches = dit["x_embedder.proj.weight"].permute(0, 2, 3, 1).reshape(d, p * p * c)
    no_class = dit["y_embedder.embedding_table.weight"][NUM_CLASSES]
    ours = {
        "patch_embed.weight": _exchanged(patches, 0),
        "patch_embed.bias": writes("x_embedder.proj.bias"),
        "pooled_embed.fc2.weight": torch.zeros(d, d),
        "pooled_embed.fc2.bias": no_class.clone(),
        "final_layer.modulation.linear.weight": writes("final_layer.adaLN_modulation.1.weight", 2),
        "final_layer.modulation.linear.bias": writes("final_layer.adaLN_modulation.1.bias", 2),
    }
    for layer, name in (("fc1", "0"), ("fc2", "2")):
        for kind in ("weight", "bias"):
            ours[f"timestep_embed.{layer}.{kind}"] = dit[f"t_embedder.mlp.{name}.{kind}"]
    for kind, rows in (
        ("weight", reads("final_layer.linear.weight")),
        ("bias", dit["final_layer.linear.bias"]),
    ):
        noise = rows.unflatten(0, (p * p, 2 * c))[:, :c]  # the other half predicts the variance
        ours[f"final_layer.linear.{kind}"] = noise.flatten(0, 1)
    for index in range(config.depth):
        theirs, block = f"blocks.{index}", f"blocks.{index}"
        ours |= {
            f"{block}.modulation.linear.weight": writes(f"{theirs}.adaLN_modulation.1.weight", 6),
            f"{block}.modulation.linear.bias": writes(f"{theirs}.adaLN_modulation.1.bias", 6),
            f"{block}.self_attention.qkv.weight": reads(f"{theirs}.attn.qkv.weight"),
            f"{block}.self_attention.qkv.bias": dit[f"{theirs}.attn.qkv.bias"],
            f"{block}.self_attention.out.weight": writes(f"{theirs}.attn.proj.weight"),
            f"{block}.self_attention.out.bias": writes(f"{theirs}.attn.proj.bias"),
            f"{block}.mlp.fc1.weight": reads(f"{theirs}.mlp.fc1.weight"),
            f"{block}.mlp.fc1.bias": dit[f"{theirs}.mlp.fc1.bias"],
            f"{block}.mlp.fc2.weight": writes(f"{theirs}.mlp.fc2.weight"),
            f"{block}.mlp.fc2.bias": writes(f"{theirs}.mlp.fc2.bias"),
        }
    return ours


def _exchanged(tensor: Tensor, axis: int) -> Tensor:
    """The two halves of the hidden channels along `axis` in the other order."""
    return tensor.roll(tensor.shape[axis] // 2, dims=axis)


def _check_config(path: Path, config: GenTronConfig) -> None:
    heads = HEADS.get(config.hidden_size, config.num_heads)
    if config.num_heads != heads:
        raise UserError(
            f"'{path}': a DiT of width {config.hidden_size} has {heads} heads, the model {config.num_heads}"
        )
    if config.qk_norm:
        raise UserError(f"'{path}': DiT has no qk-norm; set qk_norm to false to start from it")


def _check_shapes(path: Path, state: Mapping[str, Tensor], config: GenTronConfig) -> None:
    expected = dit_shapes(config)
    wrong = sorted((set(state) ^ set(expected)) - {"pos_embed"})
    if "pos_embed" not in state or wrong:
        name = wrong[0] if wrong else "pos_embed"
        problem = "has the unknown" if name in state else "lacks"
        raise UserError(
            f"'{path}' is no class-conditional DiT of {config.depth} blocks: it {problem} tensor {name}"
        )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise UserError(
                f"'{path}': {name} must be {shape} for this model, got {tuple(state[name].shape)}"
            )


def _check_positions(path: Path, stored: Tensor, config: GenTronConfig) -> None:
    """The stored positions are those that GenTron computes, with the halves exchanged, or nothing fits."""
    side = config.sample_size // config.patch_size
    if tuple(stored.shape) != (1, side * side, config.hidden_size):
        raise UserError(
            f"'{path}' has positions {tuple(stored.shape)}, the model a grid"
            f" of {side} x {side}: take the checkpoint trained at {8 * config.sample_size} px, or set"
            " sample_size to its latents' side"
        )
    ours = position_embedding(side, side, config.hidden_size, side)
    if (_exchanged(stored[0].float(), 1) - ours).abs().max() > POSITION_TOLERANCE:
        raise UserError(f"'{path}' has other positions than DiT's fixed sin-cos ones")
