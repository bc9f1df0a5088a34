"""`gentron train t2v`: clips and pictures as a task of the loop, and the run from recipe to model folder.

A step is keyed on its number: with probability p_motion_free it is motion-free and takes pictures (or, where
there are none, clips under the identity mask), else it takes clips.
"""

# B samples of a micro-batch, F frames, C latent channels, H W latent size

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from gentron.autoencoder import Autoencoder
from gentron.bundled import bundled_mini
from gentron.checkpoint import load_model, load_t2i, read_config
from gentron.data import Batch, DataSource, Stream, keyed_rng
from gentron.data.folder import FolderClips
from gentron.data.listing import Columns
from gentron.data.shapes_clips import ShapesClips
from gentron.dit import starting_from_dit
from gentron.errors import UserError
from gentron.model import GenTron, GenTronConfig, is_temporal
from gentron.model_card import provenance
from gentron.text import PromptEmbeds, TextEncoders
from gentron.train import parts
from gentron.train.loss import Draw, draw, draw_clips, frame_errors, loss_weights, noisy_and_target
from gentron.train.parts import (
    FileOptions,
    check_shapes_size,
    encoder_of,
    encoding_bar,
    load_frozen_parts,
    picture_source,
    reporter,
    schedule_of,
    train_and_export,
    weights_hash,
)
from gentron.train.prefetch import trim_padding
from gentron.train.recipe import TrainRecipe, VideoRecipe
from gentron.train.run_folder import check_run_folder
from gentron.train.task import Prepared, Task
from gentron.train.validation import (
    Predict,
    ValidationSet,
    draw_samples,
    encoded,
    losses_row,
    middle_timesteps,
    sample_set,
    tiled,
    validation_losses,
    validation_set,
)

SWAP_TIMESTEPS = (700, 850, 950)
"""High noise, where the text alone can say how things move; of 1000."""
VALIDATION_BATCH = 16
"""Clips a pass."""


