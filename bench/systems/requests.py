"""Prompts -> the images of a run that are asked of a system."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench.prompts import Prompt
from bench.prompts.seeds import image_seed
from bench.systems import Request


def requests(
    prompts: Iterable[Prompt],
    *,
    images_per_prompt: int,
    seed: int,
    seed_of: Callable[[int, str, int], int] = image_seed,
) -> list[Request]:
    """All images of a run, prompt by prompt.

    seed_of: (run seed, prompt id, sample index) -> the seed of an image, as the protocol says.
    """
    if images_per_prompt < 1:
        raise ValueError(f"images_per_prompt must be >= 1, got {images_per_prompt}")
    return [
        Request(
            id=f"{prompt.id}_{sample:02d}",
            prompt_id=prompt.id,
            sample=sample,
            text=prompt.text,
            seed=seed_of(seed, prompt.id, sample),
        )
        for prompt in prompts
        for sample in range(images_per_prompt)
    ]
