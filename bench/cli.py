"""The command `gentron-bench`. Heavy libraries are imported once a command runs: --help is instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentron.console import make_app, run_app
from gentron.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from bench.judge_accuracy import Accuracy, Change

app = make_app("gentron-bench: measures GenTron and any other text-to-image system.")

COMPBENCH = "compbench-shapes_v1"


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with images/s and time left, on stderr; silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)


@app.command()
def compbench(
    model: Annotated[
        str,
        typer.Option(
            help="mini, xl2, g2, s2, b2, l2, a checkpoint folder, folder:DIR (images made elsewhere),"
            " or diffusers:REPO_OR_DIR."
        ),
    ] = "mini",
    suite: Annotated[str, typer.Option(help="attribute-binding, relations, complex or all.")] = "all",
    images_per_prompt: Annotated[
        int | None, typer.Option(max=1000, help="Default: the protocol's.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="First N prompts of each category only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the protocol's.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where images are kept for resuming.")] = Path("runs/bench"),
    checkpoint: Annotated[Path | None, typer.Option(help="Where the weights of a named model are.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Run the model untrained, as a smoke test.")
    ] = False,
    num_inference_steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="1 is no guidance.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddpm, ddim, dpmpp_2m, heun, unipc.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels along a side.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per pass on a GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what is there; the result says so.")
    ] = False,
) -> None:
    """Score a system on T2I-CompBench's six categories over the shapes world.

    The same command goes on where a killed run stopped.
    """
    from bench.protocol import load_protocol

    protocol = load_protocol(COMPBENCH)
    if seed is not None and seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    # cheap inputs first: a wrong suite should not wait for a model to load
    protocol.select(suite, limit=limit)
    images = protocol.config.images_per_prompt if images_per_prompt is None else images_per_prompt
    if images < 1:
        raise ValueError(f"images_per_prompt must be >= 1, got {images}")
    for name, value in (("num_inference_steps", num_inference_steps), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")

    from bench.run import RunSettings, run
    from bench.systems import SystemOptions, parse_system

    options = SystemOptions(
        device=device,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        batch_size=batch_size,
        random_weights=random_weights,
        checkpoint=checkpoint,
        image_size=image_size,
    )
    settings = RunSettings(
        suite=suite,
        seed=protocol.config.seed if seed is None else seed,
        images_per_prompt=images,
        limit=limit,
        allow_missing=allow_missing,
    )
    system = parse_system(model, options)
    result, folder = run(protocol, system, settings, work=work, out=out, stage=_progress)

    from rich.console import Console

    from bench.report import notes, reference, result_table

    console = Console(width=None if Console().is_terminal else 120)
    console.print(result_table(result, reference(protocol.name, protocol.sha256)))
    for line in notes(result):
        console.print(line, style="dim", markup=False)
    console.print(f"result: {folder / 'result.json'}", markup=False, soft_wrap=True)


@app.command(name="list")
def list_() -> None:
    """Protocols, suites, categories and systems."""
    from bench.protocol import load_protocol, protocol_names
    from gentron.presets import PRESETS

    for name in protocol_names():
        protocol = load_protocol(name)
        typer.echo(f"protocol {name}  sha256 {protocol.sha256[:16]}")
        for category, prompts in protocol.prompts.items():
            heldout = sum(bool(prompt.heldout) for prompt in prompts)
            typer.echo(f"  {category}: {len(prompts)} prompts, {heldout} held out")
        typer.echo(f"  suites: {', '.join(protocol.config.suites)}")
    typer.echo(f"systems: {', '.join(PRESETS)}, a checkpoint folder, folder:DIR, diffusers:REPO_OR_DIR")


@app.command()
def judge(
    autoencoder: Annotated[
        Path | None, typer.Option(help="Also after encoding and decoding with this one.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(max=10**7, help="Scenes.")] = 1000,
    seed: Annotated[int, typer.Option(max=2**64 - 1, help="Of the scenes.")] = 1,
    device: Annotated[str, typer.Option(help="Where the autoencoder runs.")] = "auto",
) -> None:
    """Measure the judge itself: how often it is right on scenes that are known."""
    if count < 2:
        raise ValueError(f"count must be >= 2, got {count}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if autoencoder is not None and not autoencoder.is_dir():
        raise UserError(f"no autoencoder folder '{autoencoder}'")
    from rich.console import Console

    from bench.judge_accuracy import CHANGES, measure

    changes: dict[str, Change] = dict(CHANGES)
    if autoencoder is not None:
        changes["autoencoded"] = _autoencoded(autoencoder, device)
    found = {name: measure(change, count=count, seed=seed) for name, change in changes.items()}
    Console(width=None if Console().is_terminal else 120).print(_accuracy_table(found, count))


def _autoencoded(folder: Path, device: str) -> Change:
    import numpy as np
    import torch

    from gentron.autoencoder import Autoencoder
    from gentron.pipeline import usable_device

    place = usable_device(device)
    model = Autoencoder.from_pretrained(folder, device=place)

    @torch.no_grad()
    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(place) / 127.5 - 1
        decoded = model.decode(model.encode(pixels))[0].float().clamp(-1, 1)
        return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    return change


def _accuracy_table(found: dict[str, Accuracy], count: int) -> Table:
    from rich.table import Table

    from bench.judge_accuracy import FALSE, QUESTIONS

    first = next(iter(found.values()))
    table = Table(title=f"The judge on {count} scenes: share of right answers", title_justify="left")
    table.add_column("question")
    table.add_column("n", justify="right")
    for name in found:
        table.add_column(name, justify="right")
    for question in QUESTIONS:
        if first.asked[question]:
            shares = [f"{accuracy.share(question):.4f}" for accuracy in found.values()]
            table.add_row(question, str(first.asked[question]), *shares)
    table.add_section()
    table.add_row("score of the true caption", "", *(f"{a.true_caption:.4f}" for a in found.values()))
    for what in FALSE:
        scores = [f"{a.false_captions.get(what, float('nan')):.4f}" for a in found.values()]
        table.add_row(f"score, false {what}" if what != "other scene" else "score, other scene", "", *scores)
    return table


@app.command()
def report(results: Annotated[Path, typer.Option(help="Folder of results.")] = Path("results")) -> None:
    """Write README.md with a table of all results."""
    from bench.images import write_atomic
    from bench.report import find_results, markdown

    found = find_results(results)
    if not found:
        raise UserError(f"no results in '{results}': expected <protocol>/<system>/<run>/result.json")
    write_atomic(results / "README.md", markdown(found, results).encode())
    typer.echo(f"{results / 'README.md'}: {len(found)} results")


def main() -> None:
    run_app(app)