class ClipBatch(NamedTuple):
    """latents, noise: (B, F, C, H, W).   timesteps: (B,), or (B, F) where they differ within a clip.
    has_loss: (B, F) bool.   motion_free: of the whole step.   num_samples: of the whole global batch."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    has_loss: Tensor
    prompt_embeds: PromptEmbeds
    motion_free: bool
    num_samples: int


def is_motion_free(video: VideoRecipe, *, seed: int, step: int) -> bool:
    return bool(keyed_rng(seed, step, Stream.MOTION_FREE).random() < video.p_motion_free)


class ClipStep(NamedTuple):
    """How a step takes its clips."""

    video: VideoRecipe
    num_frames: int


def clip_step(video: VideoRecipe, num_frames: int, *, step_start: int, motion_free: bool) -> ClipStep:
    """For the step whose first sample is `step_start`, of clips of `num_frames` frames.

    Short clips come with clean first frames alone; motion-free ones without: frame by frame it says nothing.
    """
    if step_start < video.short_clips_until:
        video = replace(video, clean_first_frame=1.0)
        num_frames = min(num_frames, video.short_clip_frames)
    if motion_free:
        video = replace(video, first_frame_share=0.0, first_frame_share_end=None)
    return ClipStep(video, num_frames)


def text_to_video(
    recipe: TrainRecipe,
    *,
    clips: DataSource,
    swapped_captions: Sequence[str],
    pictures: DataSource | None,
    text_encoders: TextEncoders,
    autoencoder: Autoencoder,
    seed: int,
    device: torch.device,
    build_model: Callable[[GenTronConfig], GenTron] = GenTron,
) -> Task[GenTron, ClipBatch]:
    """The second task: a sample is a clip, or the pictures that a motion-free step takes in its place.

    swapped_captions: of the held-back clips, wrong about what they show; a clip's own where there is none.
    pictures: None where the recipe is not joint.
    """
    video = recipe.video
    assert video is not None and video.joint == (pictures is not None)
    schedule = schedule_of(recipe)
    weights = loss_weights(recipe, schedule).to(device)
    clip_shape = tuple(clips.held_back().latents.shape[1:])
    validate = make_validation(
        recipe,
        clips=clips.held_back(),
        swapped_captions=swapped_captions,
        pictures=None if pictures is None else pictures.held_back(),
        text_encoders=text_encoders,
        seed=seed,
        device=device,
    )
    sampled = sample_set(text_encoders, clip_shape, recipe, seed=seed, device=device)
    pictures_a_sample = video.joint_batch_size // recipe.global_batch_size

    def prepare(global_indices: range) -> Prepared[ClipBatch]:
        step = global_indices.start // recipe.global_batch_size
        motion_free = is_motion_free(video, seed=seed, step=step)
        if motion_free and pictures is not None:
            return joint_pictures(pictures, global_indices)
        step_start = step * recipe.global_batch_size
        now = clip_step(video, clip_shape[0], step_start=step_start, motion_free=motion_free)
        batch = clips.batch(global_indices)
        drawn = draw_clips(
            recipe,
            now.video,
            seed=seed,
            global_indices=global_indices,
            shape=(now.num_frames, *clip_shape[1:]),
            num_timesteps=schedule.num_train_timesteps,
        )
        timesteps = drawn.timesteps
        if bool((timesteps == timesteps[:, :1]).all()):
            timesteps = timesteps[:, 0]  # the modulation is then computed once a clip
        ready = ClipBatch(
            batch.latents[:, : now.num_frames].to(device),
            drawn.noise.to(device),
            timesteps.to(device),
            drawn.has_loss.to(device),
            prompts(batch, drawn.drops_caption),
            motion_free,
            recipe.global_batch_size,
        )
        return Prepared(ready, "motion_free" if motion_free else "clips", batch.unreadable)

    def joint_pictures(source: DataSource, global_indices: range) -> Prepared[ClipBatch]:
        """The pictures in the place of these samples, each as frames of noise of their own."""
        indices = range(global_indices.start * pictures_a_sample, global_indices.stop * pictures_a_sample)
        batch = source.batch(indices)
        repeats = video.joint_repeats
        drawn: Draw = draw(
            recipe,
            seed=seed,
            global_indices=indices,
            shape=(repeats, *batch.latents.shape[1:]),
            num_timesteps=schedule.num_train_timesteps,
            stream=Stream.JOINT_DIFFUSION,
        )
        ready = ClipBatch(
            batch.latents.to(device)[:, None].expand(-1, repeats, -1, -1, -1),
            drawn.noise.to(device),
            drawn.timesteps.to(device),
            torch.ones((len(indices), repeats), dtype=torch.bool, device=device),
            prompts(batch, drawn.drops_caption),
            True,
            video.joint_batch_size,
        )
        return Prepared(ready, "pictures", batch.unreadable)

    def prompts(batch: Batch, drops_caption: list[bool]) -> PromptEmbeds:
        dropped = zip(drops_caption, batch.captions, strict=True)
        embeds = text_encoders.encode(["" if drops else caption for drops, caption in dropped]).to(device)
        return trim_padding(embeds) if device.type == "cpu" else embeds

    def loss(model: GenTron, batch: ClipBatch) -> Tensor:
        noisy_latents, wanted = noisy_and_target(
            recipe, schedule, batch.latents, batch.noise, batch.timesteps
        )
        model_output = model(
            noisy_latents, batch.timesteps, batch.prompt_embeds, motion_free=batch.motion_free
        )
        frame_weights = weights[batch.timesteps].reshape(len(wanted), -1) * batch.has_loss  # (B, F)
        errors = (frame_errors(model_output, wanted) * frame_weights).sum(1) / batch.has_loss.sum(1)
        return errors.sum() / batch.num_samples

    def sample(model: GenTron) -> Image.Image:
        """A row a prompt, a column a frame."""
        assert sampled is not None
        drawn = draw_samples(model, sampled, autoencoder, schedule, recipe)
        return tiled(drawn.reshape(-1, *drawn.shape[2:]), drawn.shape[1])

    joint = f", joint with {pictures.name}" if pictures is not None else ""
    return Task(
        data=clips.name + joint,
        unit="samples",
        build_model=lambda: _with_frozen(build_model(recipe.model), video),
        prepare=prepare,
        loss=loss,
        validate=validate,
        sample=None if sampled is None else sample,
    )


def _with_frozen(model: GenTron, video: VideoRecipe) -> GenTron:
    if video.temporal_only:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_temporal(name))
    return model


def make_validation(
    recipe: TrainRecipe,
    *,
    clips: Batch,
    swapped_captions: Sequence[str],
    pictures: Batch | None,
    text_encoders: TextEncoders,
    seed: int,
    device: torch.device,
) -> Callable[[GenTron], dict[str, dict[str, float]]]:
    """Four sets: clips with motion on; pictures (else clips) motion-free; and, of the held-back clips whose
    caption can be turned round, the loss with the wrong caption minus that with the right one: with all
    frames noisy, and with a clean first frame. Above zero, the text reaches the motion; no sample shows it
    as early.
    """
    schedule = schedule_of(recipe)
    middle = middle_timesteps(schedule)
    options = {"seed": seed, "device": device}
    of_clips = validation_set(clips, text_encoders, middle, **options)
    of_pictures = of_clips
    if pictures is not None:
        of_pictures = validation_set(pictures, text_encoders, middle, **options)
        of_pictures = of_pictures._replace(
            latents=of_pictures.latents[:, None], noise=of_pictures.noise[:, :, None]
        )
    moving = [i for i, caption in enumerate(clips.captions) if caption != swapped_captions[i]]
    right: ValidationSet | None = None
    wrong: ValidationSet | None = None
    if moving:
        batch = Batch(clips.latents[moving], [clips.captions[i] for i in moving])
        right = validation_set(batch, text_encoders, (*middle, *SWAP_TIMESTEPS), **options)
        wrong = right._replace(
            prompt_embeds=encoded(text_encoders, [swapped_captions[i] for i in moving], device)
        )

    def losses(model: GenTron, fixed: ValidationSet, *, motion_free: bool = False, clean: bool = False):  # noqa: ANN202
        predict: Predict = lambda noisy, t, text: model(noisy, t, text, motion_free=motion_free)  # noqa: E731
        return validation_losses(
            predict, fixed, schedule, recipe, clean_first_frame=clean, batch_size=VALIDATION_BATCH
        )

    def validate(model: GenTron) -> dict[str, dict[str, float]]:
        rows = {
            "validation_motion_on": losses_row(losses(model, of_clips)),
            "validation_motion_free": losses_row(losses(model, of_pictures, motion_free=True)),
        }
        if right is not None and wrong is not None:
            for name, clean in (("swapped", False), ("swapped_first_frame", True)):
                told, mistold = losses(model, right, clean=clean), losses(model, wrong, clean=clean)
                difference = {t: mistold[t] - told[t] for t in told}
                rows[f"validation_{name}"] = losses_row(difference, mean_over=middle)
        return rows

    return validate


def resolve_recipe(
    name: str,
    *,
    autoencoder: Path | None,
    text: Path | None,
    temporal_only: bool = False,
    total_samples: int | None = None,
) -> TrainRecipe:
    """As parts.resolve_recipe, with what `train t2v` adds on the command line."""
    recipe = parts.resolve_recipe(name, task="t2v", autoencoder=autoencoder, text=text)
    assert recipe.video is not None
    return replace(
        recipe,
        total_images=total_samples or recipe.total_images,
        video=replace(recipe.video, temporal_only=temporal_only),
    )


def default_initial(name: str) -> Path | None:
    """What a recipe starts from when nothing is said: the built-in model."""
    return bundled_mini() if name == "mini_t2v" else None


def starting_from(folder: Path) -> Callable[[GenTronConfig], GenTron]:
    """Build video models with the weights of an image checkpoint, or go on from a video one."""
    if from_dit := starting_from_dit(folder):
        return from_dit
    stored = read_config(folder).model

    def build(config: GenTronConfig) -> GenTron:
        if stored.temporal is None:
            return load_t2i(folder, config).requires_grad_(True)
        if stored != config:
            raise UserError(f"{folder} holds another model than the recipe's: {stored} and {config}")
        return load_model(folder, config, dtype=torch.float32).requires_grad_(True)

    return build


def shapes_clips(
    recipe: TrainRecipe, autoencoder: Autoencoder, *, seed: int, cache_dir: Path, console: Console
) -> ShapesClips:
    """Clips of the built-in world."""
    video, temporal = recipe.video, recipe.model.temporal
    assert video is not None and temporal is not None
    check_shapes_size(recipe)
    with encoding_bar(console, video.pool_size) as on_progress:
        return ShapesClips(
            encode=encoder_of(autoencoder),
            autoencoder_hash=weights_hash(autoencoder),
            cache_dir=cache_dir,
            seed=seed,
            num_frames=temporal.num_frames,
            pool_size=video.pool_size,
            validation_size=recipe.validation_size,
            mixture=video.mixture,
            on_progress=on_progress,
        )


class ClipsAndSwaps(NamedTuple):
    """A source of clips, and for each of its held-back clips a caption that is wrong about it."""

    clips: DataSource
    swapped_captions: list[str]


def clip_source(
    data: str,
    recipe: TrainRecipe,
    autoencoder: Autoencoder,
    *,
    seed: int,
    cache_dir: Path,
    console: Console,
    files: FileOptions = FileOptions(),  # noqa: B008  # frozen
) -> ClipsAndSwaps:
    """ "shapes", or what data.samples.list_samples reads: folders, shards, tables, hf:NAME.

    A held-back clip of files gets its caption with directions turned round, or its neighbour's.
    """
    if data == "shapes":
        made = shapes_clips(recipe, autoencoder, seed=seed, cache_dir=cache_dir, console=console)
        return ClipsAndSwaps(made, made.swapped_captions())
    temporal = recipe.model.temporal
    assert temporal is not None
    clips = FolderClips(
        data,
        encode=encoder_of(autoencoder),
        image_size=recipe.image_size,
        num_frames=temporal.num_frames,
        fps=temporal.fps,
        seed=seed,
        validation_size=recipe.validation_size,
        report=reporter(console),
        **files.of_source(),
    )
    return ClipsAndSwaps(clips, clips.swapped_captions())


def run(
    recipe: TrainRecipe,
    *,
    data: str,
    joint: str | None,
    out: Path,
    seed: int,
    device: torch.device,
    resume: bool,
    max_samples: int | None,
    initial: Path | None,
    cache_dir: Path,
    console: Console,
    files: FileOptions = FileOptions(),  # noqa: B008  # frozen
) -> Path:
    """Train and write `out/model`, a checkpoint folder with the averaged weights in fp16.

    data, joint: "shapes", or files of clips and of pictures; without joint motion-free steps take clips.
    """
    assert recipe.video is not None
    recipe = replace(recipe, video=replace(recipe.video, joint=joint is not None))
    build_model = GenTron if initial is None else starting_from(initial)
    origin = provenance(initial)
    check_run_folder(out, resume=resume)  # before anything that takes time
    autoencoder, text_encoders = load_frozen_parts(recipe, device)
    where = {"seed": seed, "cache_dir": cache_dir, "console": console}
    clips, swapped_captions = clip_source(data, recipe, autoencoder, **where, files=files)
    of_pictures = replace(files, columns=Columns(caption=files.columns.caption))  # their files: as usual
    pictures = (
        None if joint is None else picture_source(joint, recipe, autoencoder, **where, files=of_pictures)
    )
    for line in clips.held_back().unreadable:
        reporter(console)(f"skipped: {line}")
    task = text_to_video(
        recipe,
        clips=clips,
        swapped_captions=swapped_captions,
        pictures=pictures,
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
        stop_at=max_samples,
        initial=initial,
        origin=origin,
        console=console,
    )
