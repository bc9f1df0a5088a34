"""Images <-> latents through diffusers' AutoencoderKL; the latents' scale lives here and nowhere else."""

# B batch, C latent channels, H W latent size, f downscale (8 in Stable Diffusion's autoencoder)

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gentron.errors import UserError
from gentron.text import first_line, quiet_loading, require_folder
from gentron.torchvision_ops import prepare_torchvision

# AutoencoderKL of Stable Diffusion 1.x: 83.7M parameters, f = 8, 4 channels, scale 1 / std of its latents.
SD_AUTOENCODER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
LEVELS = ("down_block_types", "up_block_types", "block_out_channels")
"""Its fields with one entry per resolution."""


class Autoencoder(nn.Module):
    """AutoencoderKL with latents of about unit variance.

    The scale is (x - latents_mean) / latents_std per channel where the config has them (the autoencoders of
    `gentron train autoencoder`), else (x - shift_factor) * scaling_factor as diffusers' pipelines apply it.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        mean, std = _scale(vae.config)
        device = next(vae.parameters()).device
        self.register_buffer("latents_mean", mean.to(device), persistent=False)
        self.register_buffer("latents_std", std.to(device), persistent=False)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Autoencoder:
        """Load from a diffusers folder or hub id, frozen and in eval mode.

        Raises UserError when nothing is there or the weights do not fit the config.
        """
        prepare_torchvision()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        require_folder(source, what="autoencoder")
        try:
            # accelerate, which low_cpu_mem_usage needs, is not a dependency
            with quiet_loading():
                loaded: Any = AutoencoderKL.from_pretrained(
                    source, torch_dtype=dtype, low_cpu_mem_usage=False, output_loading_info=True
                )
        except Exception as error:  # diffusers raises many kinds for a bad folder; all mean "not loadable"
            raise UserError(
                f"cannot load the autoencoder from '{source}': {first_line(error)}; give a diffusers"
                " AutoencoderKL folder, or a hub id this machine can reach"
            ) from error
        vae, report = loaded
        missing = list(report["missing_keys"])
        if missing:
            raise UserError(f"the autoencoder in '{source}' lacks {len(missing)} weights, first {missing[0]}")
        return cls(vae).to(device).eval().requires_grad_(False)

    @property
    def downscale(self) -> int:
        """f, pixels per latent along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_channels(self) -> int:
        """C."""
        return self.vae.config.latent_channels

    @property
    def dtype(self) -> torch.dtype:
        """The dtype encode and decode compute in."""
        return next(self.vae.parameters()).dtype

    def encode(
        self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """images (B, 3, fH, fW) in [-1, 1] -> latents (B, C, H, W): the posterior's mean, or a draw."""
        posterior = self.vae.encode(images.to(self.dtype)).latent_dist
        latents = posterior.sample(generator) if sample else posterior.mode()
        return (latents - self.latents_mean) / self.latents_std

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, C, H, W) at unit variance -> images (B, 3, fH, fW), about [-1, 1], not clamped."""
        scaled = latents * self.latents_std + self.latents_mean
        return self.vae.decode(scaled.to(self.dtype)).sample


def _scale(config: Any) -> tuple[Tensor, Tensor]:
    """Mean and std of the raw latents, each (1, C or 1, 1, 1), from the autoencoder's own config."""
    if config.latents_mean is not None and config.latents_std is not None:
        mean, std = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        assert mean.shape == std.shape == (config.latent_channels,), "latents_mean and _std: one per channel"
    else:
        mean = torch.tensor([config.shift_factor or 0.0])
        std = torch.tensor([1.0 / config.scaling_factor])
    return mean.float().view(1, -1, 1, 1), std.float().view(1, -1, 1, 1)


def random_autoencoder(
    *,
    latent_channels: int = 4,
    downscale: int = 8,
    device: torch.device | str = "cpu",
) -> Autoencoder:
    """An untrained autoencoder: Stable Diffusion's architecture, cut to the levels that `downscale` needs."""
    prepare_torchvision()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = downscale.bit_length()
    if not 1 <= levels <= 4 or 2 ** (levels - 1) != downscale:
        raise ValueError(f"downscale must be 1, 2, 4 or 8, got {downscale}")
    sizes: dict[str, Any] = SD_AUTOENCODER | {name: SD_AUTOENCODER[name][:levels] for name in LEVELS}
    sizes["latent_channels"] = latent_channels
    vae: Any = AutoencoderKL(**sizes)
    return Autoencoder(vae).to(device).eval().requires_grad_(False)
