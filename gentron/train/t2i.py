"""`gentron train t2i`: captioned pictures as a task of the loop, and the run from recipe to model folder."""

# B samples of a micro-batch, C latent channels, H W latent size

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from gentron.autoencoder import Autoencoder
from gentron.checkpoint import load_model, read_config
from gentron.data import DataSource
from gentron.dit import starting_from_dit
from gentron.errors import UserError
from gentron.model import GenTron, GenTronConfig
from gentron.model_card import provenance
from gentron.text import PromptEmbeds, TextEncoders
from gentron.train.loss import draw, loss_weights, noisy_and_target, squared_error
from gentron.train.parts import FileOptions, load_frozen_parts, picture_source, schedule_of, train_and_export
from gentron.train.prefetch import trim_padding
from gentron.train.recipe import TrainRecipe
from gentron.train.run_folder import check_run_folder
from gentron.train.task import Prepared, Task
from gentron.train.validation import (
    draw_samples,
    losses_row,
    middle_timesteps,
    sample_set,
    tiled,
    validation_losses,
    validation_set,
)


class PictureBatch(NamedTuple):
    """latents, noise: (B, C, H, W).   timesteps: (B,)."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt_embeds: PromptEmbeds


def text_to_image(
    recipe: TrainRecipe,
    *,
    source: DataSource,
    text_encoders: TextEncoders,
    autoencoder: Autoencoder,
    seed: int,
    device: torch.device,
    build_model: Callable[[GenTronConfig], GenTron] = GenTron,
) -> Task[GenTron, PictureBatch]:
    """The first task: one picture a sample."""
    schedule = schedule_of(recipe)
    weights = loss_weights(recipe, schedule).to(device)
    held_back = source.held_back()
    fixed = validation_set(held_back, text_encoders, middle_timesteps(schedule), seed=seed, device=device)
    latent_shape = tuple(held_back.latents.shape[1:])
    sampled = sample_set(text_encoders, latent_shape, recipe, seed=seed, device=device)

    def prepare(global_indices: range) -> Prepared[PictureBatch]:
        batch = source.batch(global_indices)
        drawn = draw(
            recipe,
            seed=seed,
            global_indices=global_indices,
            shape=latent_shape,
            num_timesteps=schedule.num_train_timesteps,
        )
        dropped = zip(drawn.drops_caption, batch.captions, strict=True)
        prompt_embeds = text_encoders.encode(["" if drops else caption for drops, caption in dropped])
        prompt_embeds = prompt_embeds.to(device)
        return Prepared(
            PictureBatch(
                batch.latents.to(device),
                drawn.noise.to(device),
                drawn.timesteps.to(device),
                trim_padding(prompt_embeds) if device.type == "cpu" else prompt_embeds,
            ),
            unreadable=batch.unreadable,
        )

    def loss(model: GenTron, batch: PictureBatch) -> Tensor:
        latents, noise, timesteps, prompt_embeds = batch
        noisy_latents, wanted = noisy_and_target(recipe, schedule, latents, noise, timesteps)
        model_output = model(noisy_latents, timesteps, prompt_embeds)
        errors = squared_error(model_output, wanted) * weights[timesteps]
        return errors.sum() / recipe.global_batch_size

    def validate(model: GenTron) -> dict[str, dict[str, float]]:
        return {"validation": losses_row(validation_losses(model, fixed, schedule, recipe))}

    def sample(model: GenTron) -> Image.Image:
        assert sampled is not None
        return tiled(draw_samples(model, sampled, autoencoder, schedule, recipe), 4)

    return Task(
        data=source.name,
        build_model=lambda: build_model(recipe.model),
        prepare=prepare,
        loss=loss,
        validate=validate,
        sample=None if sampled is None else sample,
    )


def starting_from(folder: Path) -> Callable[[GenTronConfig], GenTron]:
    """Build models with the weights of a checkpoint folder, as the second stage does with the first's."""
    if from_dit := starting_from_dit(folder):
        return from_dit
    stored = read_config(folder).model

    def build(config: GenTronConfig) -> GenTron:
        if stored != config:
            raise UserError(f"{folder} holds another model than the recipe's: {stored} and {config}")
        return load_model(folder, config, dtype=torch.float32).requires_grad_(True)

    return build


def run(
    recipe: TrainRecipe,
    *,
    data: str,
    out: Path,
    seed: int,
    device: torch.device,
    resume: bool,
    max_images: int | None,
    initial: Path | None = None,
    cache_dir: Path,
    console: Console,
    files: FileOptions = FileOptions(),  # noqa: B008  # frozen
) -> Path:
    """Train and write `out/model`, a checkpoint folder with the averaged weights in fp16."""
    build_model = GenTron if initial is None else starting_from(initial)
    origin = provenance(initial)
    check_run_folder(out, resume=resume)  # before anything that takes time
    autoencoder, text_encoders = load_frozen_parts(recipe, device)
    source = picture_source(
        data, recipe, autoencoder, seed=seed, cache_dir=cache_dir, console=console, files=files
    )
    task = text_to_image(
        recipe,
        source=source,
        text_encoders=text_encoders,
        autoencoder=autoencoder,
        seed=seed,
        device=device,
        build_model=build_model,
    )
    return train_and_export(
        recipe,
        task,
        out=out,
        seed=seed,
        device=device,
        resume=resume,
        stop_at=max_images,
        initial=initial,
        origin=origin,
        console=console,
    )
