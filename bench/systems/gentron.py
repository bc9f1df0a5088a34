"""Any GenTron: a preset by name, or a checkpoint folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.systems import Media, Request, SystemInfo, SystemOptions, safe_name
from gentron.checkpoint import CheckpointConfig, find_checkpoint
from gentron.errors import UserError
from gentron.media import Sample
from gentron.pipeline import GenTronPipeline, open_pipeline
from gentron.presets import PRESETS


def hash_folder(folder: Path) -> str:
    """sha256 over names and bytes of all that decides what a model does: weights, configs, vocabularies."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".txt", ".model", ".bin") and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _motion_settings(config: CheckpointConfig, name: str, options: SystemOptions) -> dict[str, Any]:
    """What shapes clips; of a video model that is asked for pictures, its motion-free single frame."""
    if options.clip is None:
        options.refuse("pictures", "motion_guidance_scale")
        return {} if config.model.temporal is None else {"num_frames": 1}
    if config.model.temporal is None:
        raise UserError(f"'{name}' is a text-to-image model and draws no clips: give a video model")
    scale = options.motion_guidance_scale
    return {
        "num_frames": options.clip.num_frames,
        "fps": float(options.clip.fps),
        "motion_guidance_scale": config.sampling.motion_guidance_scale if scale is None else float(scale),
    }


class GenTronSystem:
    """A GenTron pipeline with its settings made explicit; for clips where the options say their shape."""

    def __init__(self, name: str, options: SystemOptions) -> None:
        pipeline, label, weights = self._load(name, options)
        defaults = pipeline.config.sampling
        self._pipeline = pipeline
        self._batch_size = options.batch_size
        steps, scale = options.num_inference_steps, options.guidance_scale
        size = defaults.image_size if options.image_size is None else options.image_size
        self._settings = {
            "num_inference_steps": defaults.num_inference_steps if steps is None else steps,
            "guidance_scale": defaults.guidance_scale if scale is None else float(scale),
            "sampler": defaults.sampler if options.sampler is None else options.sampler,
            "height": size,
            "width": size,
        }
        self._settings |= _motion_settings(pipeline.config, label, options)
        self._stream([Request(id="check", prompt_id="", sample=0, text="a", seed=0)])  # checks the settings
        self.info = SystemInfo(
            kind="gentron",
            name=label,
            weights_sha256=weights,
            untrained=pipeline.is_untrained,
            settings=dict(self._settings),
            device=str(pipeline.device),
            media=Media()
            if options.clip is None
            else Media("video", options.clip.num_frames, options.clip.fps),
        )

    def at(self, *, guidance_scale: float, motion_guidance_scale: float) -> GenTronSystem:
        """The same weights, loaded once, under other guidance of clips."""
        other = copy(self)
        scales = {
            "guidance_scale": float(guidance_scale),
            "motion_guidance_scale": float(motion_guidance_scale),
        }
        other._settings = {**self._settings, **scales}
        other._stream([Request(id="check", prompt_id="", sample=0, text="a", seed=0)])
        other.info = replace(self.info, settings=dict(other._settings))
        return other

    @staticmethod
    def _load(name: str, options: SystemOptions) -> tuple[GenTronPipeline, str, str | None]:
        options_of_open: dict[str, Any] = {"device": options.device, "random_weights": options.random_weights}
        if options.random_weights:
            options.refuse("random weights", "checkpoint")
            return open_pipeline(name, **options_of_open), f"{safe_name(name)}-untrained", None
        folder = find_checkpoint(name, checkpoint=options.checkpoint)
        label = name if name in PRESETS else safe_name(folder.resolve().name)
        pipeline = open_pipeline(name, checkpoint=options.checkpoint, **options_of_open)
        return pipeline, label, hash_folder(folder)

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        yield from self._stream(requests)

    def _stream(self, requests: Sequence[Request]) -> Iterator[Sample]:
        return self._pipeline.stream(
            [request.text for request in requests],
            seeds=[request.seed for request in requests],
            batch_size=self._batch_size,
            **self._settings,
        )
