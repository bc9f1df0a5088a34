# B batch, C latent channels, H W latent size

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gentron.autoencoder import Autoencoder, random_autoencoder
from gentron.errors import UserError


@pytest.fixture(scope="module")
def autoencoder(tiny_checkpoint: Path) -> Autoencoder:
    return Autoencoder.from_pretrained(tiny_checkpoint / "autoencoder")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_shapes_go_through_the_downscale(autoencoder: Autoencoder, images: torch.Tensor) -> None:
    assert (autoencoder.downscale, autoencoder.latent_channels) == (4, 4)
    latents = autoencoder.encode(images)
    assert latents.shape == (2, 4, 8, 12)
    assert autoencoder.decode(latents).shape == images.shape


@torch.no_grad()
def test_scale_per_channel_comes_from_the_config(autoencoder: Autoencoder, images: torch.Tensor) -> None:
    raw = autoencoder.vae.encode(images).latent_dist.mode()
    mean = torch.tensor([0.1, -0.2, 0.0, 0.3]).view(1, 4, 1, 1)
    std = torch.tensor([1.0, 0.5, 2.0, 1.5]).view(1, 4, 1, 1)
    latents = autoencoder.encode(images)
    torch.testing.assert_close(latents, (raw - mean) / std)
    torch.testing.assert_close(autoencoder.decode(latents), autoencoder.vae.decode(raw).sample)


@torch.no_grad()
def test_without_statistics_the_scaling_factor_is_used() -> None:
    autoencoder = random_autoencoder(downscale=1)
    autoencoder.vae.register_to_config(shift_factor=0.5)
    autoencoder = Autoencoder(autoencoder.vae)
    images = torch.zeros(1, 3, 8, 8)
    raw = autoencoder.vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(autoencoder.encode(images), (raw - 0.5) * 0.18215)


@torch.no_grad()
def test_sampling_the_posterior_follows_the_generator(autoencoder: Autoencoder, images: torch.Tensor) -> None:
    def draw(seed: int) -> torch.Tensor:
        return autoencoder.encode(images, sample=True, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(autoencoder.encode(images), autoencoder.encode(images))


@torch.no_grad()
def test_half_precision_weights_decode_float32_latents(tiny_checkpoint: Path) -> None:
    autoencoder = Autoencoder.from_pretrained(tiny_checkpoint / "autoencoder", dtype=torch.bfloat16)
    assert autoencoder.decode(torch.zeros(1, 4, 8, 8)).isfinite().all()


def test_it_is_frozen(autoencoder: Autoencoder) -> None:
    assert not autoencoder.training
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())


def test_random_autoencoder_is_stable_diffusions() -> None:
    with torch.device("meta"):
        autoencoder = random_autoencoder(device="meta")
    assert sum(p.numel() for p in autoencoder.parameters()) == 83_653_863
    assert (autoencoder.downscale, autoencoder.latent_channels) == (8, 4)
    with pytest.raises(ValueError, match="downscale"):
        random_autoencoder(downscale=3)


def test_missing_damaged_or_incomplete_folders_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Autoencoder.from_pretrained(tmp_path / "none")
    folder = tmp_path / "autoencoder"
    shutil.copytree(tiny_checkpoint / "autoencoder", folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights"):
        Autoencoder.from_pretrained(folder)
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot load the autoencoder"):
        Autoencoder.from_pretrained(folder)
