"""What is asked of the pipeline, checked before anything runs."""

# H W sides in latents, F frames

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from gentron.checkpoint import SamplingConfig
from gentron.errors import UserError
from gentron.guidance import check_guidance, check_motion_guidance
from gentron.model import TemporalConfig, check_num_frames

MAX_PROMPT_CHARACTERS = 1000


class Motion(NamedTuple):
    """How a clip moves and is shown."""

    num_frames: int
    fps: float
    motion_guidance_scale: float
    first_frames: list[Image.Image] | None = None
    """One a prompt, which the clips begin with; None: drawn as the others are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A checked call of the pipeline: what to draw and how."""

    prompts: list[str]
    negative_prompts: list[str]
    seeds: list[int]
    guidance_scale: float
    guidance_interval: tuple[float, float] | None
    num_inference_steps: int
    sampler: str
    eta: float
    latent_size: tuple[int, int]
    """H, W."""
    motion: Motion | None
    """None: pictures."""
    samples_per_pass: int
    accelerate: bool


def resolve_motion(
    temporal: TemporalConfig | None,
    defaults: SamplingConfig,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    motion_guidance_scale: float | None = None,
    first_frames: Sequence[Image.Image] | None = None,
) -> Motion | None:
    """The motion asked of a model, what is None being its own default; None for pictures.

    temporal: the model's; None for an image model. ValueError for what the model cannot draw, and for
    settings of clips given with pictures, where they would have no effect.
    """
    if temporal is None and num_frames not in (None, 1):
        raise ValueError(f"num_frames must be 1: this is an image model, got {num_frames}")
    wanted = defaults.num_frames if num_frames is None else num_frames
    if temporal is not None:
        check_num_frames(temporal, wanted)
    if wanted == 1:
        settings = {"fps": fps, "motion_guidance_scale": motion_guidance_scale, "first_frames": first_frames}
        for name, value in settings.items():
            if value is not None:
                reason = "this is an image model" if temporal is None else "num_frames is 1"
                raise ValueError(f"{name} is for clips, but {reason}")
        return None
    assert temporal is not None, "an image model with clips as default"
    rate = (defaults.fps or temporal.fps) if fps is None else fps
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"fps must be positive, got {rate}")
    scale = defaults.motion_guidance_scale if motion_guidance_scale is None else motion_guidance_scale
    return Motion(wanted, rate, scale, None if first_frames is None else list(first_frames))


def check_scales(
    guidance_scale: float, motion: Motion | None, guidance_interval: tuple[float, float] | None = None
) -> None:
    """ValueError for guidance that a picture, or a clip, cannot have."""
    if motion is None:
        check_guidance(guidance_scale, guidance_interval)
    else:
        check_motion_guidance(guidance_scale, motion.motion_guidance_scale, guidance_interval)


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises ValueError or UserError unless this is a list of texts that can be encoded."""
    if isinstance(prompts, str) or not prompts:
        raise ValueError("prompts must be a list with at least one prompt")
    for index, prompt in enumerate(prompts):
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise UserError(
                f"prompt {index} has {len(prompt)} characters, the limit is {MAX_PROMPT_CHARACTERS}"
            )
        if any("\ud800" <= character <= "\udfff" for character in prompt):  # what Python makes of other bytes
            raise UserError(f"prompt {index} is not UTF-8 text: {ascii(prompt[:60])}")


def check_count(name: str, values: Sequence[object], count: int) -> None:
    """ValueError unless there is one value a prompt."""
    if len(values) != count:
        raise ValueError(f"{name} must be as many as prompts ({count}), got {len(values)}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for one that torch's generators do not take."""
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"a seed must be in [0, 2^63), got {seed}")
