"""`gentron-bench calibrate`: the noise of an unchanged system, as tolerances for the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import (
    Checkpoint,
    Device,
    GuidanceScale,
    Limit,
    Models,
    NumInferenceSteps,
    Work,
    system_options,
)

if TYPE_CHECKING:
    from rich.table import Table

    from bench.compare.band import Band


def calibrate(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results of one system with different seeds; or give --model.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File of the band.")] = Path("band.json"),
    model: Annotated[
        str | None, typer.Option(help="System to run, as compbench takes it.", show_default=False)
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs of --model, each with a seed of its own.", min=2)] = 3,
    first_seed: Annotated[int, typer.Option(help="Of the first run; the others count up.", min=0)] = 1,
    protocol: Annotated[
        str | None, typer.Option(help="Default: as compbench chooses.", show_default=False)
    ] = None,
    suite: Annotated[str, typer.Option(help="As compbench takes it.")] = "all",
    images_per_prompt: Annotated[
        int | None, typer.Option(max=1000, min=1, help="Default: the protocol's.", show_default=False)
    ] = None,
    limit: Limit = None,
    results_out: Annotated[Path, typer.Option(help="Where results of the runs go.")] = Path("runs/calibrate"),
    work: Work = Path("runs/bench"),
    checkpoint: Checkpoint = None,
    num_inference_steps: NumInferenceSteps = None,
    guidance_scale: GuidanceScale = None,
    models: Models = None,
    device: Device = "auto",
    alpha: Annotated[float, typer.Option(help="The band is left by chance in this share of pairs.")] = 0.05,
) -> None:
    """Run base against base with new seeds and write how far each metric moves: the gate's noise."""
    from gentron.atomic import check_writable

    if (model is None) == (not results):
        raise ValueError("give either results of one system with different seeds, or --model")
    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha must be above 0 and at most 0.5, got {alpha}")
    check_writable(out)

    from bench.compare.calibrate import calibrate as make_band
    from bench.compare.calibrate import measure
    from bench.results.evidence import load

    folders = list(results or [])
    if model is not None:
        from bench.commands.compbench import default_protocol
        from bench.commands.progress import stage
        from bench.jobs.compbench import RunSettings, build_scorers, run
        from bench.prompts.protocol import load_protocol
        from bench.scorers import Context
        from bench.systems import parse_system
        from gentron.device import usable_device

        chosen = load_protocol(protocol or default_protocol(model))
        chosen.select(suite, limit=limit)
        options = system_options(
            checkpoint=checkpoint,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            device=str(usable_device(device)),
        )
        context = Context(device=options.device, models=models, cache=work / "cache")
        scorers = build_scorers(chosen, suite, context)
        system = parse_system(model, options)

        def run_once(seed: int):
            settings = RunSettings(
                suite=suite,
                seed=seed,
                images_per_prompt=images_per_prompt or chosen.config.images_per_prompt,
                limit=limit,
                allow_missing=False,
            )
            return run(chosen, system, settings, work=work, out=results_out, stage=stage, scorers=scorers)

        folders = measure(run_once, range(first_seed, first_seed + runs))

    band = make_band([load(folder) for folder in folders], alpha=alpha)

    from bench.commands.progress import wide_console
    from bench.compare.band import dump_band
    from bench.systems.images import write_atomic

    write_atomic(out, dump_band(band))
    console = wide_console()
    console.print(_table(band))
    found, seeds = band.a_a, ", ".join(str(run.seed) for run in band.runs)
    console.print(
        f"{len(band.runs)} runs, seeds {seeds}: of {found.pairs} pairs"
        f" through the gate {found.regressions} were regressions and {found.inconclusive} inconclusive",
        markup=False,
        soft_wrap=True,
    )
    if band.rehearsal:
        console.print("untrained or random weights: a rehearsal, not a result", markup=False)
    console.print(f"band: {out}", markup=False, soft_wrap=True)


def _table(band: Band) -> Table:
    from rich.markup import escape
    from rich.table import Table

    title = f"{band.protocol}: {band.system.name} against itself with other seeds"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("metric", "mean", "band", "largest seen", "sd of a prompt", "prompts"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, found in band.metrics.items():
        numbers = (found.mean, found.band, found.largest, found.sd_difference)
        table.add_row(escape(name), *(f"{value:.3f}" for value in numbers), str(found.num_prompts))
    return table
