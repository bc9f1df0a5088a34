"""`gentron train t2i`: put the parts of a recipe together, run the loop, write the finished model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from gentron.autoencoder import Autoencoder
from gentron.bundled import bundled_part
from gentron.checkpoint import (
    CheckpointConfig,
    DiffusionConfig,
    SamplingConfig,
    TextConfig,
    load_model,
    read_config,
    save_checkpoint,
)
from gentron.config import to_dict
from gentron.data import DataSource
from gentron.data.folder import FolderSource
from gentron.data.shapes import ShapesSource
from gentron.errors import UserError
from gentron.model import GenTron, GenTronConfig
from gentron.shapes.scene import CANVAS
from gentron.text import TextEncoders
from gentron.train.loop import TrainResult, check_run_folder, schedule_of, train
from gentron.train.recipe import TrainRecipe
from gentron.train.recipes import RECIPES

BUNDLED = "bundled"
"""In a recipe: the part inside the built-in mini checkpoint."""


def resolve_recipe(name: str, *, autoencoder: Path | None, text: Path | None) -> TrainRecipe:
    """The named recipe with its frozen parts found; folders given on the command line come first.

    autoencoder: a diffusers folder, or a folder that holds one as "autoencoder".   text: holds "clip", "t5".
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    changes: dict[str, str | None] = {"autoencoder": _autoencoder_source(recipe.autoencoder, autoencoder)}
    widths = {"clip": recipe.model.clip_width, "t5": recipe.model.t5_width}
    for encoder, width in widths.items():
        changes[encoder] = _text_source(encoder, getattr(recipe, encoder), text) if width else None
    return replace(recipe, **changes)


def _bundled(part: str) -> str:
    try:
        return str(bundled_part(part))
    except UserError as error:
        command = "autoencoder" if part == "autoencoder" else "text"
        raise UserError(
            f"no bundled {part}: train one with `gentron train {command} --out runs/{command}` "
            f"and pass --{command} runs/{command} ({error})"
        ) from error


def _autoencoder_source(named: str, given: Path | None) -> str:
    if given is None:
        return _bundled("autoencoder") if named == BUNDLED else named
    for folder in (given / "autoencoder", given):
        if (folder / "config.json").is_file():
            return str(folder)
    raise UserError(f"no autoencoder in {given}: expected a diffusers AutoencoderKL folder")


def _text_source(encoder: str, named: str | None, given: Path | None) -> str:
    if given is not None:
        if not (given / encoder).is_dir():
            raise UserError(f"no {encoder} encoder in {given}: expected the folder {given / encoder}")
        return str(given / encoder)
    if named is None:
        raise UserError(f"the recipe's model reads {encoder} but the recipe names no {encoder} encoder")
    return _bundled(encoder) if named == BUNDLED else named


def weights_hash(module: torch.nn.Module) -> str:
    """16 hex digits over names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def make_source(
    data: str, recipe: TrainRecipe, autoencoder: Autoencoder, *, seed: int, cache_dir: Path, console: Console
) -> DataSource:
    """ "shapes", or a folder of pictures with captions."""
    device = next(autoencoder.parameters()).device

    def encode(images: Tensor) -> Tensor:
        return autoencoder.encode(images.to(device, autoencoder.dtype))

    if data != "shapes":
        return FolderSource(
            Path(data),
            encode=encode,
            image_size=recipe.image_size,
            seed=seed,
            validation_size=recipe.validation_size,
        )
    if recipe.image_size != CANVAS:
        raise UserError(
            f"the shapes world is {CANVAS} px, the recipe wants {recipe.image_size}: use --data DIR"
        )
    columns = (TextColumn("encode"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("encode", total=recipe.pool_size)
        return ShapesSource(
            encode=encode,
            autoencoder_hash=weights_hash(autoencoder),
            cache_dir=cache_dir,
            seed=seed,
            pool_size=recipe.pool_size,
            validation_size=recipe.validation_size,
            mixture=recipe.scenes,
            on_progress=lambda done: bar.update(task, completed=done),
        )


def starting_from(folder: Path) -> Callable[[GenTronConfig], GenTron]:
    """Build models with the weights of a checkpoint folder, as the second stage does with the first's."""
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
) -> Path:
    """Train and write `out/model`, a checkpoint folder with the averaged weights in fp16."""
    build_model = GenTron if initial is None else starting_from(initial)
    check_run_folder(out, resume=resume)  # before anything that takes time
    autoencoder = Autoencoder.from_pretrained(recipe.autoencoder, device=device)
    if autoencoder.latent_channels != recipe.model.in_channels:
        raise UserError(
            f"the autoencoder has {autoencoder.latent_channels} latent channels, "
            f"the recipe's model wants {recipe.model.in_channels}"
        )
    text_encoders = TextEncoders.from_pretrained(
        recipe.clip,
        recipe.t5,
        clip_max_length=recipe.clip_max_length,
        t5_max_length=recipe.t5_max_length,
        device=device,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
    )
    source = make_source(data, recipe, autoencoder, seed=seed, cache_dir=cache_dir, console=console)
    result = train(
        recipe,
        source=source,
        text_encoders=text_encoders,
        autoencoder=autoencoder,
        out=out,
        seed=seed,
        device=device,
        resume=resume,
        stop_at_images=max_images,
        build_model=build_model,
        initial_weights=str(initial) if initial is not None else None,
        console=console,
    )
    return export(recipe, result, out=out, seed=seed, device=device, data=source.name)


def _checkpoint_part(name: str, source: str | None, parts: dict[str, Path]) -> str | None:
    """What config.json calls a part: a folder is copied in under its name, a hub id stays one."""
    if source is None or not Path(source).is_dir():
        return source
    parts[name] = Path(source)
    return name


def export(
    recipe: TrainRecipe, result: TrainResult, *, out: Path, seed: int, device: torch.device, data: str
) -> Path:
    """The finished model as a checkpoint folder: EMA weights in fp16, frozen parts copied in."""
    parts: dict[str, Path] = {}
    autoencoder = _checkpoint_part("autoencoder", recipe.autoencoder, parts)
    assert autoencoder is not None
    schedule = schedule_of(recipe)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    config = CheckpointConfig(
        model=recipe.model,
        diffusion=DiffusionConfig(
            num_train_timesteps=schedule.num_train_timesteps,
            beta_start=schedule.beta_start,
            beta_end=schedule.beta_end,
            rescale_zero_terminal_snr=schedule.rescale_zero_terminal_snr,
            prediction_type=recipe.prediction_type,
        ),
        autoencoder=autoencoder,
        text=TextConfig(
            clip=_checkpoint_part("clip", recipe.clip, parts),
            t5=_checkpoint_part("t5", recipe.t5, parts),
            clip_max_length=recipe.clip_max_length,
            t5_max_length=recipe.t5_max_length,
        ),
        sampling=SamplingConfig(
            image_size=recipe.image_size,
            sampler=recipe.sampler,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
        ),
        training={
            "recipe": to_dict(recipe),
            "data": data,
            "seed": seed,
            "images_seen": result.images_seen,
            "num_skipped": result.num_skipped,
            "seconds": round(result.seconds),
            "device": device_name,
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    )
    # the folders' own paths are of no use to whoever gets the model
    for part in parts:
        config.training["recipe"][part] = part
    return save_checkpoint(out / "model", config, result.ema.state_dict(), parts=parts, dtype=torch.float16)
