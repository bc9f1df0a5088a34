"""A checkpoint is a folder: config.json, model.safetensors, autoencoder and text encoders (or their ids), and
a model card.

It is written whole or not at all (gentron/atomic.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gentron.atomic import atomic_file as atomic_file
from gentron.atomic import atomic_folder
from gentron.bundled import BUNDLED_MODELS, bundled, is_shared, shared_folder
from gentron.bundled import bundled_mini as bundled_mini
from gentron.config import from_dict, to_dict
from gentron.diffusion import NoiseSchedule, PredictionType, check_prediction_type
from gentron.errors import UserError
from gentron.model import GenTron, GenTronConfig
from gentron.model_card import write_card
from gentron.presets import PRESETS

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """What the model was trained to predict, on which noise schedule."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    rescale_zero_terminal_snr: bool = False
    prediction_type: PredictionType = "epsilon"

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)

    @property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule(
            num_train_timesteps=self.num_train_timesteps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            rescale_zero_terminal_snr=self.rescale_zero_terminal_snr,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Named as the autoencoder is; None leaves the encoder out."""

    clip: str | None
    t5: str | None
    clip_max_length: int = 77
    t5_max_length: int = 120

    def __post_init__(self) -> None:
        for name in ("clip_max_length", "t5_max_length"):
            if getattr(self, name) < 2:  # one word and the end token
                raise ValueError(f"{name} must be >= 2, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """What the pipeline does when it is not told otherwise."""

    image_size: int
    """Pixels along a side."""
    sampler: str = "ddim"
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    num_frames: int = 1
    """1 is a picture."""
    fps: float | None = None
    """Frames a second of a clip; None for a picture."""
    motion_guidance_scale: float = 1.0
    """The paper's lambda_M. 1 is ordinary classifier-free guidance with motion on."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or (self.num_frames > 1) != (self.fps is not None):
            raise ValueError(
                "num_frames must be >= 1, and fps be given for clips alone, got"
                f" num_frames={self.num_frames}, fps={self.fps}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """config.json, complete."""

    format_version: int = FORMAT_VERSION
    model: GenTronConfig
    diffusion: DiffusionConfig
    autoencoder: str
    """A folder name inside the checkpoint, a hub id, or "shared:<name>@<hash>" (gentron/bundled.py)."""
    text: TextConfig
    sampling: SamplingConfig
    training: dict[str, Any] = field(default_factory=dict)
    """Free provenance: command, images seen, device, ..."""

    def __post_init__(self) -> None:
        for encoder in self.model.encoders:
            if getattr(self.text, encoder) is None:
                raise ValueError(f"text.{encoder} must be set: the model has {encoder}_width")
        if self.model.temporal is None and self.sampling.num_frames > 1:
            raise ValueError("sampling.num_frames must be 1: the model is an image model")


# ---- saving and loading ------------------------------------------------------------------------------------


def save_checkpoint(
    folder: Path,
    config: CheckpointConfig,
    weights: Mapping[str, Tensor],
    *,
    parts: Mapping[str, Path] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint folder, replacing one that stands there; returns `folder`.

    weights: the model's state dict, stored as `dtype` (None: as it is).
    parts: folders to copy in, by the name that `config` calls them, as {"autoencoder": ..., "clip": ...}.
    Raises OSError when the disk is full; nothing is left behind then.
    """
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in weights.items()}
    with atomic_folder(folder) as temporary:
        for name, source in (parts or {}).items():
            shutil.copytree(source, temporary / name)
        try:
            save_file(tensors, temporary / WEIGHTS_FILE)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(f"cannot write {folder / WEIGHTS_FILE}: {error}") from error
        text = json.dumps(to_dict(config), indent=2) + "\n"
        (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
        write_card(temporary, config)
    return folder


def read_config(folder: Path) -> CheckpointConfig:
    """config.json of a checkpoint folder; UserError when it is absent, damaged or of another format."""
    path = folder / CONFIG_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no GenTron checkpoint in '{folder}': it has no {CONFIG_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    try:
        return from_dict(CheckpointConfig, _upgraded(data))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _upgraded(data: Any) -> Any:
    """config.json of an earlier format as one of today's; ValueError for a version that is not known."""
    version = data.get("format_version") if isinstance(data, dict) else None
    while type(version) is int and version in UPGRADES:  # not True, which equals 1
        data = UPGRADES[version](data)
        version += 1
    if version != FORMAT_VERSION:
        known = ", ".join(map(str, [*UPGRADES, FORMAT_VERSION]))
        raise ValueError(f"format_version must be one of {known}, got {version!r}")
    return data | {"format_version": FORMAT_VERSION}


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew image models alone."""
    sampling = {"num_frames": 1, "fps": None, "motion_guidance_scale": 1.0}
    return data | {
        "model": _with_new_fields(data, "model", {"temporal": None}),
        "sampling": _with_new_fields(data, "sampling", sampling),
    }


def _with_new_fields(data: dict[str, Any], record: str, fields: dict[str, Any]) -> Any:
    """The record with fields that its version did not have; there they were, and are, unknown names."""
    old = data.get(record)
    if not isinstance(old, dict):
        return old  # from_dict says what is wrong with it
    for name in fields:
        if name in old:
            raise ValueError(f"unknown field {record}.{name} in format_version {data['format_version']}")
    return old | fields


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1}
"""Format version -> what makes a config.json of it one of the next version."""


def resolve_part(folder: Path, name: str) -> Path | str:
    """A part's folder, inside the checkpoint or shared by the bundled models, or its hub id (owner/name)."""
    if is_shared(name):
        return shared_folder(name)
    if (folder / name).is_dir() and not name.startswith(("/", ".")):
        return folder / name
    if name.count("/") == 1 and not name.startswith(("/", ".")):
        return name
    raise UserError(f"the checkpoint '{folder}' lacks its folder '{name}'")


def load_model(
    folder: Path, config: GenTronConfig, *, device: torch.device | str = "cpu", dtype: torch.dtype
) -> GenTron:
    """The model in eval mode, frozen. It takes the memory of its weights in `dtype` and one tensor more.

    Raises UserError when the file is damaged or its tensors are not those of `config`.
    """
    with torch.device("meta"):
        model = GenTron(config)
    path = folder / WEIGHTS_FILE
    try:
        tensors = _read_tensors(path, model.state_dict(), torch.device(device), dtype)
    except FileNotFoundError:
        raise UserError(f"the checkpoint '{folder}' lacks {WEIGHTS_FILE}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


def load_t2i(folder: Path, config: GenTronConfig) -> GenTron:
    """The video model of `config` on an image checkpoint's weights, in float32 and ready for training.

    Raises UserError when the checkpoint's model is not the image form of `config`.
    """
    stored = read_config(folder).model
    if stored != replace(config, temporal=None):
        raise UserError(
            f"{folder} holds another model than the image form of the recipe's: {stored} and {config}"
        )
    return GenTron.from_t2i(load_model(folder, stored, dtype=torch.float32).state_dict(), config)


def _read_tensors(
    path: Path, expected: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        stored = set(file.keys())
        if stored != set(expected):
            name = sorted(stored ^ set(expected))[0]
            problem = "lacks" if name in expected else "has the unknown"
            raise UserError(f"{path} does not fit its {CONFIG_FILE}: it {problem} tensor {name}")
        for name, tensor in expected.items():
            stored_tensor = file.get_slice(name)
            if not stored_tensor.get_dtype().startswith(("F", "BF")):
                raise UserError(
                    f"{path} is damaged: {name} must be of a floating-point type, got"
                    f" {stored_tensor.get_dtype()}"
                )
            shape = tuple(stored_tensor.get_shape())
            if shape != tuple(tensor.shape):
                raise UserError(
                    f"{path} does not fit its {CONFIG_FILE}: {name} must be {tuple(tensor.shape)},"
                    f" got {shape}"
                )
        return {name: file.get_tensor(name).to(device=device, dtype=dtype) for name in expected}


# ---- finding -----------------------------------------------------------------------------------------------


def models_folder() -> Path:
    """Where weights of named models are looked for: $GENTRON_MODELS, else ~/.cache/gentron/models."""
    return Path(os.environ.get("GENTRON_MODELS") or "~/.cache/gentron/models").expanduser()


def find_checkpoint(model: str, *, checkpoint: Path | None = None) -> Path:
    """The checkpoint folder of a model named on a command line: a preset's name or a folder.

    checkpoint: where the weights of a named preset are. Raises UserError with the ways on.
    """
    if model not in PRESETS:
        if model and Path(model).is_dir():
            if checkpoint is None:
                return Path(model)
            raise UserError(
                f"--checkpoint '{checkpoint}' has no effect on '{model}', a folder: give one of the two, or"
                f" one of {', '.join(PRESETS)} with --checkpoint"
            )
        known = ", ".join(PRESETS)
        raise UserError(f"unknown model '{model}'; known: {known}, or the folder of a checkpoint")
    folder = checkpoint or (bundled(model) if model in BUNDLED_MODELS else models_folder() / model)
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"no weights for '{model}' in '{folder}': give their folder with --checkpoint DIR, or put it"
            " there, or run the model untrained with --random-weights"
        )
    _check_is_preset(folder, model)
    return folder


def _check_is_preset(folder: Path, model: str) -> None:
    """A result under a preset's name must not come from another model; mini is whatever is bundled."""
    stored, named = read_config(folder).model, PRESETS[model]()
    if model in BUNDLED_MODELS:
        if (stored.temporal is None) != (named.temporal is None):
            kind = "an image model" if stored.temporal is None else "a video model"
            raise UserError(f"'{folder}' is not '{model}': it holds {kind}")
        return
    for name in [f.name for f in fields(named)]:
        expected, got = (getattr(config, name) for config in (named, stored))
        if got != expected:
            raise UserError(
                f"'{folder}' is not '{model}': {name} must be {expected}, got {got}; to run it as it"
                " is, give the folder as the model"
            )
