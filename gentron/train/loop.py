"""The training loop, for every size: one function, read from top to bottom."""

# B samples of a micro-batch, C latent channels, H W latent size

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gentron.atomic import atomic_file
from gentron.autoencoder import Autoencoder
from gentron.config import to_dict
from gentron.data import DataSource
from gentron.diffusion import NoiseSchedule, add_noise, target
from gentron.errors import UserError
from gentron.model import GenTron, GenTronConfig
from gentron.text import PromptEmbeds, TextEncoders
from gentron.train.ema import make_ema, update_ema
from gentron.train.loss import draw, loss_weights, squared_error
from gentron.train.metrics import MetricsLog, SpikeDetector, StepRecord, read_interval
from gentron.train.optimizer import learning_rate_at, make_optimizer, step_unless
from gentron.train.prefetch import prefetch, trim_padding
from gentron.train.recipe import TrainRecipe
from gentron.train.state import list_checkpoints, load_state, read_progress, save_state
from gentron.train.validation import sample_grid, sample_set, validation_losses, validation_set

CONFIG_FILE = "config.json"


class TrainResult(NamedTuple):
    """What a finished (or stopped) run leaves in memory."""

    ema: GenTron
    images_seen: int
    num_skipped: int
    seconds: float


class Prepared(NamedTuple):
    """A micro-batch ready for the model, on its device, with everything random drawn."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt_embeds: PromptEmbeds


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


def schedule_of(recipe: TrainRecipe) -> NoiseSchedule:
    return NoiseSchedule(rescale_zero_terminal_snr=recipe.zero_terminal_snr)


def check_run_folder(out: Path, *, resume: bool) -> None:
    """UserError unless `out` is free, or holds a run that is to be resumed."""
    if (out / CONFIG_FILE).exists():
        if not resume:
            raise UserError(f"{out} holds a run already: add --resume auto, or choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a run: choose another --out")


def start_run(out: Path, config: dict[str, object], *, resume: bool) -> Path | None:
    """Claim the run folder and store the configuration; the checkpoint to go on from, None for a new run.

    Raises UserError where check_run_folder does, and if the run there has another configuration.
    """
    check_run_folder(out, resume=resume)
    path, wanted = out / CONFIG_FILE, json.loads(json.dumps(config))
    if path.exists():
        try:
            stored = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}; choose another --out") from None
        wrong = sorted(_differences(stored, wanted))
        if wrong:
            raise UserError(
                f"{out} holds a run with another configuration ({'; '.join(wrong[:3])}): choose another --out"
            )
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    checkpoints = list_checkpoints(out)
    return checkpoints[-1] if checkpoints else None


def _differences(stored: object, wanted: object, path: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in stored.keys() | wanted.keys():
            yield from _differences(stored.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
    elif stored != wanted:
        yield f"{path}: {stored!r} there, {wanted!r} now"


def make_progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.completed:,.0f} / {task.total:,.0f} images"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def train(
    recipe: TrainRecipe,
    *,
    source: DataSource,
    text_encoders: TextEncoders,
    autoencoder: Autoencoder,
    out: Path,
    seed: int,
    device: torch.device,
    resume: bool = False,
    stop_at_images: int | None = None,
    build_model: Callable[[GenTronConfig], GenTron] = GenTron,
    initial_weights: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    console: Console | None = None,
) -> TrainResult:
    """Train until recipe.total_images (or stop_at_images, with the learning rate of the full length).

    Everything random about sample i of the run depends on (seed, i) alone: a resumed run equals an
    uninterrupted one bit for bit, and a split into micro-batches or ranks changes rounding only.
    initial_weights: for the record, where build_model takes its weights from.
    """
    console = console or Console(stderr=True)
    schedule = schedule_of(recipe)

    # The configuration is stored and shown before anything is computed.
    config = {
        "recipe": to_dict(recipe),
        "seed": seed,
        "data": source.name,
        "initial_weights": initial_weights,
    }
    checkpoint = start_run(out, config, resume=resume)
    console.print_json(json.dumps(config), indent=None)

    # Model, average, optimizer: from the seed, then from the checkpoint if there is one.
    torch.manual_seed(seed)  # for the initial weights only; nothing below draws from a global generator
    model = build_model(recipe.model).to(device).train()
    ema = make_ema(model)
    optimizer = make_optimizer(model.parameters(), recipe)
    progress = {"images_seen": 0, "num_skipped": 0, "seconds": 0.0, "spikes": None}
    if checkpoint is not None:
        load_state(checkpoint, model=model, ema=ema, optimizer=optimizer)
        progress = read_progress(checkpoint)
    images_seen, num_skipped = progress["images_seen"], progress["num_skipped"]
    spikes = SpikeDetector(progress["spikes"])

    # Everything that stays the same from step to step.
    weights = loss_weights(recipe, schedule).to(device)
    held_back = source.held_back()
    fixed = validation_set(held_back, text_encoders, schedule, seed=seed, device=device)
    sampled = sample_set(text_encoders, held_back, recipe, seed=seed, device=device)
    latent_shape = tuple(held_back.latents.shape[1:])
    stop_at = min(recipe.total_images, stop_at_images or recipe.total_images)
    assert recipe.global_batch_size % world_size == 0, (
        f"{world_size} ranks, {recipe.global_batch_size} samples"
    )
    share = recipe.global_batch_size // world_size  # this rank's consecutive part of every global batch
    micro_batch = min(recipe.micro_batch, share)
    decay = recipe.ema_decay_per_step
    records: list[StepRecord] = []
    started = time.monotonic() - progress["seconds"]
    interval_start, interval_images = time.monotonic(), images_seen

    def prepare(global_indices: range) -> Prepared:
        """Samples and everything random about them, from their global indices alone."""
        batch = source.batch(global_indices)
        drawn = draw(
            recipe,
            seed=seed,
            global_indices=global_indices,
            shape=latent_shape,
            num_timesteps=schedule.num_train_timesteps,
        )
        dropped = zip(drawn.drops_caption, batch.captions, strict=True)
        prompt_embeds = text_encoders.encode(["" if drops else caption for drops, caption in dropped])
        return Prepared(
            batch.latents.to(device),
            drawn.noise.to(device),
            drawn.timesteps.to(device),
            trim_padding(prompt_embeds.to(device)) if device.type == "cpu" else prompt_embeds.to(device),
        )

    def micro_batches() -> Iterator[range]:
        """This rank's part of every global batch that is left, cut into micro-batches."""
        for step_start in range(images_seen, stop_at, recipe.global_batch_size):
            first = step_start + rank * share
            for start in range(first, first + share, micro_batch):
                yield range(start, min(start + micro_batch, first + share))

    with ExitStack() as stack:
        stack.enter_context(attention(device))
        log = stack.enter_context(MetricsLog(out, images_seen=images_seen))
        bar = stack.enter_context(make_progress(console))
        task = bar.add_task("train", total=stop_at, completed=images_seen, state="")
        prepared = stack.enter_context(prefetch(prepare, micro_batches()))
        while images_seen < stop_at:
            # One optimizer step over the global batch, a micro-batch at a time: forward and backward.
            loss_sum = torch.zeros((), device=device)
            for _ in range(-(-share // micro_batch)):
                latents, noise, timesteps, prompt_embeds = next(prepared)
                noisy_latents = add_noise(schedule, latents, noise, timesteps)
                with autocast(device, recipe.precision):
                    model_output = model(noisy_latents, timesteps, prompt_embeds)
                wanted = target(schedule, latents, noise, timesteps, recipe.prediction_type)
                loss = (squared_error(model_output, wanted) * weights[timesteps]).sum()
                loss = loss / recipe.global_batch_size
                loss.backward()
                loss_sum += loss.detach()

            # Clip, step, average; a non-finite loss or gradient leaves all three untouched.
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
            non_finite = (~(torch.isfinite(grad_norm) & torch.isfinite(loss_sum))).float()
            learning_rate = learning_rate_at(recipe, images_seen)
            step_unless(optimizer, non_finite, learning_rate=learning_rate)
            update_ema(ema, model, decay=decay, non_finite=non_finite)

            before, images_seen = images_seen, images_seen + recipe.global_batch_size
            records.append(StepRecord(images_seen, loss_sum, grad_norm, non_finite))
            bar.update(task, completed=images_seen)
            is_last = images_seen >= stop_at
            saves = is_last or is_due(before, images_seen, recipe.checkpoint_every)

            # A row of metrics: the only place that waits for the device.
            if saves or is_due(before, images_seen, recipe.log_every):
                interval = read_interval(records, spikes)
                records.clear()
                num_skipped += interval.num_skipped
                now = time.monotonic()
                rate = (images_seen - interval_images) / (now - interval_start)
                interval_start, interval_images = now, images_seen
                row = {
                    "loss": interval.loss,
                    "grad_norm": interval.grad_norm,
                    "max_grad_norm": interval.max_grad_norm,
                    "learning_rate": learning_rate,
                    "num_skipped": num_skipped,
                    "images_per_second": round(rate, 2),
                    "seconds": round(now - started, 2),
                }
                log.write("train", images_seen, row)
                for at, spike in interval.spikes:
                    log.write("spike", at, {"loss": spike, "first_sample": at - recipe.global_batch_size})
                for at in interval.skipped_at:
                    log.write("skipped", at, {"first_sample": at - recipe.global_batch_size})
                shown = "none" if interval.loss is None else f"{interval.loss:.4f}"
                bar.update(task, state=f"loss {shown}  {rate:.0f} images/s")
                if not console.is_terminal:
                    left = (stop_at - images_seen) / rate / 60
                    line = f"{images_seen:,} images  loss {shown}  {rate:.1f} images/s  {left:.0f} min left"
                    console.print(line, highlight=False)

            # Validation loss and pictures, both with the averaged weights.
            if is_last or is_due(before, images_seen, recipe.validate_every):
                with autocast(device, recipe.precision):
                    losses = validation_losses(ema, fixed, schedule, recipe)
                mean = float(np.mean(list(losses.values())))
                log.write(
                    "validation", images_seen, {"loss": mean, **{f"t{t}": v for t, v in losses.items()}}
                )
                console.print(f"{images_seen:,} images  validation loss {mean:.4f}", highlight=False)
            if sampled is not None and (is_last or is_due(before, images_seen, recipe.sample_every)):
                with autocast(device, recipe.precision):
                    grid = sample_grid(ema, sampled, autoencoder, schedule, recipe)
                (out / "samples").mkdir(exist_ok=True)
                grid.save(out / "samples" / f"{images_seen:012d}.png")
                log.picture("samples", images_seen, np.asarray(grid))

            # A checkpoint, whole or absent.
            if saves:
                progress = {
                    "images_seen": images_seen,
                    "num_skipped": num_skipped,
                    "seconds": time.monotonic() - started,
                    "spikes": spikes.state,
                    "config": config,
                }
                save_state(out, model=model, ema=ema, optimizer=optimizer, progress=progress)
                interval_start = time.monotonic()  # validation and writing are not training speed
    return TrainResult(ema, images_seen, num_skipped, time.monotonic() - started)
