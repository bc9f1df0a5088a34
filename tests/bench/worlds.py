"""Pictures and clips of prompts for tests: what a perfect system would draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.prompts import Prompt
from bench.prompts.motion import realise_clip
from bench.prompts.shapes import realise
from bench.systems.images import encode_png
from gentron.data.clip_writer import write_clip
from gentron.shapes.motion import render_clip
from gentron.shapes.motion_captions import ClipDescription
from gentron.shapes.render import render


def perfect_image(prompt: Prompt, seed: int = 0) -> np.ndarray:
    """(64, 64, 3) uint8, true of the prompt."""
    scene = realise(prompt.claim, np.random.default_rng([seed, *prompt.id.encode()]))
    assert scene is not None, f"not realisable: {prompt.text}"
    return render(scene)


def write_perfect_folder(folder: Path, prompts: list[Prompt]) -> Path:
    """One <prompt id>_00.png a prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    for prompt in prompts:
        (folder / f"{prompt.id}_00.png").write_bytes(encode_png(perfect_image(prompt)))
    return folder


def perfect_clip(prompt: Prompt, claim: ClipDescription | None = None) -> np.ndarray:
    """(8, 64, 64, 3) uint8, true of the prompt, or of another claim."""
    clip = realise_clip(claim or prompt.clip_claim, np.random.default_rng(list(prompt.id.encode())))
    assert clip is not None, f"not realisable: {prompt.text}"
    return render_clip(clip)


def write_clip_folder(folder: Path, prompts: list[Prompt]) -> Path:
    """A folder of frames <prompt id>_00 a prompt."""
    for prompt in prompts:
        write_clip(folder / f"{prompt.id}_00", perfect_clip(prompt), fps=4)
    return folder
