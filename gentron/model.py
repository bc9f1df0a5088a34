"""GenTron, the diffusion transformer for images and video of arXiv 2312.04557, and its parameter report.

Where the paper is silent, and what is done here:
- no learned sigma: the final layer has p*p*C outputs and the loss is plain epsilon MSE;
- no LayerNorm has affine weights: before self-attention, MLP and final layer adaLN supplies them, and
  before cross-attention the query projection that follows absorbs them;
- 16 heads in XL/2 and G/2; fixed 2-D sin-cos positions (`layers.position_embedding`);
- pooled text = MLP(pooled_width -> D -> D) of [CLIP pooled + Linear(E_t5 -> pooled_width)(masked mean of
  the T5 tokens)], and one linear token adapter per encoder at the encoder's own width.
With these, XL/2 and G/2 have 927.7M and 3081.5M parameters where the paper says 930.0M and 3083.8M.

Inside the blocks a clip is one row of F N tokens, so that cross-attention, MLP and modulation see the text
and its keys and values once a clip; self-attention folds it to frames, temporal attention to positions.
An image is a clip of one frame.
"""

# B batch, C latent channels, H W latent size, p patch size, N image tokens, L prompt tokens, E text width,
# D hidden size, S number of sampling timesteps, F frames of a clip

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from gentron.checkpointing import CheckpointPolicy, run_block
from gentron.layers import (
    MLP,
    TIMESTEP_FEATURES,
    CrossAttention,
    KeysValues,
    Modulation,
    PromptTokens,
    SelfAttention,
    TempSelfAttn,
    VectorMLP,
    gated_sum,
    layer_norm,
    linear_without_autocast,
    modulate,
    patchify,
    position_embedding,
    timestep_features,
    unpatchify,
)
from gentron.text import PromptEmbeds

EncoderName = Literal["clip", "t5"]
Denoise = Callable[[Tensor, Tensor], Tensor]

MAX_FRAMES_RATIO = 4
"""How many times the frames of its training a video model takes: further out it has no position to go by."""

