"""Write clips and captions of the moving world to disk; resumes by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gentron.data.keyed import Stream, keyed_rng
from gentron.shapes.motion import FPS, MOTION_VERSION, MovingScene, render_clip, sample_clip
from gentron.shapes.motion_captions import clip_caption
from gentron.shapes.scene import WORLD_VERSION
from gentron.shapes.write import SHARD_SIZE, claim, write_file

SUFFIXES = {"mp4": ".mp4", "frames": ""}  # of a clip: a file that browsers play, or a lossless folder


def draw_clip(seed: int, index: int) -> tuple[MovingScene, str]:
    """Clip `index` and its caption, a function of (seed, index) alone."""
    clip = sample_clip(keyed_rng(seed, index, Stream.CLIP))
    return clip, clip_caption(clip, keyed_rng(seed, index, Stream.CLIP_CAPTION))


def write_clips(
    folder: Path,
    *,
    count: int,
    seed: int,
    clip_format: str = "mp4",
    callback: Callable[[int], None] = lambda done: None,
) -> None:
    """folder/clips/000/000000.mp4 ... and, last, captions.jsonl with {"file", "caption", "clip"} a line.

    clip_format: "mp4", or "frames": folders of PNG frames, which lose nothing.
    """
    from gentron.data.clip_writer import write_clip

    claim(
        folder,
        {"world": WORLD_VERSION, "motion": MOTION_VERSION, "seed": seed, "format": f"clips as {clip_format}"},
    )
    rows = []
    for index in range(count):
        name = f"{index:06d}{SUFFIXES[clip_format]}"
        path = folder / "clips" / f"{index // SHARD_SIZE:03d}" / name
        clip, text = draw_clip(seed, index)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, render_clip(clip), FPS)
        rows.append({"file": path.relative_to(folder).as_posix(), "caption": text, "clip": asdict(clip)})
        callback(index + 1)
    write_file(folder / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
