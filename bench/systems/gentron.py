"""Any GenTron: a preset by name, or a checkpoint folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.systems import Request, SystemInfo, SystemOptions, safe_name
from gentron.checkpoint import find_checkpoint
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


class GenTronSystem:
    """A GenTron pipeline with its settings made explicit."""

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
        if pipeline.config.model.temporal is not None:
            self._settings["num_frames"] = 1  # a video model's motion-free single frame
        self._stream([Request(id="check", prompt_id="", sample=0, text="a", seed=0)])  # checks the settings
        self.info = SystemInfo(
            kind="gentron",
            name=label,
            weights_sha256=weights,
            untrained=pipeline.is_untrained,
            settings=dict(self._settings),
            device=str(pipeline.device),
        )

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

    def images(self, requests: Sequence[Request]) -> Iterator[np.ndarray]:
        for sample in self._stream(requests):
            yield np.asarray(sample.image)

    def _stream(self, requests: Sequence[Request]) -> Iterator[Sample]:
        return self._pipeline.stream(
            [request.text for request in requests],
            seeds=[request.seed for request in requests],
            batch_size=self._batch_size,
            **self._settings,
        )
