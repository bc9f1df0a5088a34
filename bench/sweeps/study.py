"""Two values of lambda_M asked of people: their clips as files, and a blinded study of them."""

# F frames of a clip

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.humaneval.export import Exported, ExportSettings, export, parse_options
from bench.humaneval.prompts import read_prompts
from bench.stages import Stage
from bench.sweeps.mfg import Swept
from bench.systems.clips import Clip, Reading, read_clip
from bench.systems.images import write_atomic
from gentron.data.clip_writer import write_clip
from gentron.errors import UserError

SHOWN_SIDE = 256  # pixels at least: people judge no clip of 64
QUESTIONS = ["quality", "alignment"]


def export_study(
    swept: Swept,
    pair: tuple[float, float],
    *,
    fps: float,
    raters: int,
    out: Path,
    work: Path,
    stage: Stage,
) -> Exported:
    """pair: two values of lambda_M of the sweep, at its first lambda_T. What stands at `out` is refused."""
    folders = [
        _write_clips(swept, value, work / f"study-{k}", fps=fps) for k, value in zip("ab", pair, strict=True)
    ]
    prompts = work / "study-prompts.jsonl"
    texts = {clip.prompt_id: clip.text for clip in swept.clips[0]}
    rows = [json.dumps({"id": id, "text": text}) for id, text in texts.items()]
    write_atomic(prompts, ("\n".join(rows) + "\n").encode())
    settings = ExportSettings(
        questions=QUESTIONS,
        raters=raters,
        seed=swept.record.seed,
        gold=0,
        flipped=0.0,
        min_seconds=None,
        image_size=None,
        media_url="",
    )
    specs = {
        name: (f"folder:{folder}", parse_options([], device="cpu"))
        for name, folder in zip("ab", folders, strict=True)
    }
    drawn = read_prompts(str(prompts), num_prompts=None, seed=swept.record.seed)
    return export(specs, drawn, settings, out=out, key_path=None, work=work, stage=stage)


def clips_at(swept: Swept, motion_guidance_scale: float) -> Sequence[Clip]:
    """Of the cell of this lambda_M, at the first lambda_T; UserError that lists the values there are."""
    values = [cell.motion_guidance_scale for cell in swept.record.cells]
    if motion_guidance_scale not in values:
        known = ", ".join(f"{value:g}" for value in sorted(set(values)))
        raise UserError(f"lambda_M {motion_guidance_scale:g} is not in the sweep: choose from {known}")
    return swept.clips[values.index(motion_guidance_scale)]


def _write_clips(swept: Swept, value: float, folder: Path, *, fps: float) -> Path:
    """The first sample of each prompt as mp4, named by prompt, small frames enlarged by a whole factor."""
    named = folder.with_name(f"{folder.name}-lambda-{value:g}")
    for clip in clips_at(swept, value):
        if clip.sample == 0:
            write_clip(
                named / f"{clip.prompt_id}_00.mp4", enlarged(read_clip(clip.path, Reading()).pixels), fps
            )
    return named


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """(F, H, W, 3) -> each pixel a square of as many as bring the shorter side to 256."""
    factor = -(-SHOWN_SIDE // min(pixels.shape[1:3]))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else pixels
