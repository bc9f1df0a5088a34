"""What a training run left on disk, without what the clock says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from gentron.train import state

CLOCK = ("seconds", "images_per_second", "samples_per_second")


def rows(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    parsed = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in parsed if kind in (None, row["kind"])]


def tensors(out: Path, samples_seen: int) -> dict[str, Tensor]:
    """Of the checkpoint after so many samples: "model/...", "ema/...", "optimizer/..."."""
    folder = state.checkpoint_folder(out, samples_seen)
    return {
        f"{name}/{key}": value
        for name in ("model", "ema", "optimizer")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }
