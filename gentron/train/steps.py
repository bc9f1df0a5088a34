"""A small resumable loop for the mini autoencoder and text encoders; the denoiser has its own (loop.py)."""

from __future__ import annotations

import io
import json
import math
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.train.run_folder import start_run

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
        """Claim the folder `out` for a run with this config, or go on with the one that it holds.

        Raises UserError if `out` holds anything else, a run and `resume` is False, or a damaged run.
        """
        self.out, self.module, self.optimizer = out, module, optimizer
        self.step, self.last, self.started = 0, {}, time.monotonic()
        start_run(out, config, resume=resume)
        if self.path.exists():
            self._load()
        self._cut_log()

    @property
    def path(self) -> Path:
        return self.out / "state.pt"

    @property
    def log_path(self) -> Path:
        return self.out / "metrics.jsonl"

    def _load(self) -> None:
        try:
            saved = torch.load(self.path, weights_only=True)
            self.module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.path} is damaged: {reason}; delete it to begin anew") from None

    def save(self) -> None:
        """Raises OSError when the disk is full; the last state stays then."""
        buffer = io.BytesIO()  # torch's own file writer reports a full disk as a position that is wrong
        torch.save(
            {
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
            },
            buffer,
        )
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

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
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _cut_log(self) -> None:
        """Drop the rows after the state that was found, and one cut short: they will be written again."""
        if not self.log_path.exists():
            return
        kept = []
        for line in self.log_path.read_text("utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        with atomic_file(self.log_path) as temporary:
            temporary.write_text("".join(kept), "utf-8")


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
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
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
