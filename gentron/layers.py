"""The parts of a GenTron block: embeddings, attention, MLP and adaLN modulation.

Precision: norms and modulation are applied in float32 or wider, and so is the sum of the residual stream
under autocast. Products with one vector a sample (timestep, pooled text, adaLN) ignore autocast and run in
the weights' own dtype; products with tokens follow autocast.
"""

# B batch, C latent channels, H W latent size, p patch size, h w token grid, N = h w image tokens,
# L prompt tokens, E text width, D hidden size, K heads, d = D / K head size

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

TIMESTEP_FEATURES = 256
MAX_PERIOD = 10_000.0


class PromptTokens(NamedTuple):
    """One encoder's tokens after its adapter. tokens: (B, L, E). mask: (B, 1, 1, L), True = attend."""

    tokens: Tensor
    mask: Tensor


class KeysValues(NamedTuple):
    """One block's view of the prompt. keys, values: (B, K, L, d). mask: (B, 1, 1, L), True = attend."""

    keys: Tensor
    values: Tensor
    mask: Tensor


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, p*p*C), tokens in row-major order."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(tokens: Tensor, patch_size: int, *, grid_height: int) -> Tensor:
    """(B, N, p*p*C) -> (B, C, H, W), the inverse of `patchify` for a grid of `grid_height` rows."""
    return rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=grid_height, p=patch_size, q=patch_size)