MAX_ADALN_TABLE_BYTES = 2 << 30
"""A larger table is not kept. The table saves reading the adaLN weights (24-26 % of all) at each step,
which is what counts at a small batch; at the batch that fills this limit the image tokens dominate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalConfig:
    """What makes a model a video model: temporal attention in every block."""

    num_frames: int
    """Frames of a clip in training; up to MAX_FRAMES_RATIO times as many can be drawn."""
    fps: float
    """Frames a second in training."""
    null_key: bool = False
    """A key and value of zeros in temporal attention (`layers.TempSelfAttn`); no parameters. Ours."""

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise ValueError(f"num_frames must be >= 2, got {self.num_frames}")
        _positive("fps", self.fps)

    @property
    def max_frames(self) -> int:
        return MAX_FRAMES_RATIO * self.num_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class GenTronConfig:
    hidden_size: int
    depth: int
    num_heads: int
    patch_size: int = 2
    mlp_ratio: float = 4.0
    in_channels: int = 4
    sample_size: int = 32
    """Latent side whose token grid has positions 0, 1, 2, ...; other sizes are laid over that grid."""
    clip_width: int | None = 768
    t5_width: int | None = 4096
    """Widths of the encoders' tokens; None leaves the encoder out. With both, the blocks interleave."""
    pooled_width: int = 768
    """Width of CLIP's pooled vector; the mean of the T5 tokens is projected to it."""
    conditioning: Literal["cross_attention", "adaln"] = "cross_attention"
    """"adaln": the ablation's DiT block, where the text enters through the pooled vector alone."""
    qk_norm: bool = False
    temporal: TemporalConfig | None = None
    """None: an image model."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "depth", "num_heads", "patch_size", "in_channels", "sample_size"):
            _positive(name, getattr(self, name))
        for name in ("clip_width", "t5_width", "pooled_width", "mlp_ratio"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(
                f"hidden_size must be a multiple of num_heads ({self.num_heads}) and of 4, "
                f"got {self.hidden_size}"
            )
        if self.sample_size % self.patch_size:
            raise ValueError(
                f"sample_size must be a multiple of patch_size ({self.patch_size}), got {self.sample_size}"
            )
        if self.conditioning not in ("cross_attention", "adaln"):
            raise ValueError(f"conditioning must be 'cross_attention' or 'adaln', got {self.conditioning!r}")
        if not self.encoders:
            raise ValueError("clip_width and t5_width are both None: the model needs one text encoder")

    @property
    def encoders(self) -> tuple[EncoderName, ...]:
        """The text encoders in use, in the order in which the blocks take turns."""
        widths = {"clip": self.clip_width, "t5": self.t5_width}
        return tuple(name for name in ("clip", "t5") if widths[name] is not None)

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    def width_of(self, encoder: EncoderName) -> int:
        width = self.clip_width if encoder == "clip" else self.t5_width
        assert width is not None, f"{encoder} is not in use"
        return width

    def encoder_of_block(self, index: int) -> EncoderName | None:
        """The encoder whose tokens block `index` attends to: CLIP, T5, CLIP, ...; None without any."""
        if self.conditioning == "adaln":
            return None
        return self.encoders[index % len(self.encoders)]


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


class Frames(NamedTuple):
    """How the F N tokens of a row make a clip."""

    num_frames: int = 1
    motion_free: bool | Tensor = True
    """Of all rows, or (B,) bool: each frame attends to itself alone."""


class GenTronBlock(nn.Module):
    """adaLN-Zero self-attention, plain cross-attention to one encoder's tokens, adaLN-Zero MLP.

    In a video model plain temporal attention comes before the MLP.
    """

    def __init__(self, config: GenTronConfig, *, encoder: EncoderName | None) -> None:
        super().__init__()
        self.encoder = encoder
        width, heads = config.hidden_size, config.num_heads
        self.modulation = Modulation(width, 6)
        self.self_attention = SelfAttention(width, heads, qk_norm=config.qk_norm)
        self.cross_attention: CrossAttention | None = None
        if encoder is not None:
            text_width = config.width_of(encoder)
            self.cross_attention = CrossAttention(width, text_width, heads, qk_norm=config.qk_norm)
        self.temporal_attention: TempSelfAttn | None = None
        if config.temporal is not None:
            self.temporal_attention = TempSelfAttn(
                width, heads, qk_norm=config.qk_norm, null_key=config.temporal.null_key
            )
        self.mlp = MLP(width, config.mlp_size)

    def forward(
        self,
        x: Tensor,
        conditioning: Tensor,
        prompt_tokens: PromptTokens | None,
        frames: Frames = Frames(),  # noqa: B008  a constant
    ) -> Tensor:
        """x: (B, F N, D). conditioning: (B, D) or (B, F, D). prompt_tokens: of this block's encoder."""
        return self.denoise(x, self.modulation(conditioning), self.keys_values(prompt_tokens), frames)

    def keys_values(self, prompt_tokens: PromptTokens | None) -> KeysValues | None:
        if self.cross_attention is None:
            return None
        assert prompt_tokens is not None, f"a {self.encoder} block needs {self.encoder} tokens"
        return self.cross_attention.keys_values(prompt_tokens)

    def denoise(
        self,
        x: Tensor,
        modulation: Tensor,
        text: KeysValues | None,
        frames: Frames = Frames(),  # noqa: B008  a constant
    ) -> Tensor:
        """What depends on the image or clip.

        x: (B, F N, D). modulation: (B, 6, D), or (B, F, 6, D) for one timestep a frame.
        text: keys and values.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = _wide(modulation).unbind(-2)  # 6 x (B, D) or (B, F, D)
        x = gated_sum(x, gate1, self._within_frames(modulate(x, shift1, scale1), frames))
        if self.cross_attention is not None:
            assert text is not None, "cross-attention needs keys and values"
            x = x + self.cross_attention(layer_norm(x).to(x.dtype), text).to(x.dtype)
        if self.temporal_attention is not None:
            clips = layer_norm(x).to(x.dtype).unflatten(1, (frames.num_frames, -1))  # (B, F, N, D)
            update = self.temporal_attention(clips, motion_free=frames.motion_free)
            x = x + update.flatten(1, 2).to(x.dtype)
        return gated_sum(x, gate2, self.mlp(modulate(x, shift2, scale2)))

    def _within_frames(self, x: Tensor, frames: Frames) -> Tensor:
        """Self-attention of each frame, (B, F N, D) -> (B, F N, D)."""
        folded = x.unflatten(1, (frames.num_frames, -1)).flatten(0, 1)  # (B F, N, D)
        return self.self_attention(folded).view_as(x)


class FinalLayer(nn.Module):
    def __init__(self, config: GenTronConfig) -> None:
        super().__init__()
        self.modulation = Modulation(config.hidden_size, 2)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.in_channels)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(B, F N, D), (B, D) or (B, F, D) -> (B, F N, p*p*C)."""
        return self.denoise(x, self.modulation(conditioning))

    def denoise(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = _wide(modulation).unbind(-2)
        return self.linear(modulate(x, shift, scale))


def _wide(modulation: Tensor) -> Tensor:
    return modulation.to(torch.promote_types(modulation.dtype, torch.float32))


class GenTron(nn.Module):
    """Predicts the noise (or v) in latents from a timestep and a prompt."""

    def __init__(self, config: GenTronConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing: CheckpointPolicy = "none"
        width = config.hidden_size
        self.patch_embed = nn.Linear(config.patch_size**2 * config.in_channels, width)
        self.timestep_embed = VectorMLP(TIMESTEP_FEATURES, width)
        self.pooled_embed = VectorMLP(config.pooled_width, width)
        self.t5_pooled = nn.Linear(config.t5_width, config.pooled_width) if config.t5_width else None
        used = config.encoders if config.conditioning == "cross_attention" else ()
        self.token_adapters = nn.ModuleDict(
            {name: nn.Linear(config.width_of(name), config.width_of(name)) for name in used}
        )
        self.blocks = nn.ModuleList(
            GenTronBlock(config, encoder=config.encoder_of_block(index)) for index in range(config.depth)
        )
        self.final_layer = FinalLayer(config)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """DiT's init: Xavier-uniform matrices, zero biases, normal(0.02) for the two conditioning MLPs.

        Zero: adaLN, the final layer, and the output projections of cross- and temporal attention, so that
        at the start every block is the identity and the model's output is zero. Call it again after
        `to_empty` of a model built on the meta device, which saves a large model from being initialised
        twice.
        """
        zero: list[nn.Linear] = [self.final_layer.modulation.linear, self.final_layer.linear]
        for block in self._blocks():
            zero.append(block.modulation.linear)
            if block.cross_attention is not None:
                zero.append(block.cross_attention.out)
            if block.temporal_attention is not None:
                zero.append(block.temporal_attention.out)
        normal = {
            id(layer) for mlp in (self.timestep_embed, self.pooled_embed) for layer in (mlp.fc1, mlp.fc2)
        }
        zeroed = {id(layer) for layer in zero}
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if id(module) in zeroed:
                    nn.init.zeros_(module.weight)
                elif id(module) in normal:
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)

    @classmethod
    def from_t2i(cls, state: Mapping[str, Tensor], config: GenTronConfig) -> GenTron:
        """The video model of `config` with an image model's weights, which it repeats frame by frame.

        state: a state dict that lacks exactly the temporal weights; ValueError names the first tensor that
        is not as it must be. (For a checkpoint folder: `checkpoint.load_t2i`.)
        """
        if config.temporal is None:
            raise ValueError("from_t2i makes a video model: its config must have `temporal`")
        model = cls(config)
        expected = {name: tensor for name, tensor in model.state_dict().items() if not is_temporal(name)}
        for name in sorted(expected.keys() ^ state.keys()):
            problem = "lacks" if name in expected else "has the unknown"
            raise ValueError(f"the image model does not fit: it {problem} tensor {name}")
        for name, tensor in expected.items():
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"the image model does not fit: {name} must be {tuple(tensor.shape)},"
                    f" got {tuple(state[name].shape)}"
                )
        model.load_state_dict(state, strict=False)
        return model

    def forward(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        prompt_embeds: PromptEmbeds,
        *,
        motion_free: bool | Tensor | None = None,
    ) -> Tensor:
        """The model output for a batch of noisy latents, in their shape.

        noisy_latents: (B, C, H, W), or clips (B, F, C, H, W) for a video model, in the autoencoder's
        unit-variance scale; H and W multiples of p.
        timesteps: (B,), or (B, F) one a frame, int64 or float in [0, num_train_timesteps).
        prompt_embeds: of the same batch size; what the config's encoders need must be there.
        motion_free: video models alone; for all rows, or (B,) bool, best on the CPU, where it can be read.
        """
        self._check_latents(noisy_latents, prompt_embeds.batch_size)
        frames = self._frames(noisy_latents, motion_free)
        self._check_timesteps(timesteps, noisy_latents)
        conditioning = self._conditioning(timesteps, self.pooled_embedding(prompt_embeds))
        prompt_tokens = self.prompt_tokens(prompt_embeds)
        x = self._embed(noisy_latents)  # (B, F N, D)
        for block in self._blocks():
            tokens = prompt_tokens[block.encoder] if block.encoder else None
            x = run_block(block, x, conditioning, tokens, frames, policy=self.gradient_checkpointing)
        return self._unembed(self.final_layer(x, conditioning), noisy_latents)

    def conditioned(
        self,
        prompt_embeds: PromptEmbeds,
        *,
        timesteps: Tensor | None = None,
        motion_free: bool | Tensor | None = None,
        rows: Sequence[int] | None = None,
    ) -> Denoise:
        """A denoiser for one batch of prompts: (latents, timestep (), (B,) or (B, F)) -> model output.

        Equal to `forward` to float rounding; latents and motion_free as there. Text keys and values are
        computed here, once. With `timesteps` (S,), so is the adaLN modulation of every block at each of
        them, unless the table would exceed MAX_ADALN_TABLE_BYTES; a timestep that is not among them is
        computed when it comes.
        rows: the prompt of each of the B latents, so that several may share one; None: one each, in order.
        """
        blocks = self._blocks()
        prompt_tokens = self.prompt_tokens(prompt_embeds)
        texts = [block.keys_values(prompt_tokens.get(block.encoder)) for block in blocks]
        pooled = self.pooled_embedding(prompt_embeds)
        table = None if timesteps is None else self._adaln_table(timesteps, pooled)
        if rows is not None:
            index = torch.tensor(rows, device=pooled.device)
            texts = [text and KeysValues(*(tensor[index] for tensor in text)) for text in texts]
            pooled = pooled[index]
            table = table and table.select(index)
        batch_size = len(pooled)  # pooled: (B, D)

        def denoise(latents: Tensor, timestep: Tensor) -> Tensor:
            self._check_latents(latents, batch_size)
            frames = self._frames(latents, motion_free)
            modulations = table.get(timestep) if table is not None else None
            if modulations is None:
                timestep = timestep.expand(batch_size) if timestep.ndim == 0 else timestep
                modulations = self._modulations(self._conditioning(timestep.to(pooled.device), pooled))
            x = self._embed(latents)
            for index, (block, text) in enumerate(zip(blocks, texts, strict=True)):
                x = block.denoise(x, modulations.blocks[..., index, :, :], text, frames)
            return self._unembed(self.final_layer.denoise(x, modulations.final), latents)

        return denoise

    def timestep_embedding(self, timesteps: Tensor) -> Tensor:
        """(...) -> (..., D)."""
        return self.timestep_embed(timestep_features(timesteps))

    def _conditioning(self, timesteps: Tensor, pooled: Tensor) -> Tensor:
        """(B,), (B, D) -> (B, D); one timestep a frame: (B, F), (B, D) -> (B, F, D)."""
        return self.timestep_embedding(timesteps) + (pooled if timesteps.ndim == 1 else pooled[:, None])

    def pooled_embedding(self, prompt_embeds: PromptEmbeds) -> Tensor:
        """The text's share of the conditioning vector, (B, D)."""
        pooled: Tensor | None = None
        if self.config.clip_width is not None:
            pooled = _given(
                prompt_embeds.pooled_prompt_embeds, "pooled_prompt_embeds", self.config.pooled_width
            )
        if self.t5_pooled is not None:
            tokens, mask = self._encoder_output(prompt_embeds, "t5")
            counts = mask.sum(dim=1, keepdim=True).clamp(min=1)  # a row without real tokens: mean zero
            mean = tokens.sum(dim=1) / counts  # (B, E)
            projected = linear_without_autocast(self.t5_pooled, mean)
            pooled = projected if pooled is None else pooled.to(projected.dtype) + projected
        assert pooled is not None, "a config has at least one encoder"
        return self.pooled_embed(pooled)

    def prompt_tokens(self, prompt_embeds: PromptEmbeds) -> dict[str | None, PromptTokens]:
        """Adapted tokens and attention mask of each encoder that blocks attend to.

        Tokens outside the mask are set to zero before the adapter, so that their content can reach
        nothing. A row without any real token then holds equal tokens (the adapter's bias); attending to
        all of them is one null token, and no softmax runs over an empty set.
        """
        adapted: dict[str | None, PromptTokens] = {}
        for name, adapter in self.token_adapters.items():
            assert isinstance(adapter, nn.Linear)
            tokens, mask = self._encoder_output(prompt_embeds, "clip" if name == "clip" else "t5")
            attended = mask | ~mask.any(dim=1, keepdim=True)
            adapted[name] = PromptTokens(adapter(tokens.to(adapter.weight.dtype)), attended[:, None, None])
        return adapted

    def _encoder_output(self, prompt_embeds: PromptEmbeds, encoder: EncoderName) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, E), zero where masked, and their mask (B, L)."""
        if encoder == "clip":
            tokens, mask = prompt_embeds.clip_prompt_embeds, prompt_embeds.clip_prompt_mask
        else:
            tokens, mask = prompt_embeds.t5_prompt_embeds, prompt_embeds.t5_prompt_mask
        tokens = _given(tokens, f"{encoder}_prompt_embeds", self.config.width_of(encoder))
        assert mask is not None and mask.dtype == torch.bool, f"{encoder}_prompt_mask must be bool"
        return tokens.masked_fill(~mask[..., None], 0), mask

    def _embed(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) or (B, F, C, H, W) -> (B, F N, D)."""
        patch, config = self.config.patch_size, self.config
        images = latents if latents.ndim == 4 else latents.flatten(0, 1)  # (B F, C, H, W)
        x = self.patch_embed(patchify(images.to(self.patch_embed.weight.dtype), patch))  # (B F, N, D)
        positions = position_embedding(
            latents.shape[-2] // patch,
            latents.shape[-1] // patch,
            config.hidden_size,
            config.sample_size // patch,
            device=latents.device,
        )
        return (x + positions.to(self.patch_embed.weight.dtype)).reshape(len(latents), -1, config.hidden_size)

    def _unembed(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """(B, F N, p*p*C) -> the shape of latents."""
        patch = self.config.patch_size
        folded = tokens if latents.ndim == 4 else tokens.unflatten(1, (latents.shape[1], -1)).flatten(0, 1)
        output = unpatchify(folded, patch, grid_height=latents.shape[-2] // patch)
        return output.view(latents.shape).to(latents.dtype)

    def _modulations(self, conditioning: Tensor) -> Modulations:
        width, depth = self.config.hidden_size, self.config.depth
        vectors = conditioning.new_empty(*conditioning.shape[:-1], depth, 6, width)  # filled in place: a
        for index, block in enumerate(self._blocks()):  # stack of large tables would need them twice
            vectors[..., index, :, :] = block.modulation(conditioning)
        return Modulations(vectors, self.final_layer.modulation(conditioning))

    def _adaln_table(self, timesteps: Tensor, pooled: Tensor) -> AdaLNTable | None:
        """The modulations at each of the timesteps (S,) for pooled text (B, D); None if over the limit."""
        num_vectors = 6 * self.config.depth + 2
        if len(timesteps) * pooled.numel() * num_vectors * pooled.element_size() > MAX_ADALN_TABLE_BYTES:
            return None
        embedded = self.timestep_embedding(timesteps.to(pooled.device))  # (S, D)
        modulations = self._modulations(embedded[:, None] + pooled)  # (S, B, depth, 6, D)
        return AdaLNTable([float(t) for t in timesteps.tolist()], modulations)

    def _blocks(self) -> list[GenTronBlock]:
        return cast(list[GenTronBlock], list(self.blocks))

    def _check_latents(self, latents: Tensor, num_prompts: int) -> None:
        patch, channels, temporal = self.config.patch_size, self.config.in_channels, self.config.temporal
        if (
            latents.ndim not in ((4,) if temporal is None else (4, 5))
            or latents.shape[-3] != channels
            or latents.shape[-2] % patch
            or latents.shape[-1] % patch
        ):
            clips = "" if temporal is None else f" or (B, F, {channels}, H, W)"
            raise ValueError(
                f"latents must be (B, {channels}, H, W){clips} with H and W multiples of {patch}, "
                f"got {tuple(latents.shape)}"
            )
        if len(latents) != num_prompts:
            raise ValueError(f"{len(latents)} latents but {num_prompts} prompts")
        if temporal is not None and latents.ndim == 5:
            check_num_frames(temporal, latents.shape[1])

    def _check_timesteps(self, timesteps: Tensor, latents: Tensor) -> None:
        expected = [latents.shape[:1]] if latents.ndim == 4 else [latents.shape[:1], latents.shape[:2]]
        if timesteps.shape not in expected:
            shapes = " or ".join(str(tuple(shape)) for shape in expected)
            raise ValueError(f"timesteps must be {shapes}, got {tuple(timesteps.shape)}")

    def _frames(self, latents: Tensor, motion_free: bool | Tensor | None) -> Frames:
        """One frame is motion-free, whatever was asked: there is nothing else to attend to."""
        if self.config.temporal is None and motion_free is not None:
            raise ValueError("motion_free belongs to a video model; this one has no temporal attention")
        if latents.ndim == 4 or latents.shape[1] == 1:
            return Frames()
        if not isinstance(motion_free, Tensor):
            return Frames(latents.shape[1], bool(motion_free))
        if motion_free.shape != latents.shape[:1] or motion_free.dtype != torch.bool:
            raise ValueError(
                f"motion_free must be a bool or ({len(latents)},) bool, got {tuple(motion_free.shape)} of"
                f" {motion_free.dtype}"
            )
        if motion_free.device.type == "cpu":  # elsewhere reading it would wait for the device
            if motion_free.all() or not motion_free.any():
                return Frames(latents.shape[1], bool(motion_free[0]))
            motion_free = motion_free.to(latents.device)
        return Frames(latents.shape[1], motion_free)


def is_temporal(name: str) -> bool:
    """Whether a tensor of a state dict is one that only video models have."""
    return ".temporal_attention." in name


def check_num_frames(temporal: TemporalConfig, num_frames: int) -> None:
    """ValueError unless a model of this training can draw clips of so many frames."""
    if not 1 <= num_frames <= temporal.max_frames:
        raise ValueError(
            f"num_frames must be in [1, {temporal.max_frames}] ({MAX_FRAMES_RATIO} times the"
            f" {temporal.num_frames} of the training), got {num_frames}"
        )


class Modulations(NamedTuple):
    """adaLN vectors. blocks: (..., B, depth, 6, D). final: (..., B, 2, D). B may be B, F."""

    blocks: Tensor
    final: Tensor


class AdaLNTable:
    """Modulations of one batch of prompts at known timesteps, found by the timestep's exact value."""

    def __init__(self, timesteps: Sequence[float], modulations: Modulations) -> None:
        self._index = {timestep: index for index, timestep in enumerate(timesteps)}
        self._modulations = modulations

    def select(self, rows: Tensor) -> AdaLNTable:
        """The table of the prompts `rows` (B,) int64, which may repeat."""
        chosen = Modulations(*(vectors[:, rows] for vectors in self._modulations))
        return AdaLNTable(list(self._index), chosen)

    def get(self, timestep: Tensor) -> Modulations | None:
        """timestep: (), (B,) or (B, F). None when any of its values is not in the table."""
        values = [float(value) for value in timestep.reshape(-1).tolist()]
        rows = [self._index.get(value) for value in values]
        if None in rows:
            return None
        blocks, final = self._modulations
        if len(set(rows)) == 1:
            return Modulations(blocks[rows[0]], final[rows[0]])
        index = torch.tensor(rows, device=blocks.device).view(timestep.shape)
        batch = torch.arange(len(timestep), device=blocks.device)
        batch = batch if timestep.ndim == 1 else batch[:, None]
        return Modulations(blocks[index, batch], final[index, batch])


def _given(value: Tensor | None, name: str, width: int) -> Tensor:
    if value is None:
        raise ValueError(f"the model needs {name}, which prompt_embeds does not have")
    if value.shape[-1] != width:
        raise ValueError(f"{name} must have width {width}, got {value.shape[-1]}")
    return value


class ParameterRow(NamedTuple):
    """One line of the report; the paper gives only totals, so the rest have None."""

    component: str
    parameters: int
    paper_parameters: float | None = None
    difference_percent: float | None = None


def parameter_report(config: GenTronConfig, *, paper_parameters: float | None = None) -> list[ParameterRow]:
    """Parameters per component and in total, the paper's count (`presets.paper_parameters`) beside the total.

    The model is built on the meta device: no memory, any size.
    """
    with torch.device("meta"):
        model = GenTron(config)
    blocks = cast(list[GenTronBlock], list(model.blocks))
    components: dict[str, list[nn.Module | None]] = {
        "patch embed": [model.patch_embed],
        "timestep embed": [model.timestep_embed],
        "pooled text": [model.pooled_embed, model.t5_pooled],
        "token adapters": [model.token_adapters],
        "self-attention": [block.self_attention for block in blocks],
        "cross-attention": [block.cross_attention for block in blocks],
        "temporal attention": [block.temporal_attention for block in blocks],
        "MLP": [block.mlp for block in blocks],
        "adaLN": [block.modulation for block in blocks],
        "final layer": [model.final_layer],
    }
    rows = [ParameterRow(name, sum(map(_count, modules))) for name, modules in components.items()]
    total = _count(model)
    assert total == sum(row.parameters for row in rows), "a component is missing from the report"
    difference = None if paper_parameters is None else 100 * (total - paper_parameters) / paper_parameters
    return [*rows, ParameterRow("total", total, paper_parameters, difference)]


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
