"""The frozen parts of a run (autoencoder, text encoders), found and loaded; the finished model written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gentron.autoencoder import Autoencoder
from gentron.bundled import bundled_part
from gentron.checkpoint import (
    CheckpointConfig,
    DiffusionConfig,
    SamplingConfig,
    TextConfig,
    save_checkpoint,
)
from gentron.config import to_dict
from gentron.data import DataSource
from gentron.data.folder import FolderSource
from gentron.data.listing import MAX_DROPPED, Columns
from gentron.data.shapes import Encode, ShapesSource
from gentron.diffusion import NoiseSchedule
from gentron.errors import UserError
from gentron.model import GenTron
from gentron.model_card import last_validation
from gentron.shapes.scene import CANVAS
from gentron.text import TextEncoders
from gentron.train.loop import TrainResult, train
from gentron.train.recipe import TrainRecipe
from gentron.train.recipes import ALIASES, RECIPES
from gentron.train.task import B, Task

BUNDLED = "bundled"
"""In a recipe: the part inside the built-in mini checkpoint."""


def resolve_recipe(
    name: str, *, task: Literal["t2i", "t2v"] = "t2i", autoencoder: Path | None, text: Path | None
) -> TrainRecipe:
    """The named recipe with its frozen parts found; folders given on the command line come first.

    task: what the recipe must be for.   autoencoder: a diffusers folder, or a folder that holds one as
    "autoencoder".   text: holds "clip", "t5".
    """
    recipe = _named_recipe(name, task)
    changes: dict[str, str | None] = {"autoencoder": _autoencoder_source(recipe.autoencoder, autoencoder)}
    widths = {"clip": recipe.model.clip_width, "t5": recipe.model.t5_width}
    for encoder, width in widths.items():
        changes[encoder] = _text_source(encoder, getattr(recipe, encoder), text) if width else None
    return replace(recipe, **changes)


def recipes_of(task: str) -> list[str]:
    return [name for name, make in RECIPES.items() if _task_of(make()) == task]


def _task_of(recipe: TrainRecipe) -> str:
    return "t2i" if recipe.video is None else "t2v"


def _named_recipe(name: str, task: str) -> TrainRecipe:
    name = ALIASES.get(name, name)
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; known: {', '.join(recipes_of(task))}")
    recipe = RECIPES[name]()
    if _task_of(recipe) != task:
        known = ", ".join(recipes_of(task))
        raise UserError(f"{name} is a recipe of `gentron train {_task_of(recipe)}`; known here: {known}")
    return recipe


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


class FrozenParts(NamedTuple):
    """What a run reads pictures and prompts with."""

    autoencoder: Autoencoder
    text_encoders: TextEncoders


def load_frozen_parts(recipe: TrainRecipe, device: torch.device) -> FrozenParts:
    """From the folders or hub ids that a resolved recipe names."""
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
    return FrozenParts(autoencoder, text_encoders)


def encoder_of(autoencoder: Autoencoder) -> Encode:
    """Pictures on any device -> latents on the autoencoder's."""
    device = next(autoencoder.parameters()).device
    return lambda images: autoencoder.encode(images.to(device, autoencoder.dtype))


def schedule_of(recipe: TrainRecipe) -> NoiseSchedule:
    return NoiseSchedule(rescale_zero_terminal_snr=recipe.zero_terminal_snr)


