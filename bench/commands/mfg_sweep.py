"""`gentron-bench mfg-sweep`: what motion-free guidance does, value by value of lambda_M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import Models, Out, Work, takes_system_options
from bench.sweeps.grid import MINI_LAMBDA_M, Cell, cells, parse_values
from bench.systems import SystemOptions
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.sweeps.mfg import Swept
    from bench.sweeps.table import SweepRecord

MOTION = "motion-shapes_v1"
FLOWS = ("auto", "raft", "dis")
DEFAULT_LIMIT = 20  # prompts a category of motion-shapes_v1: 120 clips a value


@takes_system_options(without=("guidance_scale", "motion_guidance_scale", "image_size"))
def mfg_sweep(
    *,
    model: Annotated[
        str, typer.Option(help="mini-t2v, xl2-t2v, g2-t2v or the checkpoint folder of a video model.")
    ] = "mini-t2v",
    lambda_m: Annotated[
        str,
        typer.Option(
            "--lambda-m",
            help="Motion guidance: numbers and ranges start:stop:step by commas. 1, which all others are"
            " compared with, is always among them.",
        ),
    ] = MINI_LAMBDA_M,
    lambda_t: Annotated[
        str | None,
        typer.Option(
            "--lambda-t", help="Text guidance, likewise. Default: the model's own.", show_default=False
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help=f"Whose prompts. Default: {MOTION} for models of the shapes world.", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Or a file: a prompt a line, or .jsonl with text and id.", show_default=False),
    ] = None,
    suite: Annotated[str, typer.Option(help="all, or a suite or category of the protocol.")] = "all",
    limit: Annotated[
        int | None,
        typer.Option(
            help=f"First N prompts a category; 0 is all. Default: {DEFAULT_LIMIT} of {MOTION}, else all.",
            show_default=False,
        ),
    ] = None,
    clips_per_prompt: Annotated[
        int | None, typer.Option(max=1000, help="Default: the protocol's, or 1.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Default: the protocol's, or 0.", show_default=False)
    ] = None,
    flow: Annotated[
        str, typer.Option(help="Optical flow: raft, dis, or auto: RAFT where its weights are, else DIS.")
    ] = "auto",
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of clips: adds distances of all frames to theirs.", show_default=False),
    ] = None,
    set_metrics: Annotated[
        str, typer.Option(help="With a reference: what `fid` knows, of all frames as pictures.")
    ] = "fd-mini",
    sheets: Annotated[int, typer.Option(min=0, max=50, help="Contact sheets: prompts shown.")] = 6,
    study: Annotated[
        str | None,
        typer.Option(
            help="Two values of lambda_M, by a comma: export a human study of them.", show_default=False
        ),
    ] = None,
    study_out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("mfg-study"),
    raters: Annotated[int, typer.Option(help="Of the study.")] = 5,
    models: Models = None,
    out: Out = Path("results"),
    work: Work = Path("runs/bench"),
    system: SystemOptions,
) -> None:
    """Draw the same prompts and seeds under every lambda_M and measure frames, text, motion and flicker.

    Writes a table (JSON and CSV), the plot of quality against motion with its Pareto front, contact sheets
    and a page. A killed sweep goes on; a wider grid draws only what is new. Under torchrun every process does
    its share.
    """
    if flow not in FLOWS:
        raise ValueError(f"unknown flow '{flow}'; known: {', '.join(FLOWS)}")
    motions = parse_values(lambda_m, name="lambda_m")
    texts = None if lambda_t is None else parse_values(lambda_t, name="lambda_t")
    pair = _pair(study, motions)
    if study is not None and study_out.exists():
        raise UserError(f"'{study_out}' stands already: give another --study-out")

    from bench.commands.progress import stage
    from bench.commands.video import chosen_flow, open_system
    from bench.jobs.clip_source import Choice
    from bench.jobs.video import Places
    from bench.set_metrics.measure import jobs
    from bench.sharding import Shard
    from bench.sweeps.mfg import SweepOptions, run
    from bench.systems.clips import find_clips
    from bench.systems.gentron import GenTronSystem
    from gentron.device import usable_device

    options = SweepOptions(
        flow=chosen_flow(flow, models),
        reference=None if reference is None else find_clips(reference),
        frame_jobs=jobs([word.strip() for word in set_metrics.split(",")], ("clean",)),
    )
    if limit is None and prompts is None and protocol in (None, MOTION):
        limit = DEFAULT_LIMIT
    choice = Choice(suite=suite, limit=limit or None, clips_per_prompt=clips_per_prompt, seed=seed)
    shard = Shard.from_environment()
    place = str(usable_device(system.device))
    system = replace(system, device=place)
    drawn_by, source = open_system(model, system, protocol, prompts, choice, work=work)
    grid = cells(motions, texts or [float(drawn_by.info.settings["guidance_scale"])])

    def at(cell: Cell) -> GenTronSystem:
        return drawn_by.at(
            guidance_scale=cell.guidance_scale, motion_guidance_scale=cell.motion_guidance_scale
        )

    for cell in grid:
        at(cell)  # a scale that the model cannot have is said before the first clip
    places = Places(out=out, work=work, device=place, models=models)
    swept = run(grid, at, source, options, places=places, stage=stage, shard=shard)
    shard.leave()
    if swept is None:
        return
    write_pictures(swept, num_sheets=sheets)
    _show(swept)
    if pair is not None:
        from bench.sweeps.study import export_study

        done = export_study(
            swept,
            pair,
            fps=drawn_by.info.media.fps or 4.0,
            raters=raters,
            out=study_out,
            work=work / "study",
            stage=stage,
        )
        typer.echo(f"study of lambda_M {pair[0]:g} and {pair[1]:g}: {done.folder}; key: {done.key}")


def _pair(study: str | None, motions: Sequence[float]) -> tuple[float, float] | None:
    if study is None:
        return None
    try:
        first, second = (float(word) for word in study.split(","))
    except ValueError:
        raise ValueError(f"study must be two values of lambda_M by a comma, got '{study}'") from None
    for value in (first, second):
        if value not in (*motions, 1.0):
            raise ValueError(f"study: lambda_M {value:g} is not in the grid")
    if first == second:
        raise ValueError(f"study must be of two different values, got {first:g} twice")
    return first, second


# ---- what is written and shown ----------------------------------------------------------------------------


def write_pictures(swept: Swept, *, num_sheets: int) -> None:
    """Plots, contact sheets and the page beside the table."""
    from bench.sweeps.drawing import to_png, to_svg
    from bench.sweeps.mfg import motion_columns, quality_column
    from bench.sweeps.page import page
    from bench.sweeps.plots import column_plot, quality_plot
    from bench.sweeps.sheets import chosen_prompts, sheet
    from bench.systems.images import write_atomic

    record, folder = swept.record, swept.folder
    quality = quality_column(record)
    plots = []
    for motion in motion_columns(record) if quality is not None else []:
        assert quality is not None
        drawing = quality_plot(record, quality, motion)
        plots.append(drawing)
        write_atomic(folder / f"{quality}-{motion}.svg", to_svg(drawing).encode())
        write_atomic(folder / f"{quality}-{motion}.png", to_png(drawing))
    small = [column_plot(record, column.name) for column in record.columns]
    texts = {clip.prompt_id: clip.text or clip.prompt_id for clip in swept.clips[0]}
    shown = []
    for prompt_id in chosen_prompts(swept.clips[0], num_sheets):
        data = sheet(record, swept.clips, prompt_id)
        write_atomic(folder / f"sheet-{prompt_id}.png", data)
        shown.append((texts[prompt_id], data))
    write_atomic(folder / "report.html", page(record, plots, small, shown).encode())


SHOWN = (
    "frame_quality",
    "text_alignment",
    "motion_correctness",
    "motion_magnitude",
    "consistency",
    "flicker",
)


def _show(swept: Swept) -> None:
    from rich.markup import escape
    from rich.table import Table

    from bench.commands.progress import wide_console
    from bench.sweeps.page import warnings

    record = swept.record
    console = wide_console()
    shown = [name for name in SHOWN if record.column(name) is not None]
    table = Table(title=escape(f"{record.system.name} · {record.protocol} · lambda_M"), title_justify="left")
    for name in ("lambda_M", "lambda_T", "branches", *(name.replace("_", " ") for name in shown)):
        table.add_column(name, justify="right")
    for cell in record.cells:
        head = [f"{cell.motion_guidance_scale:g}", f"{cell.guidance_scale:g}", str(cell.branches)]
        table.add_row(*head, *(_cell(record, cell.values, name) for name in shown))
    console.print(table)
    notes = [
        "+ and -: better and worse than lambda_M = 1, the 95 % interval of the paired difference without 0"
    ]
    for line in [*notes, *warnings(record)]:
        console.print(line, style="dim", markup=False, soft_wrap=True)
    console.print(f"sweep: {swept.folder / 'report.html'}", markup=False, soft_wrap=True)


def _cell(record: SweepRecord, values, name: str) -> str:
    from bench.sweeps.page import number, verdict

    column, found = record.column(name), values.get(name)
    if column is None or found is None:
        return ""
    return number(found.value.mean) + {"better": " +", "worse": " -", "": "  "}[verdict(column, found)]
