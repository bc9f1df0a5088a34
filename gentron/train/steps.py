"""A small resumable loop for the mini autoencoder and text encoders; the denoiser has its own (loop.py)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from gentron.errors import UserError

CHECKPOINT_EVERY = 500
LOG_EVERY = 50


class StepState:
    """Module, optimizer and step count of one run, written atomically and found again by `resume`."""

    def __init__(
        self,
        out: Path,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        config: dict[str, Any],
        resume: bool,
    ) -> None:
        self.out, self.module, self.optimizer = out, module, optimizer
        self.config = json.loads(json.dumps(config))
        self.step, self.last, self.started = 0, {}, time.monotonic()
        out.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            if not resume:
                raise UserError(f"{out} holds a run already: choose another --out, or let it resume")
            self._load()
        (out / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")

    @property
    def path(self) -> Path:
        return self.out / "state.pt"

    def _load(self) -> None:
        saved = torch.load(self.path, weights_only=True)
        if saved["config"] != self.config:
            raise UserError(f"{self.path} was made with other settings: choose another --out")
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]

    def save(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(
                {
                    "config": self.config,
                    "module": self.module.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)

    def note(self, text: str) -> None:
        self._log({"step": self.step, "note": text})

    def update(self, values: dict[str, Tensor], *, batch_size: int) -> None:
        """One optimizer step on values["loss"]; the other entries are logged."""
        self.optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        if self.step % LOG_EVERY == 0:
            self.last = {name: round(float(value.detach()), 5) for name, value in values.items()}
            seconds = round(time.monotonic() - self.started, 1)
            self._log({"step": self.step, "seconds": seconds, "batch_size": batch_size, **self.last})
        if self.step % CHECKPOINT_EVERY == 0:
            self.save()

    def _log(self, row: dict[str, Any]) -> None:
        with open(self.out / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")


def training_steps(
    state: StepState, *, total_steps: int, warmup_steps: int, learning_rate: float, title: str
) -> Iterator[int]:
    """Yield the steps that are left, setting the learning rate (warm-up, then cosine to zero) for each."""
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total_steps, completed=state.step, last="")
        for step in range(state.step, total_steps):
            warmup = min(1.0, (step + 1) / warmup_steps)
            rate = learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / total_steps))
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            yield step
            shown = "  ".join(f"{name} {value:.4g}" for name, value in state.last.items())
            progress.update(task, advance=1, last=shown)
    state.save()
