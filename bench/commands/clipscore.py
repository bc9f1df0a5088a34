"""`gentron-bench clipscore`: the cosine of pictures and their prompts, under the name of a convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import AllowMissing, Limit, Models, Work, check_numbers, takes_system_options
from bench.systems import SystemOptions
from gentron.errors import UserError

if TYPE_CHECKING:
    from bench.jobs.clipscore import Cosines, Stated, Summary
    from bench.prompts import Prompt
    from bench.prompts.protocol import Protocol
    from bench.sharding import Shard
    from bench.systems import Collection, System, SystemInfo

SHAPES_PROTOCOL = "compbench-shapes_v1"
CLIP_VIEW = "clip_cosine"


@takes_system_options()
def clipscore(
    *,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures, named by prompt or with a manifest.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Or the system that makes them: mini, g2, a checkpoint folder, ...", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|PROTOCOL[:CATEGORY]",
            help=f"Text with a prompt a line, .jsonl, or a protocol's. Default for mini: {SHAPES_PROTOCOL}.",
            show_default=False,
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(help="clip_cosine (default), clipscore_w2.5 or clip_x100.", show_default=False),
    ] = None,
    extractor: Annotated[
        str, typer.Option(help="clip, or shapes-attributes: a stand-in for the shapes world without weights.")
    ] = "clip",
    images_per_prompt: Annotated[
        int | None,
        typer.Option(
            max=1000, help="Default: as many as a folder holds, the protocol's, or 1.", show_default=False
        ),
    ] = None,
    limit: Limit = None,
    seed: Annotated[
        int | None, typer.Option(help="Default: the protocol's, or 0.", show_default=False)
    ] = None,
    models: Models = None,
    out: Annotated[Path, typer.Option(help="Where rows and figure go.")] = Path("results/clipscore"),
    work: Work = Path("runs/bench"),
    system: SystemOptions,
    allow_missing: AllowMissing = False,
) -> None:
    """CLIP score of pictures and their prompts, as a named view of the cosine.

    The same command goes on where a killed run stopped. Under torchrun every process does its share.
    """
    name = _system_name(images, model)
    check_numbers(images_per_prompt=(images_per_prompt, 1), limit=(limit, 1), seed=(seed, 0))
    from bench.jobs.clipscore import SHAPES, SHAPES_VIEW, build_cosines, stated
    from bench.systems import check_system, parse_system

    check_system(name)
    chosen = stated(view or (SHAPES_VIEW if extractor == SHAPES else CLIP_VIEW), extractor)
    asked = _ask(prompts or (SHAPES_PROTOCOL if name == "mini" else None), limit)
    if extractor == SHAPES:
        _check_captions(asked.prompts)

    from bench.sharding import Shard
    from gentron.atomic import check_writable
    from gentron.device import usable_device

    for folder in (out, work):
        check_writable(folder / "any")
    shard = Shard.from_environment()
    place = str(usable_device(system.device))
    # a missing network is said before a model loads
    cosines = build_cosines(extractor, models=models, device=place)
    measured = parse_system(name, replace(system, device=place))
    choice = Choice(
        view=chosen,
        images_per_prompt=images_per_prompt or _default_count(measured, asked),
        seed=asked.seed if seed is None else seed,
        allow_missing=allow_missing,
    )
    done = _measure(measured, cosines, asked, choice, work=work, out=out, shard=shard)
    shard.leave()
    if done is not None:
        _show(*done)


def _system_name(images: Path | None, model: str | None) -> str:
    if (images is None) == (model is None):
        raise UserError("give the pictures with --images DIR, or the system that makes them with --model")
    return model if model is not None else f"folder:{images}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How the pictures of the asked prompts are made and stated."""

    view: Stated
    images_per_prompt: int
    seed: int
    allow_missing: bool


def _measure(
    system: System | Collection,
    cosines: Cosines,
    asked: Asked,
    choice: Choice,
    *,
    work: Path,
    out: Path,
    shard: Shard,
) -> tuple[Summary, Path] | None:
    """Make or find the pictures, compute, write; None in all processes but the first."""
    from bench.commands.progress import stage
    from bench.jobs.clipscore import Summary, compute, figure, gather, prompts_digest, truncated_share, write
    from bench.jobs.compbench import describe_missing
    from bench.systems.generate import make_images
    from bench.systems.requests import requests

    wanted = requests(
        asked.prompts,
        images_per_prompt=choice.images_per_prompt,
        seed=choice.seed,
        seed_of=asked.seed_of,
    )
    folder = asked.work_folder(work, system.info, choice.seed)
    records = make_images(system, wanted, folder, shard, stage, prompts=asked.all_prompts)
    with stage("cosines", len(shard.mine(records))) as advance:
        compute(cosines, choice.view, asked.prompts, records, folder, advance=advance, shard=shard)
    if not shard.is_first:
        return None
    rows, missing = gather(cosines, choice.view, asked.prompts, records, folder)
    if missing and (not choice.allow_missing or not rows):
        raise UserError(describe_missing(missing, len(wanted)))
    summary = Summary(
        view=choice.view.name,
        prefix=choice.view.prefix,
        value=figure(rows, choice.view),
        truncated=truncated_share(rows, cosines.max_tokens),
        max_tokens=cosines.max_tokens,
        extractor=cosines.record,
        prompts=prompts_digest(asked.prompts),
        images_per_prompt=choice.images_per_prompt,
        missing=len(missing),
        num_blank=sum(row.blank for row in rows),
        system=system.info.name,
        untrained=system.info.untrained,
    )
    return summary, write(out / asked.name / system.info.name, rows, summary)


