"""`gentron-bench fid`: distances between sets of images, FID above all, under a named convention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import AllowMissing, Models, Out, Work, takes_system_options
from bench.systems import SystemOptions
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.jobs.fid import Done
    from bench.jobs.fid_sources import Measured
    from bench.set_metrics.measure import Side
    from bench.sharding import Shard
    from gentron.device import usable_device

MODES = ("clean", "tf", "pytorch-fid", "torchmetrics")  # MODES of features/inception.py, without torch
SHAPES, COCO = "compbench-shapes_v1", "coco-30k_v1"
FOR_PHOTOGRAPHS, FOR_SHAPES = "fid", "fd-mini,pr-mini"


@takes_system_options()
def fid(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="mini, xl2, g2, s2, b2, l2, a checkpoint folder, folder:DIR, or diffusers:REPO_OR_DIR."
            " Default: mini.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a model: a folder of pictures, or a file that --features wrote.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="A folder of pictures, a file that --save-reference wrote, or shapes: as many pictures of"
            " the shapes world."
        ),
    ] = "shapes",
    metrics: Annotated[
        str | None,
        typer.Option(
            help="From fid, fid-infinity, kid, pr, clip-fid, fd-dinov2, cmmd, and on the bundled substitute"
            f" fd-mini, fd-infinity-mini, kd-mini, pr-mini. Default: {FOR_SHAPES} against shapes, else"
            f" {FOR_PHOTOGRAPHS}.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option(help=f"Resize and scale before Inception: {', '.join(MODES)}.")
    ] = "clean",
    compare_modes: Annotated[
        bool, typer.Option("--compare-modes", help="FID of the same images under every mode.")
    ] = False,
    num_images: Annotated[
        int | None, typer.Option(help="So many of the images, chosen by name.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help=f"Prompts for the model. Default: {SHAPES} for mini, {COCO} for all others.",
            show_default=False,
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help=f"For {COCO}: captions_val2014.json of COCO.", show_default=False),
    ] = None,
    kid_subset_size: Annotated[int, typer.Option(help="1000 in the paper; others are other metrics.")] = 1000,
    intervals: Annotated[
        bool, typer.Option(help="95 % intervals of distances, by leaving tenths of the images out.")
    ] = True,
    features: Annotated[
        Path | None, typer.Option(help="Keep the images' features in this .npz.", show_default=False)
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option(
            help="Write the reference's statistics to this .npz; without a model or images, do only that.",
            show_default=False,
        ),
    ] = None,
    models: Models = None,
    out: Out = Path("results"),
    work: Work = Path("runs/bench"),
    system: SystemOptions,
    allow_missing: AllowMissing = False,
) -> None:
    """Measure a set of images against a reference set: FID in four conventions, KID, CMMD and more.

    Without options, on a fresh machine: the bundled model against the shapes world, in features of the
    bundled autoencoder, which is no FID. The same command goes on where a killed run stopped; under torchrun
    every process does its share.
    """
    if model is not None and images is not None:
        raise ValueError("--model and --images exclude each other")
    if mode not in MODES:
        raise ValueError(f"unknown mode '{mode}'; known: {', '.join(MODES)}")
    if images is not None and not images.exists():
        raise UserError(f"no images '{images}': give a folder or a file that --features wrote")
    if reference != "shapes" and not Path(reference).exists():
        raise UserError(
            f"no reference '{reference}': give a folder, a file that --save-reference wrote, or shapes"
        )

    from bench.set_metrics.measure import Options, jobs

    words = metrics or ("fid" if compare_modes else FOR_SHAPES if reference == "shapes" else FOR_PHOTOGRAPHS)
    chosen = jobs([word.strip() for word in words.split(",")], MODES if compare_modes else (mode,))
    if compare_modes and not any(job.spec.has_modes for job in chosen):
        raise ValueError(f"--compare-modes needs a metric on Inception, such as fid, got {words}")
    options = Options(kid_subset_size=kid_subset_size, intervals=intervals, allow_missing=allow_missing)

    from bench.commands.progress import stage
    from bench.jobs.fid import Places, run
    from bench.jobs.fid import save_reference as save_only
    from bench.jobs.fid_sources import reference_side
    from bench.sharding import Shard

    shard = Shard.from_environment()
    place = str(usable_device(system.device))
    places = Places(
        out=out,
        cache=work / "features",
        device=place,
        models=models,
        keep=features,
        save=save_reference,
    )
    if save_reference is not None and model is None and images is None:
        if reference == "shapes" or not Path(reference).is_dir():
            raise ValueError("--save-reference alone needs --reference DIR")
        for name, value in (("num_images", num_images), ("features", features)):
            if value is not None:
                raise ValueError(f"--{name.replace('_', '-')} has no effect on --save-reference alone")
        side = _reference_alone(reference, protocol, captions)
        seen = save_only(side, chosen, options, places=places, stage=stage, shard=shard)
        shard.leave()
        if seen is not None:
            typer.echo(
                f"{save_reference}: {seen.image_set.num_images} images, {', '.join(seen.image_set.sets)}"
            )
        return
    measured, files = _measured(
        model or "mini",
        images,
        replace(system, device=place),
        protocol,
        captions,
        num_images,
        work=work,
        shard=shard,
    )
    done = run(
        measured,
        reference_side(reference, measured, files=files),
        chosen,
        options,
        places=places,
        stage=stage,
        shard=shard,
    )
    shard.leave()
    if done is not None:
        _show(done, compare_modes=compare_modes)


def _reference_alone(reference: str, protocol: str | None, captions: Path | None) -> Side:
    """A folder as it is, or with the files and the preparation that a protocol asks for."""
    from bench.jobs.fid_sources import coco_protocol, folder_side, preparation

    if protocol is None and captions is None:
        return folder_side(reference)
    if protocol not in (None, COCO) or captions is None:
        raise ValueError(f"--save-reference alone takes --protocol {COCO} with --captions, or neither")
    from bench.prompts.coco import read_captions

    coco = coco_protocol(COCO)
    name, prepare = preparation(coco.config.prepared)
    return folder_side(reference, read_captions(captions, coco).files, name, prepare)


def _measured(
    model: str,
    images: Path | None,
    options: SystemOptions,
    protocol: str | None,
    captions: Path | None,
    num_images: int | None,
    *,
    work: Path,
    shard: Shard,
) -> tuple[Measured, list[str] | None]:
    """The images' side, and the names of the reference's files where the protocol says them."""
    from bench.commands.compbench import default_protocol
    from bench.commands.progress import stage
    from bench.jobs.fid_sources import coco_protocol, measured_captions, measured_folder, measured_system
    from bench.systems import check_system, parse_system

    if images is not None:
        for name, value in (("protocol", protocol), ("captions", captions)):
            if value is not None:
                raise ValueError(f"--{name} has no effect on --images")
        options.refuse(
            "--images",
            *("num_inference_steps", "guidance_scale", "sampler", "batch_size"),
            *("random_weights", "checkpoint", "image_size"),
        )
        return measured_folder(images, num_images), None
    check_system(model)
    name = protocol or (SHAPES if default_protocol(model) == SHAPES else COCO)
    if name != COCO:
        from bench.prompts.protocol import load_protocol

        if captions is not None:
            raise ValueError(f"--captions has no effect on {name}")
        loaded = load_protocol(name)
        system = parse_system(model, options)
        return measured_system(system, loaded, num_images, work=work, stage=stage, shard=shard), None
    if captions is None:
        raise UserError(
            f"{COCO} takes its prompts from a local copy of COCO: give --captions captions_val2014.json, or"
            " another --protocol"
        )
    from bench.prompts.coco import read_captions

    coco = coco_protocol(COCO)
    chosen = read_captions(captions, coco)
    system = parse_system(model, options)
    side = measured_captions(system, coco, chosen, num_images, work=work, stage=stage, shard=shard)
    return side, chosen.files


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 1 else f"{value:.4g}"


def _show(done: Done, *, compare_modes: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from bench.commands.progress import wide_console
    from bench.set_metrics.fid import label

    result = done.result
    console = wide_console()
    title = f"{result.system.name} · {result.protocol} · {result.suite}"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("95 %", justify="right", no_wrap=True)
    if done.floor:
        table.add_column("floor", justify="right")
    if compare_modes:
        table.add_column("to the first", justify="right")
    table.add_column("resize" if compare_modes else "against", overflow="fold")
    first = result.set_metrics[0].value
    for metric in result.set_metrics:
        low_high = "" if metric.interval is None else " to ".join(map(_number, metric.interval))
        floor = [_number(done.floor[metric.name])] if done.floor else []
        apart = [f"{metric.value / first - 1:+.1%}" if first else ""] if compare_modes else []
        against = metric.reference
        where = "" if against is None else f"{against.id}, {against.num_images} images"
        about = metric.settings["resize"] if compare_modes else where
        name = label(metric.name, metric.num_images)
        cells = [name, _number(metric.value), low_high, *floor, *apart, about]
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    lines = [f"skipped: {each.metric}: {each.reason}" for each in result.skipped]
    if done.floor:
        lines.append("floor: the world drawn a second time against the reference, what a perfect system gets")
    if result.missing:
        lines.append(
            f"{result.counts.missing} of {result.counts.expected} images missing: over survivors only"
        )
        lines += [f"  {each.file}: {each.reason}" for each in result.missing]
    for line in [*done.notes, *lines]:
        console.print(line, style="dim", markup=False, soft_wrap=True)
    console.print(f"result: {done.folder / 'result.json'}", markup=False, soft_wrap=True)
