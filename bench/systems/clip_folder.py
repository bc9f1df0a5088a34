"""Clips made elsewhere as a system: found by the id or the text of their prompt; see bench.systems.clips."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from bench.systems import Request, SystemInfo, SystemOptions, safe_name
from bench.systems.clips import Clip, find_clips
from bench.systems.images import sha256


class ClipFolderSystem:
    """Finds clips; never writes.

    A clip belongs to the prompt that a manifest or the .txt beside it names; without either its name is
    <prompt id>_<sample> or <prompt text>_<sample>, with or without a suffix.
    """

    def __init__(self, folder: Path, options: SystemOptions) -> None:
        options.refuse(
            "clips made elsewhere",
            *("num_inference_steps", "guidance_scale", "motion_guidance_scale", "sampler", "batch_size"),
            *("random_weights", "checkpoint", "image_size"),
        )
        self._folder = folder
        clips = find_clips(folder)
        self._files: dict[str, dict[int, Path]] = defaultdict(dict)
        for clip in clips:
            for key, sample in _keys(clip):
                self._files[key][sample] = clip.path
        name = safe_name(folder.resolve().name)
        listing = json.dumps([clip.name for clip in clips])
        self.info = SystemInfo(
            kind="folder",
            name=name,
            weights_sha256=None,
            untrained=False,
            settings={"folder": name, "listing_sha256": sha256(listing.encode())},
            device="none",
        )

    def find(self, request: Request) -> Path:
        for key in (request.prompt_id, _key(request.text)):
            found = self._files.get(key, {}).get(request.sample)
            if found is not None:
                return found
        return self._folder / request.id


def _key(text: str) -> str:
    """Prompts are compared without case, surrounding space and final full stop."""
    return text.strip().rstrip(".").lower()


def _keys(clip: Clip) -> list[tuple[str, int]]:
    """Under which prompts a clip is found, each with the number of the sample."""
    if clip.text is not None:
        return [(clip.prompt_id, clip.sample), (_key(clip.text), clip.sample)]
    stem = clip.path.stem if clip.path.is_file() else clip.path.name
    matched = re.fullmatch(r"(.+)_(\d{1,9})", stem)
    text, sample = (matched[1], int(matched[2])) if matched else (stem, 0)
    return [(text, sample), (_key(text), sample)]
