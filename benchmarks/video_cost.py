"""What video costs at mini's size: a training step, temporal attention's share of it, and guidance.

    OMP_NUM_THREADS=1 python benchmarks/video_cost.py

CPU seconds of the process on one thread, medians over rounds in which the variants take turns, so that a
busy machine slows all alike. Equal tokens: 64 pictures of 16 tokens against 8 clips of 8 x 16. The text is
as long as mini reads (40 tokens), one prompt a sample: 8 clips have fewer prompts than 64 pictures, which is
part of what a clip saves. Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from gentron.guidance import motion_free_guidance
from gentron.model import GenTron, GenTronBlock
from gentron.presets import mini, mini_t2v
from gentron.text import PromptEmbeds

TOKENS_A_STEP = 1024
TEXT_LENGTH = 40


def prompts(batch_size: int, *, width: int = 128) -> PromptEmbeds:
    """Prompts of full length."""
    mask = torch.ones(batch_size, TEXT_LENGTH, dtype=torch.bool)
    tokens = torch.randn(batch_size, TEXT_LENGTH, width)
    return PromptEmbeds(
        clip_prompt_embeds=tokens,
        clip_prompt_mask=mask,
        t5_prompt_embeds=tokens,
        t5_prompt_mask=mask,
        pooled_prompt_embeds=torch.randn(batch_size, width),
    )


def training_step(model: GenTron, latents: Tensor, *, motion_free: bool | None = None) -> Callable[[], None]:
    """Forward, backward and an AdamW step on one batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    text, timesteps = prompts(len(latents)), torch.randint(0, 1000, (len(latents),))

    def step() -> None:
        optimizer.zero_grad()
        model(latents, timesteps, text, motion_free=motion_free).square().mean().backward()
        optimizer.step()

    return step


@contextmanager
def without_temporal_attention(model: GenTron) -> Iterator[None]:
    """The model as if its blocks had none."""
    blocks = [block for block in model.blocks if isinstance(block, GenTronBlock)]
    layers = [block.temporal_attention for block in blocks]
    for block in blocks:
        block.temporal_attention = None
    try:
        yield
    finally:
        for block, layer in zip(blocks, layers, strict=True):
            block.temporal_attention = layer


def training_variants() -> dict[str, Callable[[], None]]:
    """A step of each model on TOKENS_A_STEP tokens."""
    image_model, video_model = GenTron(mini()), GenTron(mini_t2v())
    pictures = torch.randn(TOKENS_A_STEP // 16, 4, 16, 16)
    clips = pictures.unflatten(0, (-1, 8))
    moving = training_step(video_model, clips, motion_free=False)

    def spatial_only() -> None:
        with without_temporal_attention(video_model):
            moving()

    return {
        "mini, 64 pictures": training_step(image_model, pictures),
        "mini-t2v, 8 clips of 8 frames": moving,
        "mini-t2v, 8 clips, motion-free": training_step(video_model, clips, motion_free=True),
        "mini-t2v, 8 clips, temporal attention left out": spatial_only,
    }


def sampling_variants(num_clips: int) -> dict[str, Callable[[], None]]:
    """A denoising step of motion-free guidance: one batch of three branches, or a call a branch."""
    model = GenTron(mini_t2v()).eval().requires_grad_(False)
    text, empty = prompts(num_clips), prompts(num_clips)
    latents, timestep = torch.randn(num_clips, 8, 4, 16, 16), torch.tensor(500)
    known = torch.tensor([500])
    at_once = motion_free_guidance(
        partial(model.conditioned, timesteps=known),
        text,
        empty,
        guidance_scale=2.0,
        motion_guidance_scale=1.2,
    )
    each = [
        model.conditioned(embeds, timesteps=known, motion_free=motion_free)
        for embeds, motion_free in ((empty, True), (empty, False), (text, False))
    ]

    def one_by_one() -> None:
        still, moving, prompted = (denoise(latents, timestep) for denoise in each)
        _ = still + 1.2 * (moving - still) + 2.0 * (prompted - moving)

    def in_one_batch() -> None:
        at_once(latents, timestep)

    noun = "clip" if num_clips == 1 else "clips"
    return {
        f"{num_clips} {noun}, three branches in one batch": in_one_batch,
        f"{num_clips} {noun}, three calls": one_by_one,
    }


def medians(variants: dict[str, Callable[[], None]], *, rounds: int) -> dict[str, float]:
    """CPU seconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = medians(training_variants(), rounds=rounds)
    for num_clips in (1, 4):
        found |= medians(sampling_variants(num_clips), rounds=rounds)
    pictures, moving, free, spatial = list(found.values())[:4]
    print(
        json.dumps(
            {
                "cpu_seconds": {name: round(seconds, 4) for name, seconds in found.items()},
                "a_step_of_clips_to_pictures": round(moving / pictures, 3),
                "temporal_attention_share": round(1 - spatial / moving, 3),
                "motion_free_to_motion": round(free / moving, 3),
                "processor": platform.processor() or platform.machine(),
                "torch": torch.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
