"""The parts of a GenTron block: embeddings, attention, MLP and adaLN modulation.

Precision: norms and modulation are applied in float32 or wider, and so is the sum of the residual stream
under autocast. Products with one vector a sample (timestep, pooled text, adaLN) ignore autocast and run in
the weights' own dtype; products with tokens follow autocast.
"""

# B batch, C latent channels, H W latent size, p patch size, h w token grid, N = h w image tokens,
# L prompt tokens, E text width, D hidden size, K heads, d = D / K head size, F frames of a clip

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

TIMESTEP_FEATURES = 256
MAX_PERIOD = 10_000.0
FRAME_MAX_PERIOD = 100.0
"""For clips of 8 to 32 frames: with the usual 10,000 most of the features would not change over a clip.
Measured for mini on clips of 4 and 8 frames; the paper gives no temporal positions."""


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
    """Timesteps (...) -> (..., num_features) float32: cosines, then sines, of geometric rates."""
    half = num_features // 2
    rates = torch.exp(-math.log(MAX_PERIOD) / half * torch.arange(half, device=timesteps.device))
    angles = timesteps.float()[..., None] * rates
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


def frame_positions(num_frames: int, hidden_size: int, *, device: torch.device | str | None = None) -> Tensor:
    """Fixed 1-D sin-cos positions (F, D) float32 of the frames 0, 1, 2, ..."""
    frames = torch.arange(num_frames, device=device, dtype=torch.float32)
    return _sincos(frames, hidden_size, FRAME_MAX_PERIOD)


def _sincos(coordinates: Tensor, num_features: int, max_period: float = MAX_PERIOD) -> Tensor:
    half = num_features // 2
    rates = torch.exp(-math.log(max_period) / half * torch.arange(half, device=coordinates.device))
    angles = coordinates[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm over the last axis without affine weights, in float32 or wider; the caller casts back."""
    return F.layer_norm(x.to(_at_least_float32(x.dtype)), x.shape[-1:], eps=1e-6)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: layer_norm(x) * (1 + scale) + shift. x: (B, N, D); shift, scale: (B, D).

    A clip may have one vector a frame: x (B, F N, D); shift, scale (B, F, D).
    """
    tokens = layer_norm(_a_row_a_vector(x, shift))
    return torch.addcmul(shift[..., None, :], tokens, 1 + scale[..., None, :]).to(x.dtype).view_as(x)


def gated_sum(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate * update in the gate's precision, handed back in x's.

    x, update: (B, N, D); gate: (B, D). With one gate a frame: x, update (B, F N, D); gate (B, F, D).
    """
    rows, updates = (_a_row_a_vector(tensor.to(gate.dtype), gate) for tensor in (x, update))
    return torch.addcmul(rows, gate[..., None, :], updates).to(x.dtype).view_as(x)


def _a_row_a_vector(x: Tensor, vectors: Tensor) -> Tensor:
    """x as it is for vectors (B, D), as (B, F, N, D) for vectors (B, F, D)."""
    return x if vectors.ndim == 2 else x.unflatten(1, (vectors.shape[1], -1))


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


class TempSelfAttn(nn.Module):
    """The paper's temporal attention: a token attends to the tokens at its place in every frame of its clip.

    Queries and keys know the frame's position, values do not: on values as well it learned more slowly on
    mini, and a motion-free frame could tell its number. Without a null key the weights over the frames sum
    to one, so that where all frames look alike (at high noise) no frame learns its number either.

    null_key: an extra key and value of zeros a head, so that the weights may sum to less (ours).
    """

    def __init__(self, hidden_size: int, num_heads: int, *, qk_norm: bool, null_key: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.null_key = null_key
        self.qk = nn.Linear(hidden_size, 2 * hidden_size)
        self.v = nn.Linear(hidden_size, hidden_size)
        self.q_norm, self.k_norm = _head_norms(hidden_size // num_heads, qk_norm)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, *, motion_free: bool | Tensor) -> Tensor:
        """(B, F, N, D) -> (B, F, N, D).

        motion_free: of all rows, or (B,) bool. The mask is then the identity and excludes the null key: its
        weights are exactly 1 and 0, so that values and output projection are all there is to compute.
        """
        values = self.v(x)
        if motion_free is True:
            return self.out(values)
        positions = frame_positions(x.shape[1], x.shape[-1], device=x.device)[:, None]  # (F, 1, D)
        qk = self.qk(x + positions.to(x.dtype))
        q, k = rearrange(qk, "b f n (two k d) -> two b n k f d", two=2, k=self.num_heads)
        v = rearrange(values, "b f n (k d) -> b n k f d", k=self.num_heads)
        attended = self._attend(_normed(self.q_norm, q), _normed(self.k_norm, k), v)
        attended = rearrange(attended, "b n k f d -> b f n (k d)")
        if isinstance(motion_free, Tensor):
            attended = torch.where(motion_free[:, None, None, None], values, attended)
        return self.out(attended)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, K, F, d), three times -> one. Written out: fused kernels are made for longer rows."""
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, N, K, F, F)
        if self.null_key:
            logits = F.pad(logits, (0, 1))  # a key of zeros: a logit of 0
        weights = logits.softmax(dim=-1, dtype=_at_least_float32(logits.dtype)).to(v.dtype)
        return weights[..., : v.shape[-2]] @ v


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