# ---- prompts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The prompts and how images of them are asked for; protocol is None for a file.

    all_prompts: of the file or protocol, also those beyond a limit.   digest: of all of the file, so that its
    images lie in one folder whatever the limit.
    """

    name: str
    prompts: list[Prompt]
    all_prompts: list[Prompt]
    protocol: Protocol | None
    images_per_prompt: int
    seed: int
    seed_of: Callable[[int, str, int], int]
    digest: str

    def work_folder(self, work: Path, info: SystemInfo, seed: int) -> Path:
        """A protocol's images are those of `compbench`."""
        from bench.systems.generate import images_folder, work_folder

        if self.protocol is not None:
            return work_folder(work, self.protocol, info, seed=seed)
        parent = work / f"{self.name}-{self.digest}"
        return images_folder(parent, info, before=[self.digest], after=[seed])


def _ask(given: str | None, limit: int | None) -> Asked:
    """The prompts of a file, of a protocol or of one of its categories."""
    from bench.jobs.clipscore import prompts_digest, read_prompts
    from bench.prompts.limit import limited
    from bench.prompts.seeds import image_seed
    from bench.systems import safe_name

    if given is None:
        raise UserError("give the prompts with --prompts FILE, or --prompts PROTOCOL[:CATEGORY]")
    if Path(given).is_file():
        prompts = read_prompts(Path(given))
        return Asked(
            name=safe_name(Path(given).stem),
            prompts=limited(prompts, limit),
            all_prompts=prompts,
            protocol=None,
            images_per_prompt=1,
            seed=0,
            seed_of=image_seed,
            digest=prompts_digest(prompts),
        )

    from bench.prompts.protocol import load_protocol, protocol_names

    name, _, category = given.partition(":")
    if name not in protocol_names():
        known = ", ".join(protocol_names())
        raise UserError(f"no file '{given}' with prompts, and no protocol of that name; known: {known}")
    protocol = load_protocol(name)
    if category and category not in protocol.prompts:
        known = ", ".join(protocol.prompts)
        raise UserError(f"unknown category '{category}' of {name}; known: {known}")
    categories = [category] if category else list(protocol.prompts)
    prompts = [prompt for one in categories for prompt in limited(protocol.prompts[one], limit)]
    return Asked(
        name=safe_name(given),
        prompts=prompts,
        all_prompts=protocol.all_prompts,
        protocol=protocol,
        images_per_prompt=protocol.config.images_per_prompt,
        seed=protocol.config.seed,
        seed_of=protocol.config.image_seed,
        digest=prompts_digest(prompts),
    )


def _check_captions(prompts: list[Prompt]) -> None:
    """Every prompt is one of the shapes world, before anything is drawn."""
    from bench.scorers.shapes_attributes import parse_caption

    for prompt in prompts:
        if prompt.description is None:
            parse_caption(prompt.text)


def _default_count(system: System | Collection, asked: Asked) -> int:
    """A folder's: the most pictures it holds of one prompt, so that fewer of another are missing ones."""
    from bench.systems import Collection

    return system.count(asked.all_prompts) if isinstance(system, Collection) else asked.images_per_prompt


# ---- output ----------------------------------------------------------------------------------------------


def _cut(summary: Summary) -> str:
    if summary.max_tokens is None:
        return ""
    return f"; {100 * summary.truncated:.1f} % of the prompts are longer than {summary.max_tokens} tokens"


def _show(summary: Summary, path: Path) -> None:
    from bench.weights import RANDOM_NOTE

    value, record = summary.value, summary.extractor
    assert value.mean is not None
    error = "" if value.stderr is None else f" ± {value.stderr:.4f}"
    between = "" if value.interval is None else f"  95 % [{value.interval[0]:.4f}, {value.interval[1]:.4f}]"
    lines = [
        f"{summary.view} {value.mean:.4f}{error}{between}",
        f"n = {value.num_images} images of {value.num_prompts} prompts{_cut(summary)}",
        ", ".join(f"{key} {said}" for key, said in record.settings.items() if said not in (None, False)),
    ]
    lines += [f"weights {id} sha256 {sha256}" for id, sha256 in record.weights.items()]
    if summary.missing:
        lines.append(f"{summary.missing} images could not be scored: a mean over what was left")
    if summary.num_blank:
        lines.append(f"{summary.num_blank} images are blank, of one colour: scored as they are")
    if record.random_weights:
        lines.append(RANDOM_NOTE)
    if summary.untrained:
        lines.append("untrained: the system has random weights")
    if not record.weights:
        lines.append("a stand-in over the shapes world, no CLIP score")
    for line in [*lines, f"rows: {path.with_suffix('.jsonl')}", f"figure: {path}"]:
        typer.echo(line)