@contextmanager
def encoding_bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many items are encoded; a terminal shows a bar."""
    columns = (TextColumn("encode"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task("encode", total=total)
        yield lambda done: bar.update(row, completed=done)


def reporter(console: Console) -> Callable[[str], None]:
    """Prints a line as it is; prompts and file names are no markup."""
    return lambda line: console.print(line, highlight=False, markup=False)


def check_shapes_size(recipe: TrainRecipe) -> None:
    """UserError unless the recipe's pictures have the built-in world's size."""
    if recipe.image_size != CANVAS:
        raise UserError(
            f"the shapes world is {CANVAS} px, the recipe wants {recipe.image_size}: use --data DIR"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOptions:
    """How samples are read from files; the built-in world has no use for it."""

    columns: Columns = field(default_factory=Columns)
    max_dropped: float = MAX_DROPPED
    mirror: bool = False

    def of_source(self) -> dict[str, Any]:
        """As FolderSource and FolderClips call them."""
        return {"columns": self.columns, "max_dropped": self.max_dropped, "mirror": self.mirror}


def picture_source(
    data: str,
    recipe: TrainRecipe,
    autoencoder: Autoencoder,
    *,
    seed: int,
    cache_dir: Path,
    console: Console,
    files: FileOptions = FileOptions(),  # noqa: B008  # frozen
) -> DataSource:
    """ "shapes", or what data.samples.list_samples reads: folders, shards, tables, hf:NAME."""
    if data != "shapes":
        return FolderSource(
            data,
            encode=encoder_of(autoencoder),
            image_size=recipe.image_size,
            seed=seed,
            validation_size=recipe.validation_size,
            report=reporter(console),
            **files.of_source(),
        )
    check_shapes_size(recipe)
    with encoding_bar(console, recipe.pool_size) as on_progress:
        return ShapesSource(
            encode=encoder_of(autoencoder),
            autoencoder_hash=weights_hash(autoencoder),
            cache_dir=cache_dir,
            seed=seed,
            pool_size=recipe.pool_size,
            validation_size=recipe.validation_size,
            mixture=recipe.scenes,
            off_grid=recipe.video.joint_off_grid if recipe.video else 0.0,
            on_progress=on_progress,
        )


def _checkpoint_part(name: str, source: str | None, parts: dict[str, Path]) -> str | None:
    """What config.json calls a part: a folder is copied in under its name, a hub id stays one."""
    if source is None or not Path(source).is_dir():
        return source
    parts[name] = Path(source)
    return name


def export(
    recipe: TrainRecipe,
    result: TrainResult[GenTron],
    *,
    out: Path,
    seed: int,
    device: torch.device,
    data: str,
    unit: str,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """The finished model as a checkpoint folder: EMA weights in fp16, frozen parts copied in.

    origin: `model_card.provenance` of what the run started from.
    """
    parts: dict[str, Path] = {}
    autoencoder = _checkpoint_part("autoencoder", recipe.autoencoder, parts)
    assert autoencoder is not None
    schedule, temporal = schedule_of(recipe), recipe.model.temporal
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
            num_frames=temporal.num_frames if temporal else 1,
            fps=temporal.fps if temporal else None,
            motion_guidance_scale=recipe.video.motion_guidance_scale if recipe.video else 1.0,
        ),
        training={
            "recipe": to_dict(recipe),
            "data": data,
            "seed": seed,
            f"{unit}_seen": result.samples_seen,
            "num_skipped": result.num_skipped,
            "seconds": round(result.seconds),
            "device": device_name,
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **(origin or {}),
            **last_validation(out),
        },
    )
    # the folders' own paths are of no use to whoever gets the model
    for part in parts:
        config.training["recipe"][part] = part
    return save_checkpoint(out / "model", config, result.ema.state_dict(), parts=parts, dtype=torch.float16)


def train_and_export(
    recipe: TrainRecipe,
    task: Task[GenTron, B],
    *,
    out: Path,
    seed: int,
    device: torch.device,
    resume: bool,
    stop_at: int | None,
    initial: Path | None,
    origin: Mapping[str, Any] | None,
    console: Console,
) -> Path:
    """The loop from its task to the model folder; arguments as of `loop.train` and `export`."""
    result = train(
        recipe,
        task,
        out=out,
        seed=seed,
        device=device,
        resume=resume,
        stop_at=stop_at,
        initial_weights=str(initial) if initial is not None else None,
        console=console,
    )
    return export(
        recipe, result, out=out, seed=seed, device=device, data=task.data, unit=task.unit, origin=origin
    )
