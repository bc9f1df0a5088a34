"""Training checkpoints: a folder per save, whole or absent, and how a run finds its last one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gentron.atomic import atomic_folder
from gentron.errors import UserError

KEEP = 2
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def checkpoint_folder(out: Path, samples_seen: int) -> Path:
    return out / "checkpoints" / f"{samples_seen:012d}"


def list_checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints, oldest first (an incomplete one never carries a plain number as its name)."""
    return sorted(p for p in (out / "checkpoints").glob("*") if p.name.isdigit() and p.is_dir())


def save_state(
    out: Path, *, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]
) -> Path:
    """Write everything that a resume needs; `progress` holds samples_seen. Keeps the last two checkpoints.

    A kill at any moment leaves the newest numbered folder whole. Raises OSError when the disk is full.
    """
    final = checkpoint_folder(out, progress["samples_seen"])
    if final.exists():
        return final
    for leftover in final.parent.glob(".*.tmp"):  # of a run that was killed while it wrote
        shutil.rmtree(leftover)
    try:
        with atomic_folder(final) as folder:
            _save_tensors(model.state_dict(), folder / "model.safetensors")
            _save_tensors(ema.state_dict(), folder / "ema.safetensors")
            _save_tensors(_optimizer_tensors(optimizer, model), folder / "optimizer.safetensors")
            (folder / "progress.json").write_text(json.dumps(progress, indent=2) + "\n", "utf-8")
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(f"cannot write checkpoint {final}: {error}") from error
    for old in list_checkpoints(out)[:-KEEP]:
        shutil.rmtree(old)
    return final


def read_progress(folder: Path) -> dict[str, Any]:
    try:
        progress = json.loads((folder / "progress.json").read_text("utf-8"))
        if "images_seen" in progress:  # before there were other samples than images
            progress["samples_seen"] = progress.pop("images_seen")
        return progress
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read checkpoint {folder}: {error}; delete that folder to go on") from None


def load_state(folder: Path, *, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors back where save_state took them from, bit for bit."""
    try:
        weights, averages, moments = (
            load_file(folder / f"{name}.safetensors") for name in ("model", "ema", "optimizer")
        )
        model.load_state_dict(weights)
        ema.load_state_dict(averages)
        for name, parameter in model.named_parameters():
            if f"step/{name}" in moments:
                optimizer.state[parameter] = {m: moments[f"{m}/{name}"].to(parameter.device) for m in MOMENTS}
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot load checkpoint {folder}: {reason}; delete that folder to go on") from None
