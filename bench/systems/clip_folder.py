"""Clips made elsewhere as a system: folders of frames, found by the id or the text of their prompt."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.prompts import Prompt
from bench.systems import Media, Request, SystemInfo, SystemOptions, safe_name
from bench.systems.clips import Clip, find_clips
from gentron.errors import UserError
from gentron.hashing import sha256


class ClipFolderSystem:
    """Finds clips; never writes.

    A clip belongs to the prompt that a manifest or the .txt beside it names; without either its name is
    <prompt id>_<sample> or <prompt text>_<sample>.
    """

    def __init__(self, folder: Path, options: SystemOptions) -> None:
        options.refuse(
            "clips made elsewhere",
            *("num_inference_steps", "guidance_scale", "motion_guidance_scale", "sampler", "batch_size"),
            *("random_weights", "checkpoint", "image_size"),
        )
        assert options.clip is not None, "a folder of pictures is another system"
        self._folder = folder
        clips = find_clips(folder)
        self._paths: dict[str, dict[int, Path]] = defaultdict(dict)
        for clip in clips:
            if clip.path.is_file():
                raise UserError(f"'{clip.path}' is not lossless: give a folder of frames for each clip")
            for key, sample in _keys(clip):
                self._paths[key][sample] = clip.path
        name = safe_name(folder.resolve().name)
        listing = json.dumps([clip.name for clip in clips])
        self.info = SystemInfo(
            kind="folder",
            name=name,
            weights_sha256=None,
            untrained=False,
            settings={"folder": name, "listing_sha256": sha256(listing.encode())},
            device="none",
            media=Media("video", options.clip.num_frames, options.clip.fps),
        )

    def find(self, requests: Sequence[Request], prompts: Sequence[Prompt]) -> list[Path]:
        return [self._path(request) for request in requests]

    def _path(self, request: Request) -> Path:
        for key in (request.prompt_id, _key(request.text)):
            found = self._paths.get(key, {}).get(request.sample)
            if found is not None:
                return found
        return self._folder / request.id

    def count(self, prompts: Sequence[Prompt]) -> int:
        """The most clips that it holds of one prompt, at least 1."""
        keys = {key for prompt in prompts for key in (prompt.id, _key(prompt.text))}
        return max((len(some) for key, some in self._paths.items() if key in keys), default=1)


def _key(text: str) -> str:
    """Prompts are compared without case, surrounding space and final full stop."""
    return text.strip().rstrip(".").lower()


def _keys(clip: Clip) -> list[tuple[str, int]]:
    """Under which prompts a clip is found, each with the number of the sample."""
    if clip.text is not None:
        return [(clip.prompt_id, clip.sample), (_key(clip.text), clip.sample)]
    matched = re.fullmatch(r"(.+)_(\d{1,9})", clip.path.name)
    text, sample = (matched[1], int(matched[2])) if matched else (clip.path.name, 0)
    return [(text, sample), (_key(text), sample)]
