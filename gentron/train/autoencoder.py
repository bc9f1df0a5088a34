"""Train the mini autoencoder: pictures of the shapes world -> 16 x 16 x 4 latents and back."""

# B batch, H W picture size, C latent channels

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentron.atomic import atomic_file, atomic_folder
from gentron.pixels import to_unit_range
from gentron.shapes import render, sample_scene, scene_rng
from gentron.shapes.scene import BACKGROUND, CANVAS, INTERACTIONS, Scene
from gentron.torchvision_ops import prepare_torchvision
from gentron.train.steps import StepState, training_steps

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

CROP_GRID = 4  # crops start on the latent grid, as whole pictures do


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSchedule:
    """Crops first, whole pictures at the end: group norm sees other statistics on crops than on pictures."""

    crop_steps: int
    crop_size: int = 32
    crop_batch_size: int
    picture_steps: int
    picture_batch_size: int

    @property
    def total_steps(self) -> int:
        return self.crop_steps + self.picture_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderRecipe:
    """The first stage: encoder and decoder."""

    block_out_channels: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 4
    schedule: CropSchedule = CropSchedule(
        crop_steps=3_500, crop_batch_size=32, picture_steps=1_000, picture_batch_size=12
    )
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    kl_weight: float = 1e-3
    foreground_weight: float = 3.0
    seed: int = 0
    statistics_pictures: int = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderRecipe:
    """The second stage: the decoder alone, so that the latents stay what they are, mostly on small objects in
    front of large ones. They are an eighth of the scenes, and after the first stage a smear."""

    schedule: CropSchedule = CropSchedule(
        crop_steps=1_600, crop_batch_size=24, picture_steps=500, picture_batch_size=8
    )
    interaction_share: float = 0.7
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    seed: int = 1


