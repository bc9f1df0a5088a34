"""`gentron-bench compbench`: T2I-CompBench, the official one or over the shapes world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import AllowMissing, Limit, Models, Out, Work, check_numbers, takes_system_options
from bench.systems import SystemOptions

if TYPE_CHECKING:
    from bench.jobs.compbench import Scorers
    from bench.prompts.protocol import Protocol

SHAPES, OFFICIAL = "compbench-shapes_v1", "t2i-compbench_2024-02"


def default_protocol(model: str) -> str:
    """The protocol that fits a system.

    The shapes world for mini and for checkpoints that say they were trained on it, since they can draw
    nothing else; the official prompts for all others.
    """
    if model == "mini":
        return SHAPES
    if not model or not (Path(model) / "config.json").is_file():
        return OFFICIAL
    from gentron.checkpoint import read_config

    trained_on = str(read_config(Path(model)).training.get("data", ""))
    return SHAPES if trained_on.startswith("shapes") else OFFICIAL


@takes_system_options()
def compbench(
    *,
    model: Annotated[
        str,
        typer.Option(
            help="mini, xl2, g2, s2, b2, l2, a checkpoint folder, folder:DIR (images made elsewhere),"
            " or diffusers:REPO_OR_DIR."
        ),
    ] = "mini",
    protocol: Annotated[
        str | None,
        typer.Option(
            help=f"Default: {SHAPES} for mini and what is trained on its world, else {OFFICIAL}.",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="attribute-binding, relations, complex, all, or one category.")
    ] = "all",
    images_per_prompt: Annotated[
        int | None, typer.Option(max=1000, help="Default: the protocol's.", show_default=False)
    ] = None,
    limit: Limit = None,
    seed: Annotated[int | None, typer.Option(help="Default: the protocol's.", show_default=False)] = None,
    color_list: Annotated[
        str, typer.Option(help="Edition of T2I-CompBench's color list: current or pre-2025-09.")
    ] = "current",
    phrases: Annotated[
        str, typer.Option(help="Source of noun phrases: auto, frozen, spacy-3.6, spacy-3.8, spacy or rules.")
    ] = "auto",
    models: Models = None,
    out: Out = Path("results"),
    work: Work = Path("runs/bench"),
    system: SystemOptions,
    allow_missing: AllowMissing = False,
) -> None:
    """Score a system on T2I-CompBench: the official lists and scorers, or the shapes world for mini.

    The same command goes on where a killed run stopped. Under torchrun every process does its share.
    """
    from bench.prompts.protocol import load_protocol
    from bench.systems import check_system

    check_system(model)
    editions = {} if color_list == "current" else {"color": color_list}
    chosen = load_protocol(protocol or default_protocol(model), editions=editions)
    check_numbers(seed=(seed, 0))
    # cheap inputs first: a wrong suite should not wait for a model to load
    chosen.select(suite, limit=limit)
    images = chosen.config.images_per_prompt if images_per_prompt is None else images_per_prompt
    if images < 1:
        raise ValueError(f"images_per_prompt must be >= 1, got {images}")

    from bench.jobs.compbench import RunSettings, build_scorers, run
    from bench.scorers import Context
    from bench.sharding import Shard
    from bench.systems import parse_system
    from gentron.device import usable_device

    shard = Shard.from_environment()
    place = str(usable_device(system.device))
    context = Context(device=place, models=models, cache=work / "cache", phrases=phrases)
    scorers = build_scorers(chosen, suite, context)  # what is missing is said before a model loads
    if shard.is_first:
        _say_phrases(scorers)
    settings = RunSettings(
        suite=suite,
        seed=chosen.config.seed if seed is None else seed,
        images_per_prompt=images,
        limit=limit,
        allow_missing=allow_missing,
    )

    from bench.commands.progress import stage

    measured = parse_system(model, replace(system, device=place))
    done = run(chosen, measured, settings, work=work, out=out, stage=stage, scorers=scorers, shard=shard)
    shard.leave()
    if done is not None:
        _show(chosen, *done)


def _say_phrases(scorers: Scorers) -> None:
    """Before hours of work, not after them: another source gives other scores."""
    from bench.results.record import phrase_sources
    from bench.scorers.phrases import described

    for record in phrase_sources(scorer.record for scorer in scorers.by_category.values()).values():
        typer.echo(f"noun phrases: {described(record)}", err=True)


def _show(protocol: Protocol, result, folder: Path) -> None:
    from bench.commands.progress import wide_console
    from bench.report.summary import notes, reference, result_table

    console = wide_console()
    console.print(result_table(result, reference(protocol.name, protocol.sha256)))
    for line in notes(result):
        console.print(line, style="dim", markup=False)
    console.print(f"result: {folder / 'result.json'}", markup=False, soft_wrap=True)


def list_() -> None:
    """Protocols, suites, categories and systems."""
    from bench.prompts.protocol import protocol_names, read_config
    from gentron.presets import PRESETS

    for name in protocol_names():
        config, digest = read_config(name)
        typer.echo(f"protocol {name}  sha256 {digest[:16]}")
        for category, entry in config.categories.items():
            scorer, _ = config.scorer_of(category)
            typer.echo(f"  {category}: {entry.num_prompts} prompts, scored by {scorer}")
        typer.echo(f"  suites: {', '.join(config.suites)}")
    typer.echo(f"systems: {', '.join(PRESETS)}, a checkpoint folder, folder:DIR, diffusers:REPO_OR_DIR")
