"""A training run that takes seconds: the real loop on the real world, everything small."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from gentron.model import TemporalConfig
from gentron.train import t2i, t2v
from gentron.train.recipe import TrainRecipe, VideoRecipe
from tests.tiny import MAX_LENGTH, TINY_MODEL


def tiny_recipe() -> TrainRecipe:
    """16 steps of 8 pictures."""
    return TrainRecipe(
        model=replace(TINY_MODEL, patch_size=4, sample_size=16),
        image_size=64,
        autoencoder="bundled",
        clip="bundled",
        t5="bundled",
        clip_max_length=MAX_LENGTH,
        t5_max_length=MAX_LENGTH,
        global_batch_size=8,
        total_images=128,
        learning_rate=2e-3,
        lr_schedule="cosine",
        warmup_images=16,
        ema_decay=0.9,
        precision="bf16",
        pool_size=48,
        validation_size=8,
        log_every=16,
        validate_every=64,
        sample_every=64,
        checkpoint_every=32,
        sample_prompts=("a red circle", "a blue square"),
        num_inference_steps=2,
        guidance_scale=2.0,
    )


def run_tiny(
    out: Path,
    parts: Path,
    cache: Path,
    *,
    recipe: TrainRecipe | None = None,
    max_images: int | None = None,
    initial: Path | None = None,
    data: str = "shapes",
) -> Path:
    """Start or go on with a run at `out`.   parts: a folder with autoencoder, clip and t5."""
    folders = {name: str(parts / name) for name in ("autoencoder", "clip", "t5")}
    return t2i.run(
        replace(recipe or tiny_recipe(), **folders),
        data=data,
        out=out,
        seed=3,
        device=torch.device("cpu"),
        resume=True,
        max_images=max_images,
        initial=initial,
        cache_dir=cache,
        console=Console(stderr=True, quiet=True),
    )


def tiny_video_recipe() -> TrainRecipe:
    """16 steps of 4 clips of 3 frames, or of 8 pictures in their place."""
    recipe = tiny_recipe()
    return replace(
        recipe,
        model=replace(recipe.model, temporal=TemporalConfig(num_frames=3, fps=4.0)),
        prediction_type="v_prediction",
        timestep_sampling="logit_normal_mix",
        global_batch_size=4,
        total_images=64,
        warmup_images=8,
        log_every=8,
        validate_every=32,
        sample_every=32,
        checkpoint_every=16,
        sample_prompts=("a red circle", "a blue square"),
        video=VideoRecipe(
            p_motion_free=0.5,
            joint_batch_size=8,
            joint_off_grid=0.5,
            first_frame_share=0.5,
            temporal_learning_rate=4e-3,
            pool_size=24,
        ),
    )


def run_tiny_video(
    out: Path,
    parts: Path,
    cache: Path,
    *,
    recipe: TrainRecipe | None = None,
    max_samples: int | None = None,
    initial: Path | None = None,
    data: str = "shapes",
    joint: str | None = "shapes",
) -> Path:
    """As run_tiny, for the second task."""
    folders = {name: str(parts / name) for name in ("autoencoder", "clip", "t5")}
    return t2v.run(
        replace(recipe or tiny_video_recipe(), **folders),
        data=data,
        joint=joint,
        out=out,
        seed=3,
        device=torch.device("cpu"),
        resume=True,
        max_samples=max_samples,
        initial=initial,
        cache_dir=cache,
        console=Console(stderr=True, quiet=True),
    )


def main(task: str, out: str, parts: str, cache: str, where: str, count: int) -> None:
    """Run and be killed at the count-th call of gentron.train.<where>, as `kill -9` would."""
    import importlib
    import os
    import signal

    torch.set_num_threads(1)
    module_name, function_name = where.rsplit(".", 1)
    module = importlib.import_module(f"gentron.train.{module_name}")
    function, calls = getattr(module, function_name), 0

    def killing(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    setattr(module, function_name, killing)
    run = {"t2i": run_tiny, "t2v": run_tiny_video}[task]
    run(Path(out), Path(parts), Path(cache))


if __name__ == "__main__":
    main(*sys.argv[1:6], count=int(sys.argv[6]))
