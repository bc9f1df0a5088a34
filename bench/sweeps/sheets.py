"""Clips of one prompt and seed under every lambda_M, below each other: what the numbers are about."""

# F frames of a clip

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from bench.sweeps.table import SweepRecord
from bench.systems.clips import Clip, Reading, read_clip

FRAME_SIDE = 96  # pixels at least: small frames are enlarged by a whole factor
MOST_FRAMES = 8  # of a row, evenly chosen
GAP, LABEL, HEAD = 2, 64, 18


def chosen_prompts(clips: Sequence[Clip], count: int) -> list[str]:
    """Evenly over the list, so that each part of it is seen."""
    ids = list(dict.fromkeys(clip.prompt_id for clip in clips))
    count = min(count, len(ids))
    return [ids[k * len(ids) // count] for k in range(count)]


def sheet(record: SweepRecord, clips: Sequence[Sequence[Clip]], prompt_id: str) -> bytes:
    """PNG: a row a cell, a column a frame, of the prompt's first sample.   clips: of the record's cells."""
    rows = []
    for cell, drawn in zip(record.cells, clips, strict=True):
        clip = next(clip for clip in drawn if clip.prompt_id == prompt_id)
        rows.append((cell.cell, _frames(clip)))
    several = len({cell.guidance_scale for cell in record.cells}) > 1
    width, height = rows[0][1][0].size
    columns = max(len(frames) for _, frames in rows)
    size = LABEL + columns * (width + GAP), HEAD + len(rows) * (height + GAP)
    image = Image.new("RGB", size, "#ffffff")
    draw = ImageDraw.Draw(image)
    text = next(clip.text for clip in clips[0] if clip.prompt_id == prompt_id) or ""
    draw.text((LABEL, 3), text, fill="#333333", font=ImageFont.load_default(size=12))
    for number, (cell, frames) in enumerate(rows):
        top = HEAD + number * (height + GAP)
        name = f"{cell.motion_guidance_scale:g}" + (f"\nT {cell.guidance_scale:g}" if several else "")
        draw.text((4, top + 4), name, fill="#333333", font=ImageFont.load_default(size=14))
        for k, frame in enumerate(frames):
            image.paste(frame, (LABEL + k * (width + GAP), top))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _frames(clip: Clip) -> list[Image.Image]:
    pixels = read_clip(clip.path, Reading()).pixels
    count = min(len(pixels), MOST_FRAMES)
    chosen = [pixels[k * (len(pixels) - 1) // max(count - 1, 1)] for k in range(count)]
    factor = max(FRAME_SIDE // min(pixels.shape[1:3]), 1)
    size = pixels.shape[2] * factor, pixels.shape[1] * factor
    return [Image.fromarray(frame).resize(size, Image.Resampling.NEAREST) for frame in chosen]
