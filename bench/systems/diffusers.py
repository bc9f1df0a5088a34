"""Any text-to-image pipeline of diffusers, from a folder or the local cache; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from bench.systems import Request, SystemInfo, SystemOptions, safe_name
from bench.systems.gentron import hash_folder
from gentron.device import usable_device
from gentron.errors import UserError
from gentron.media import Sample
from gentron.text import first_line, quiet_loading
from gentron.torchvision_ops import prepare_torchvision

library: Any = diffusers  # its lazy exports are hidden from type checkers


def _local_folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        raise UserError(
            f"no weights of '{name}' here: download them first (hf download {name}) or give a folder"
        ) from None


class DiffusersSystem:
    """Calls a diffusers pipeline with the common arguments, one image at a time."""

    def __init__(self, name: str, options: SystemOptions) -> None:
        options.refuse("diffusers pipelines", "random_weights", "checkpoint", "sampler", "batch_size")
        folder = _local_folder(name)
        device = usable_device(options.device)
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        prepare_torchvision()
        try:
            with quiet_loading():
                pipeline: Any = library.DiffusionPipeline.from_pretrained(
                    folder, local_files_only=True, torch_dtype=dtype
                )
        except Exception as error:  # diffusers raises many kinds for a bad folder; all mean "not loadable"
            raise UserError(
                f"cannot load the diffusers pipeline in '{folder}': {first_line(error)}; give the folder or"
                " the hub id of a text-to-image pipeline"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(device)
        chosen = {
            "num_inference_steps": options.num_inference_steps,
            "guidance_scale": options.guidance_scale,
            "height": options.image_size,
            "width": options.image_size,
        }
        self._settings = {key: value for key, value in chosen.items() if value is not None}
        self.info = SystemInfo(
            kind="diffusers",
            name=safe_name(Path(name).resolve().name if Path(name).is_dir() else name),
            weights_sha256=hash_folder(folder),
            untrained=False,
            settings={"pipeline": type(pipeline).__name__, "dtype": str(dtype), **self._settings},
            device=str(device),
        )

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        for request in requests:
            generator = torch.Generator("cpu").manual_seed(request.seed)
            output = self._pipeline(request.text, generator=generator, **self._settings)
            yield Sample((output.images[0].convert("RGB"),))
