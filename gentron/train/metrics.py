"""What a run writes down: rows of metrics.jsonl, TensorBoard, and the spikes among them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

SPIKE_DEVIATIONS = 6.0
SPIKE_HISTORY = 100


class StepRecord(NamedTuple):
    """One optimizer step, its numbers still on the device (0-dim)."""

    samples_seen: int
    loss: Tensor
    grad_norm: Tensor
    non_finite: Tensor
    kind: str | None = None


class Interval(NamedTuple):
    """The steps since the last row; means over the steps that were taken, None if there was none."""

    loss: float | None
    grad_norm: float | None
    max_grad_norm: float | None
    num_skipped: int
    skipped_at: list[int]
    spikes: list[tuple[int, float]]
    loss_by_kind: dict[str, float] = {}
    """Where the task has several kinds of steps."""


class SpikeDetector:
    """A loss far above its recent mean, in recent standard deviations; its state is four numbers."""

    def __init__(self, state: dict[str, float] | None = None) -> None:
        self.state = state or {"count": 0.0, "mean": 0.0, "variance": 0.0}

    def is_spike(self, loss: float) -> bool:
        count, mean, variance = self.state["count"], self.state["mean"], self.state["variance"]
        limit = mean + SPIKE_DEVIATIONS * math.sqrt(variance)
        spike = count >= SPIKE_HISTORY and loss > limit
        weight = 1 / min(count + 1, SPIKE_HISTORY)
        delta = (limit if spike else loss) - mean  # a spike must not hide the next one
        self.state = {
            "count": count + 1,
            "mean": mean + weight * delta,
            "variance": (1 - weight) * (variance + weight * delta**2),
        }
        return spike


def read_interval(records: list[StepRecord], detector: SpikeDetector) -> Interval:
    """Bring the records' numbers to the host: the one device synchronisation of a log interval."""
    if not records:
        return Interval(None, None, None, 0, [], [])
    rows = torch.stack([torch.stack([r.loss, r.grad_norm, r.non_finite]).float() for r in records]).tolist()
    taken = [(r, loss, norm) for r, (loss, norm, bad) in zip(records, rows, strict=True) if not bad]
    skipped_at = [r.samples_seen for r, (_, _, bad) in zip(records, rows, strict=True) if bad]
    spikes = [(r.samples_seen, loss) for r, loss, _ in taken if detector.is_spike(loss)]
    if not taken:
        return Interval(None, None, None, len(skipped_at), skipped_at, spikes)
    losses, norms = [t[1] for t in taken], [t[2] for t in taken]
    by_kind: dict[str, list[float]] = {}
    for record, loss, _ in taken:
        if record.kind is not None:
            by_kind.setdefault(record.kind, []).append(loss)
    return Interval(
        sum(losses) / len(losses),
        sum(norms) / len(norms),
        max(norms),
        len(skipped_at),
        skipped_at,
        spikes,
        {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())},
    )


def truncate_metrics(path: Path, *, unit: str, seen: int) -> None:
    """Drop the rows after `seen` samples, and a row cut short: the resumed run will write them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)[f"{unit}_seen"] <= seen:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), "utf-8")
    os.replace(temporary, path)


class MetricsLog:
    """Rows to metrics.jsonl and their numbers to TensorBoard, both cut back to where the run goes on.

    unit: what the samples are called; a row says how many "<unit>_seen" it stands at.
    """

    def __init__(self, out: Path, *, unit: str, seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._unit = unit
        truncate_metrics(out / "metrics.jsonl", unit=unit, seen=seen)
        self._file = open(out / "metrics.jsonl", "a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=seen + 1)

    def write(self, kind: str, seen: int, values: dict[str, Any]) -> None:
        """A row {"kind", "<unit>_seen", ...}; numbers also go to TensorBoard as kind/name."""
        row = {"kind": kind, f"{self._unit}_seen": seen, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, seen)

    def picture(self, name: str, seen: int, pixels: Any) -> None:
        """pixels: (H, W, 3) uint8."""
        self._board.add_image(name, pixels, seen, dataformats="HWC")

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()