def timestep_features(timesteps: Tensor, num_features: int = TIMESTEP_FEATURES) -> Tensor:
    """(B,) int or float timesteps -> (B, num_features) float32: cosines, then sines, of geometric rates."""
    half = num_features // 2
    rates = torch.exp(-math.log(MAX_PERIOD) / half * torch.arange(half, device=timesteps.device))
    angles = timesteps.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def grid_coordinates(
    grid_height: int, grid_width: int, base_size: int, *, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Row and column coordinates (h,), (w,) of a token grid, in patches of the base_size x base_size grid.

    Token centres are laid over the base grid so that both share centre and area. At the base size they
    are 0, 1, 2, ...; at twice the resolution each base token is replaced by four that surround it, so a
    model goes on from 256 px to 512 px; a grid of another aspect ratio keeps square patches.
    """
    scale = base_size / math.sqrt(grid_height * grid_width)
    centre = (base_size - 1) / 2
    rows = (torch.arange(grid_height, device=device, dtype=torch.float32) - (grid_height - 1) / 2) * scale
    columns = (torch.arange(grid_width, device=device, dtype=torch.float32) - (grid_width - 1) / 2) * scale
    return rows + centre, columns + centre


def position_embedding(
    grid_height: int,
    grid_width: int,
    hidden_size: int,
    base_size: int,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fixed 2-D sin-cos positions (N, D) float32: one half of D for the row, one for the column.

    It is computed where it is used and not kept as a buffer: it costs microseconds, fits every size,
    and leaves nothing to restore after building a model on the meta device.
    """
    rows, columns = grid_coordinates(grid_height, grid_width, base_size, device=device)
    by_row = _sincos(rows, hidden_size // 2)[:, None].expand(-1, grid_width, -1)  # (h, w, D/2)
    by_column = _sincos(columns, hidden_size // 2)[None].expand(grid_height, -1, -1)
    return torch.cat([by_row, by_column], dim=-1).flatten(0, 1)


def _sincos(coordinates: Tensor, num_features: int) -> Tensor:
    half = num_features // 2
    rates = torch.exp(-math.log(MAX_PERIOD) / half * torch.arange(half, device=coordinates.device))
    angles = coordinates[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm over the last axis without affine weights, in float32 or wider; the caller casts back."""
    return F.layer_norm(x.to(_at_least_float32(x.dtype)), x.shape[-1:], eps=1e-6)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: layer_norm(x) * (1 + scale) + shift. x: (B, N, D); shift, scale: (B, D)."""
    return torch.addcmul(shift[:, None], layer_norm(x), 1 + scale[:, None]).to(x.dtype)


def gated_sum(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate * update in the gate's precision, handed back in x's. x, update: (B, N, D); gate: (B, D)."""
    return torch.addcmul(x.to(gate.dtype), gate[:, None], update.to(gate.dtype)).to(x.dtype)


def linear_without_autocast(layer: nn.Linear, x: Tensor) -> Tensor:
    """layer(x) in the weights' own dtype, also under autocast: for vectors of which there is one a sample."""
    if not torch.is_autocast_enabled(x.device.type):
        return layer(x.to(layer.weight.dtype))
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class VectorMLP(nn.Module):
    """Linear -> SiLU -> Linear on one vector a sample, (B, in) -> (B, D): the timestep, the pooled text."""

    def __init__(self, in_features: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return linear_without_autocast(self.fc2, F.silu(linear_without_autocast(self.fc1, x)))


class Modulation(nn.Module):
    """adaLN: SiLU -> Linear, num_vectors modulation vectors from the conditioning vector."""

    def __init__(self, hidden_size: int, num_vectors: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        self.linear = nn.Linear(hidden_size, num_vectors * hidden_size)

    def forward(self, conditioning: Tensor) -> Tensor:
        """(..., D) -> (..., num_vectors, D), in the weights' dtype."""
        vectors = linear_without_autocast(self.linear, F.silu(conditioning))
        return vectors.unflatten(-1, (self.num_vectors, -1))


class SelfAttention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.q_norm, self.k_norm = _head_norms(hidden_size // num_heads, qk_norm)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = rearrange(self.qkv(x), "b n (three k d) -> three b k n d", three=3, k=self.num_heads)
        attended = F.scaled_dot_product_attention(_normed(self.q_norm, q), _normed(self.k_norm, k), v)
        return self.out(rearrange(attended, "b k n d -> b n (k d)"))


class CrossAttention(nn.Module):
    """Image tokens attend to prompt tokens; keys and values come from the encoder's own width."""

    def __init__(self, hidden_size: int, text_width: int, num_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(text_width, 2 * hidden_size)
        self.q_norm, self.k_norm = _head_norms(hidden_size // num_heads, qk_norm)
        self.out = nn.Linear(hidden_size, hidden_size)

    def keys_values(self, prompt_tokens: PromptTokens) -> KeysValues:
        """The part that depends on the prompt alone, so that a sampler computes it once."""
        kv = self.kv(prompt_tokens.tokens)
        k, v = rearrange(kv, "b l (two k d) -> two b k l d", two=2, k=self.num_heads)
        return KeysValues(_normed(self.k_norm, k), v, prompt_tokens.mask)

    def forward(self, x: Tensor, text: KeysValues) -> Tensor:
        """x: (B, N, D) -> (B, N, D)."""
        q = _normed(self.q_norm, rearrange(self.q(x), "b n (k d) -> b k n d", k=self.num_heads))
        attended = F.scaled_dot_product_attention(q, text.keys, text.values, attn_mask=text.mask)
        return self.out(rearrange(attended, "b k n d -> b n (k d)"))


class MLP(nn.Module):
    def __init__(self, hidden_size: int, mlp_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, mlp_size)
        self.fc2 = nn.Linear(mlp_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def _head_norms(head_size: int, enabled: bool) -> tuple[nn.RMSNorm | None, nn.RMSNorm | None]:
    return (nn.RMSNorm(head_size, eps=1e-6), nn.RMSNorm(head_size, eps=1e-6)) if enabled else (None, None)


def _normed(norm: nn.RMSNorm | None, heads: Tensor) -> Tensor:
    """qk-norm over the head size, float32 inside, handed back in the attention's dtype."""
    if norm is None:
        return heads
    x = heads.to(_at_least_float32(heads.dtype))
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps).to(heads.dtype)
