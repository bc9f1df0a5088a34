"""`gentron-bench humaneval`: a blinded pairwise study, from export to win / draw / lose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentron.console import make_app
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.humaneval.analyse import Analysis

app = make_app("A blinded human study of two systems: export, import, analyze; simulate rehearses it.")

StudyFolder = Annotated[
    Path, typer.Argument(help="Folder that `humaneval export` wrote.", show_default=False)
]
KeyOption = Annotated[
    Path | None, typer.Option(help="key.json. Default: <STUDY>-key/key.json.", show_default=False)
]
AnswersOption = Annotated[
    Path | None, typer.Option(help="Default: <STUDY>-answers/answers.jsonl.", show_default=False)
]


@app.command()
def export(
    b: Annotated[str, typer.Option("--b", help="The other system; named as --a.", show_default=False)],
    prompts: Annotated[
        str,
        typer.Option(
            help="A file (.txt one prompt a line, .jsonl with id and text, .tsv as PartiPrompts),"
            " partiprompts, or a protocol.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the bundle; the key goes to <OUT>-key/.", show_default=False)
    ],
    a: Annotated[
        str,
        typer.Option(
            "--a",
            help="mini, xl2, g2, a checkpoint folder, folder:DIR (images or videos), diffusers:REPO_OR_DIR.",
        ),
    ] = "mini",
    questions: Annotated[str, typer.Option(help="quality, alignment, or both.")] = "quality,alignment",
    raters: Annotated[int, typer.Option(help="Each of them judges every prompt.")] = 5,
    num_prompts: Annotated[
        int | None,
        typer.Option(help="Drawn by category. Default: all; 100 of partiprompts.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and of the images.")] = 0,
    gold: Annotated[
        int, typer.Option(help="Items a question that show an image against a strong corruption of it.")
    ] = 0,
    flipped: Annotated[float, typer.Option(help="Share of the prompts shown twice, sides changed.")] = 0.0,
    min_seconds: Annotated[
        float | None,
        typer.Option(help="Faster answers do not count. Default: the protocol's 1 s.", show_default=False),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Longer side in pixels. Default: the larger of the systems'.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Where the key goes, outside of OUT.", show_default=False)
    ] = None,
    media_url: Annotated[
        str, typer.Option(help="Where OUT will be served from, for MTurk and the other platforms.")
    ] = "",
    set_a: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of A, e.g. guidance_scale=7.5; repeat for more.", show_default=False),
    ] = None,
    set_b: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of B.", show_default=False)] = None,
    work: Annotated[Path, typer.Option(help="Where images are kept for resuming.")] = Path("runs/bench"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Write a blinded study of two systems: an offline page, platform files, and the key to keep."""
    from bench.commands.progress import stage
    from bench.humaneval.export import ExportSettings, check_media_url, parse_options
    from bench.humaneval.export import export as export_study
    from bench.humaneval.prompts import read_prompts

    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if image_size is not None and not 16 <= image_size <= 8192:
        raise ValueError(f"--image-size must be in 16..8192, got {image_size}")
    settings = ExportSettings(
        questions=[name.strip() for name in questions.split(",")],
        raters=raters,
        seed=seed,
        gold=gold,
        flipped=flipped,
        min_seconds=min_seconds,
        image_size=image_size,
        media_url=check_media_url(media_url),
    )
    specs = {
        "a": (a, parse_options(set_a or [], device=device)),
        "b": (b, parse_options(set_b or [], device=device)),
    }
    drawn = read_prompts(prompts, num_prompts=num_prompts, seed=seed)
    done = export_study(specs, drawn, settings, out=out, key_path=key, work=work, stage=stage)
    study = done.study
    typer.echo(
        f"study {study.study_id}: {len(drawn.prompts)} prompts, {len(study.questions)} questions,"
        f" {len(study.raters)} raters, {len(study.trials)} answers"
    )
    for note in done.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"for raters: {done.folder} (open index.html; send the whole folder)")
    typer.echo(f"key, never send it: {done.key}")


@app.command(name="import")
def import_(
    study: StudyFolder,
    answers: Annotated[
        list[Path],
        typer.Argument(
            help="The page's JSON or CSV, MTurk's batch CSV, Label Studio's export.", show_default=False
        ),
    ],
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Rater's name, where two people took one code or a platform mixed them.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--answers", help="Default: <STUDY>-answers/answers.jsonl.", show_default=False),
    ] = None,
) -> None:
    """Check files of answers and add what is new to answers.jsonl; doing it again changes nothing."""
    from bench.humaneval.ingest import answers_path, import_answers
    from bench.humaneval.study import read_study

    record, digest = read_study(study)
    done = import_answers(record, digest, answers, log=log or answers_path(study), rename=as_)
    refused = sum(done.refused.values())
    typer.echo(
        f"{done.added} added, {done.kept} kept, {done.updated} updated, {refused} refused;"
        f" {done.total} of {len(record.trials)} answers in {done.path}"
    )
    for reason, count in done.refused.items():
        typer.echo(f"refused: {count} x {reason}")