def build(recipe: AutoencoderRecipe) -> AutoencoderKL:
    """The untrained autoencoder: diffusers' AutoencoderKL at a small size, 4 x downscaling, no attention."""
    prepare_torchvision()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(recipe.block_out_channels)
    torch.manual_seed(recipe.seed)
    blocks: dict[str, Any] = {  # diffusers annotates these as tuples of one
        "block_out_channels": recipe.block_out_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(
        **blocks,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=CANVAS,
    )


def crop(picture: np.ndarray, scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """A crop on the latent grid that holds (part of) a random object of the scene."""
    thing = scene.objects[int(rng.integers(len(scene.objects)))]
    corner = []
    for centre in (thing.y, thing.x):
        start = centre - size // 2 + int(rng.integers(-size // 4, size // 4 + 1))
        corner.append(min(max(start, 0), CANVAS - size) // CROP_GRID * CROP_GRID)
    return picture[corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def draw_scene(recipe: AutoencoderRecipe | DecoderRecipe, rng: np.random.Generator) -> Scene:
    """A training scene; in the decoder's stage an interaction for a share of the draws."""
    scene = sample_scene(rng)
    if isinstance(recipe, DecoderRecipe) and rng.random() < recipe.interaction_share:
        while scene.relation not in INTERACTIONS:
            scene = sample_scene(rng)
    return scene


def batch(recipe: AutoencoderRecipe | DecoderRecipe, step: int) -> Tensor:
    """Pictures of step `step`, (B, 3, H, W) in [-1, 1]: a function of (seed, step) alone."""
    schedule = recipe.schedule
    on_crops = step < schedule.crop_steps
    size = schedule.crop_batch_size if on_crops else schedule.picture_batch_size
    pictures = []
    for i in range(size):
        rng = scene_rng(recipe.seed, step * 1024 + i)
        scene = draw_scene(recipe, rng)
        picture = render(scene)
        pictures.append(crop(picture, scene, schedule.crop_size, rng) if on_crops else picture)
    return to_unit_range(np.stack(pictures))


def reconstruction_loss(decoded: Tensor, images: Tensor, foreground_weight: float) -> dict[str, Tensor]:
    """L1 + L2, pixels of objects and their edges weighted against the background."""
    background = torch.tensor(BACKGROUND).view(3, 1, 1) / 127.5 - 1
    is_foreground = ((images - background).abs().amax(1, keepdim=True) > 0.02).float()
    weight = 1 + (foreground_weight - 1) * F.max_pool2d(is_foreground, 3, 1, 1)
    error = decoded.float() - images
    reconstruction = (weight * (error.abs() + error.square())).mean()
    return {"loss": reconstruction, "mse": error.square().mean()}


def sample_posterior(posterior: Any, noise_seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(noise_seed)
    return posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)


def loss(vae: AutoencoderKL, images: Tensor, noise_seed: int, recipe: AutoencoderRecipe) -> dict[str, Tensor]:
    """Reconstruction, and a small KL that keeps the latents near a unit Gaussian."""
    posterior: Any = vae.encode(images).latent_dist  # type: ignore[union-attr]
    decoded = vae.decode(sample_posterior(posterior, noise_seed)).sample  # type: ignore[union-attr]
    values = reconstruction_loss(decoded, images, recipe.foreground_weight)
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {**values, "loss": values["loss"] + recipe.kl_weight * kl, "kl": kl}


@torch.no_grad()
def measure_statistics(vae: AutoencoderKL, count: int, seed: int) -> dict[str, Any]:
    """Per-channel mean and standard deviation of the latents, and the PSNR, on fresh training scenes."""
    vae.eval()
    latents, squared_error = [], 0.0
    for start in range(0, count, 50):
        images = to_unit_range(
            np.stack([render(sample_scene(scene_rng(seed + 1, i))) for i in range(start, start + 50)])
        )
        mean = vae.encode(images).latent_dist.mean  # type: ignore[union-attr]
        latents.append(mean)
        decoded = vae.decode(mean).sample.clamp(-1, 1)  # type: ignore[union-attr]
        squared_error += (decoded - images).square().mean().item() / 4 * 50 / count
    stacked = torch.cat(latents)
    return {
        "latents_mean": stacked.mean((0, 2, 3)).tolist(),
        "latents_std": stacked.std((0, 2, 3)).tolist(),
        "psnr": -10 * float(np.log10(squared_error)),
    }


def export(vae: AutoencoderKL, statistics: dict[str, Any], out: Path) -> None:
    """Write the diffusers folder in fp16, the latents' scale in its config."""
    vae.register_to_config(
        latents_mean=statistics["latents_mean"], latents_std=statistics["latents_std"], scaling_factor=1.0
    )
    with atomic_folder(out) as temporary:
        vae.half().save_pretrained(temporary)


def train(
    out: Path,
    *,
    recipe: AutoencoderRecipe | None = None,
    decoder_recipe: DecoderRecipe | None = None,
    resume: bool = True,
) -> Path:
    """Train in two stages, measure the latents' scale, write `out/autoencoder` (diffusers format)."""
    recipe, decoder_recipe = recipe or AutoencoderRecipe(), decoder_recipe or DecoderRecipe()
    vae = build(recipe).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 10-15 % faster
    train_whole(vae, recipe, out, resume=resume)
    train_decoder(vae, decoder_recipe, out / "decoder_run", recipe.foreground_weight, resume=resume)
    statistics = measure_statistics(vae, recipe.statistics_pictures, recipe.seed)
    folder = out / "autoencoder"
    export(vae, statistics, folder)
    with atomic_file(out / "statistics.json") as temporary:
        temporary.write_text(json.dumps(statistics, indent=2) + "\n", "utf-8")
    return folder


def train_whole(vae: AutoencoderKL, recipe: AutoencoderRecipe, out: Path, *, resume: bool) -> None:
    """The first stage: encoder and decoder."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    state = StepState(out, vae, optimizer, config=asdict(recipe), resume=resume)
    for step in _steps(recipe, state, "autoencoder"):
        images = batch(recipe, step)
        if step == recipe.schedule.crop_steps:
            state.note("whole pictures from here")
        state.update(loss(vae, images, recipe.seed + step, recipe), batch_size=len(images))


def train_decoder(
    vae: AutoencoderKL, recipe: DecoderRecipe, out: Path, foreground_weight: float, *, resume: bool
) -> None:
    """The second stage: what comes after the latents."""
    assert vae.post_quant_conv is not None
    parts = nn.ModuleList([vae.post_quant_conv, vae.decoder])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    state = StepState(out, parts, optimizer, config=asdict(recipe), resume=resume)
    for step in _steps(recipe, state, "decoder"):
        images = batch(recipe, step)
        with torch.no_grad():
            posterior: Any = vae.encode(images).latent_dist  # type: ignore[union-attr]
            latents = sample_posterior(posterior, recipe.seed + step)
        decoded = vae.decode(latents).sample  # type: ignore[union-attr]
        state.update(reconstruction_loss(decoded, images, foreground_weight), batch_size=len(images))


def _steps(recipe: AutoencoderRecipe | DecoderRecipe, state: StepState, title: str) -> Iterator[int]:
    return training_steps(
        state,
        total_steps=recipe.schedule.total_steps,
        warmup_steps=recipe.warmup_steps,
        learning_rate=recipe.learning_rate,
        title=title,
    )
