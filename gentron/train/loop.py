"""The training loop, for every task and size: one function, read from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Generic, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gentron.config import to_dict
from gentron.train.ema import make_ema, update_ema
from gentron.train.metrics import MetricsLog, SpikeDetector, StepRecord, read_interval
from gentron.train.optimizer import learning_rate_at, make_optimizer, step_unless
from gentron.train.prefetch import prefetch
from gentron.train.recipe import TrainRecipe
from gentron.train.run_folder import start_run
from gentron.train.state import load_state, read_progress, save_state
from gentron.train.task import B, M, Task


class TrainResult(NamedTuple, Generic[M]):
    """What a finished (or stopped) run leaves in memory."""

    ema: M
    samples_seen: int
    num_skipped: int
    seconds: float


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def attention(device: torch.device) -> AbstractContextManager[object]:
    """On a CPU, attention as explicit products: its flash backward in bf16 took twice the rest of the step.

    The choice is global to the process, not to a thread, so it is made once, around everything.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def is_due(before: int, now: int, every: int) -> bool:
    """A multiple of `every` lies in (before, now]."""
    return now // every > before // every


def make_progress(console: Console, unit: str) -> Progress:
    columns = (
        TextColumn(f"{{task.completed:,.0f}} / {{task.total:,.0f}} {unit}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def train(
    recipe: TrainRecipe,
    task: Task[M, B],
    *,
    out: Path,
    seed: int,
    device: torch.device,
    resume: bool = False,
    stop_at: int | None = None,
    initial_weights: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    console: Console | None = None,
) -> TrainResult[M]:
    """Train until recipe.total_images samples (or stop_at, with the learning rate of the full length).

    Everything random about sample i of the run depends on (seed, i) alone: a resumed run equals an
    uninterrupted one bit for bit, and a split into micro-batches or ranks changes rounding only.
    initial_weights: for the record, where the task takes its weights from.
    """
    console = console or Console(stderr=True)

    # The configuration is stored and shown before anything is computed.
    config = {
        "recipe": to_dict(recipe),
        "seed": seed,
        "data": task.data,
        "initial_weights": initial_weights,
    }
    checkpoint = start_run(out, config, resume=resume)
    console.print_json(json.dumps(config), indent=None)

    # Model, average, optimizer: from the seed, then from the checkpoint if there is one.
    torch.manual_seed(seed)  # for the initial weights only; nothing below draws from a global generator
    model = task.build_model().to(device).train()
    ema = make_ema(model)
    optimizer = make_optimizer(model, recipe)
    progress = {"samples_seen": 0, "num_skipped": 0, "seconds": 0.0, "spikes": None}
    if checkpoint is not None:
        load_state(checkpoint, model=model, ema=ema, optimizer=optimizer)
        progress = read_progress(checkpoint)
    samples_seen, num_skipped = progress["samples_seen"], progress["num_skipped"]
    spikes = SpikeDetector(progress["spikes"])

    # Everything that stays the same from step to step.
    stop_at = min(recipe.total_images, stop_at or recipe.total_images)
    assert recipe.global_batch_size % world_size == 0, (
        f"{world_size} ranks, {recipe.global_batch_size} samples"
    )
    share = recipe.global_batch_size // world_size  # this rank's consecutive part of every global batch
    micro_batch = min(recipe.micro_batch, share)
    decay = recipe.ema_decay_per_step
    records: list[StepRecord] = []
    told: set[str] = set()
    started = time.monotonic() - progress["seconds"]
    interval_start, interval_samples = time.monotonic(), samples_seen

    step_starts = range(samples_seen, stop_at, recipe.global_batch_size)  # of the steps that are left

    def micro_batches() -> Iterator[range]:
        """This rank's part of every global batch that is left, cut into micro-batches."""
        for step_start in step_starts:
            first = step_start + rank * share
            for start in range(first, first + share, micro_batch):
                yield range(start, min(start + micro_batch, first + share))

    with ExitStack() as stack:
        stack.enter_context(attention(device))
        log = stack.enter_context(MetricsLog(out, unit=task.unit, seen=samples_seen))
        bar = stack.enter_context(make_progress(console, task.unit))
        row_of_bar = bar.add_task("train", total=stop_at, completed=samples_seen, state="")
        prepared = stack.enter_context(prefetch(task.prepare, micro_batches()))
        for before in step_starts:
            # One optimizer step over the global batch, a micro-batch at a time: forward and backward.
            loss_sum, kind = torch.zeros((), device=device), None
            samples_seen = before + recipe.global_batch_size
            for _ in range(-(-share // micro_batch)):
                batch, kind, unreadable = next(prepared)
                with autocast(device, recipe.precision):
                    loss = task.loss(model, batch)
                loss.backward()
                loss_sum += loss.detach()
                for reason in unreadable:
                    log.write("unreadable", samples_seen, {"reason": reason})
                    if reason not in told:
                        told.add(reason)
                        console.print(f"skipped: {reason}", highlight=False)

            # Clip, step, average; a non-finite loss or gradient leaves all three untouched.
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
            non_finite = (~(torch.isfinite(grad_norm) & torch.isfinite(loss_sum))).float()
            learning_rate = learning_rate_at(recipe, before)
            step_unless(optimizer, non_finite, learning_rate=learning_rate)
            update_ema(ema, model, decay=decay, non_finite=non_finite)

            records.append(StepRecord(samples_seen, loss_sum, grad_norm, non_finite, kind))
            bar.update(row_of_bar, completed=samples_seen)
            is_last = samples_seen >= stop_at
            saves = is_last or is_due(before, samples_seen, recipe.checkpoint_every)

            # A row of metrics: the only place that waits for the device.
            if saves or is_due(before, samples_seen, recipe.log_every):
                interval = read_interval(records, spikes)
                records.clear()
                num_skipped += interval.num_skipped
                now = time.monotonic()
                rate = (samples_seen - interval_samples) / (now - interval_start)
                interval_start, interval_samples = now, samples_seen
                row = {
                    "loss": interval.loss,
                    **{f"loss_{name}": value for name, value in interval.loss_by_kind.items()},
                    "grad_norm": interval.grad_norm,
                    "max_grad_norm": interval.max_grad_norm,
                    "learning_rate": learning_rate,
                    "num_skipped": num_skipped,
                    f"{task.unit}_per_second": round(rate, 2),
                    "seconds": round(now - started, 2),
                }
                log.write("train", samples_seen, row)
                for at, spike in interval.spikes:
                    log.write("spike", at, {"loss": spike, "first_sample": at - recipe.global_batch_size})
                for at in interval.skipped_at:
                    log.write("skipped", at, {"first_sample": at - recipe.global_batch_size})
                shown = "none" if interval.loss is None else f"{interval.loss:.4f}"
                shown += "".join(f"  {name} {value:.4f}" for name, value in interval.loss_by_kind.items())
                bar.update(row_of_bar, state=f"loss {shown}  {rate:.0f} {task.unit}/s")
                if not console.is_terminal:
                    left = (stop_at - samples_seen) / rate / 60
                    line = f"{samples_seen:,} {task.unit}  loss {shown}  {rate:.1f} {task.unit}/s  "
                    console.print(f"{line}{left:.0f} min left", highlight=False)

            # Validation losses and pictures, both with the averaged weights.
            if is_last or is_due(before, samples_seen, recipe.validate_every):
                with autocast(device, recipe.precision):
                    validated = task.validate(ema)
                for name, values in validated.items():
                    log.write(name, samples_seen, values)
                    line = f"{samples_seen:,} {task.unit}  {name.replace('_', ' ')} loss {values['loss']:.4f}"
                    console.print(line, highlight=False)
            if task.sample is not None and (is_last or is_due(before, samples_seen, recipe.sample_every)):
                with autocast(device, recipe.precision):
                    picture = task.sample(ema)
                (out / "samples").mkdir(exist_ok=True)
                picture.save(out / "samples" / f"{samples_seen:012d}.png")
                log.picture("samples", samples_seen, np.asarray(picture))

            # A checkpoint, whole or absent.
            if saves:
                progress = {
                    "samples_seen": samples_seen,
                    "num_skipped": num_skipped,
                    "seconds": time.monotonic() - started,
                    "spikes": spikes.state,
                    "config": config,
                }
                save_state(out, model=model, ema=ema, optimizer=optimizer, progress=progress)
                interval_start = time.monotonic()  # validation and writing are not training speed
    return TrainResult(ema, samples_seen, num_skipped, time.monotonic() - started)