@app.command()
def analyze(
    study: StudyFolder,
    key: KeyOption = None,
    answers: AnswersOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Default: beside answers.jsonl.", show_default=False)
    ] = None,
    allow_simulated: Annotated[
        bool, typer.Option("--allow-simulated", help="Also for simulated raters; the result says so.")
    ] = False,
) -> None:
    """Open the key: win / draw / lose with intervals, before and after the study's exclusion rules."""
    from bench.humaneval.analyse import analyse
    from bench.humaneval.ingest import Reader, answers_path, read_log
    from bench.humaneval.report import markdown, svg
    from bench.humaneval.study import KEY_FILE, beside, dump, read_key, read_study
    from bench.systems.images import write_atomic

    record, digest = read_study(study)
    opened = read_key(key or beside(study, "key") / KEY_FILE, record)
    path = answers or answers_path(study)
    if not path.is_file():
        raise UserError(f"no answers at '{path}': import some with 'gentron-bench humaneval import'")
    reader = Reader(record, digest)
    log = [reader.check(answer, f"{path}, line {n}") for n, answer in enumerate(read_log(path), 1)]
    analysis = analyse(record, digest, opened, log, allow_simulated=allow_simulated)
    folder = out or path.parent
    write_atomic(folder / "analysis.svg", svg(analysis).encode())
    write_atomic(folder / "analysis.md", markdown(analysis).encode())
    write_atomic(folder / "analysis.json", dump(analysis))
    _show(analysis)
    typer.echo(f"analysis: {folder / 'analysis.md'}, analysis.json, analysis.svg")


def _show(analysis: Analysis) -> None:
    from rich.markup import escape
    from rich.table import Table

    from bench.commands.progress import wide_console
    from bench.humaneval.report import percent, with_interval

    title = f"{escape(analysis.a)} against {escape(analysis.b)}: percent of votes, 95 % intervals"
    table = Table(title=title, title_justify="left")
    for heading in ("question", "votes", "win", "draw", "lose", "net"):
        table.add_column(heading, justify="left" if heading == "question" else "right")
    for question in analysis.questions:
        for label, summary in (("after rules", question.after), ("all", question.before)):
            if summary is None:
                table.add_row(f"{question.name}, {label}", "0", "-", "-", "-", "-")
                continue
            shares = (summary.win, summary.draw, summary.lose, summary.net)
            table.add_row(f"{question.name}, {label}", str(summary.votes), *map(with_interval, shares))
    table.add_section()
    for row in analysis.references:
        shares = (row.win, row.draw, row.lose, row.win - row.lose)
        label = f"{row.question}, {row.a} / {row.b} ({row.source})"
        table.add_row(label, "", *map(percent, shares), style="dim")
    console = wide_console()
    console.print(table)
    for note in analysis.notes:
        console.print(note, style="dim", markup=False)


@app.command()
def simulate(
    study: StudyFolder,
    out: Annotated[Path, typer.Option(help="Folder for the files of answers.", show_default=False)],
    key: KeyOption = None,
    win: Annotated[float, typer.Option(help="True share of wins of A.")] = 0.5,
    draw: Annotated[float, typer.Option(help="True share of draws.")] = 0.2,
    lose: Annotated[float, typer.Option(help="True share of loses of A.")] = 0.3,
    prompt_sd: Annotated[float, typer.Option(help="Spread of prompts; a vote's noise is 1.")] = 0.7,
    rater_sd: Annotated[float, typer.Option(help="Spread of raters.")] = 0.3,
    left_bias: Annotated[float, typer.Option(help="Lean to the left one.")] = 0.0,
    careless: Annotated[float, typer.Option(help="Share of raters who press anything.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the raters.")] = 0,
) -> None:
    """Write answers of raters that do not exist, to rehearse a study; analyze refuses them without a flag."""
    from bench.humaneval.simulate import Truth, dump_answers
    from bench.humaneval.simulate import simulate as simulate_raters
    from bench.humaneval.study import KEY_FILE, beside, read_key, read_study
    from bench.systems.images import write_atomic

    truth = Truth(
        win=win,
        draw=draw,
        lose=lose,
        prompt_sd=prompt_sd,
        rater_sd=rater_sd,
        left_bias=left_bias,
        careless=careless,
    )
    record, digest = read_study(study)
    opened = read_key(key or beside(study, "key") / KEY_FILE, record)
    for rater, answers in simulate_raters(record, digest, opened, truth, seed=seed).items():
        write_atomic(out / f"simulated-{record.study_id}-{rater}.json", dump_answers(answers))
    typer.echo(f"{len(record.raters)} simulated raters in {out}: a rehearsal, not a result")
