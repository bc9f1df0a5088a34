"""The main job, from a protocol to a written result: generate, score, aggregate, write.

Under torchrun each process makes and scores its share of the images; the first one gathers and writes. The
files are the same, byte for byte, for any number of processes and wherever a run was killed and gone on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.prompts import Prompt
from bench.prompts.limit import SEED as LIMIT_SEED
from bench.prompts.protocol import PromptSetConfig, Protocol
from bench.results.aggregate import aggregate
from bench.results.record import (
    Counts,
    LimitChoice,
    Result,
    Skipped,
    phrase_table,
    provenance,
    system_record,
    write_result,
)
from bench.scorers import Context, Scorer, build_scorer
from bench.scorers.frames import ClipJudge, OverFrames
from bench.scorers.phrases import phrase_source
from bench.scorers.score import SCORES, Missing, ScoreRow, gather, read_scores_rows, score
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import Collection, Media, System, SystemInfo
from bench.systems.generate import make_images, work_folder
from bench.systems.requests import requests
from bench.systems.rows import merge_rows
from bench.weights import MissingWeights
from gentron.atomic import check_writable
from gentron.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    suite: str
    seed: int
    images_per_prompt: int
    limit: int | None
    allow_missing: bool
    frame: int | None = None
    """Of clips, which frame picture scorers see; None is the mean over all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorers:
    """by_category: what can be scored here.   skipped: the categories that cannot, each with the way on."""

    by_category: Mapping[str, Scorer | OverFrames]
    skipped: list[Skipped]

    def reading(self, media: Media, frame: int | None) -> Scorers:
        """As they must be for what a system answers with; ValueError for a frame that it has not."""
        if frame is not None and not 0 <= frame < media.num_frames:
            raise ValueError(f"frame must be from 0 to {media.num_frames - 1}, got {frame}")
        if media.kind == "image":
            return self
        return replace(self, by_category={n: _over_frames(s, frame) for n, s in self.by_category.items()})


def _over_frames(scorer: Scorer | OverFrames, frame: int | None) -> Scorer | OverFrames:
    """A judge of clips looks at all frames by itself."""
    return scorer if isinstance(scorer, (OverFrames, ClipJudge)) else OverFrames(scorer, frame)


def build_scorers(protocol: Protocol, suite: str, context: Context) -> Scorers:
    """The scorers of a suite; a missing network skips its categories. UserError if none is left."""
    context = _with_one_phrase_source(protocol, suite, context)
    built: dict[str, Scorer] = {}
    skipped = []
    for category in protocol.categories(suite):
        name, settings = protocol.config.scorer_of(category)
        try:
            same = next((c for c in built if protocol.config.scorer_of(c) == (name, settings)), None)
            # one network in memory, however many categories it scores
            built[category] = (
                built[same] if same else build_scorer(name, settings, _for(category, context, protocol))
            )
        except MissingWeights as missing:
            skipped.append(Skipped(metric=category, reason=str(missing)))
    if not built:
        raise UserError(f"nothing can be scored: {'; '.join(dict.fromkeys(s.reason for s in skipped))}")
    return Scorers(by_category=built, skipped=skipped)


def _with_one_phrase_source(protocol: Protocol, suite: str, context: Context) -> Context:
    """`auto` made one source for the whole run, so that no two categories are parsed by different ones."""
    if context.phrases != "auto" or not isinstance(protocol.config, PromptSetConfig):
        return context
    texts = [prompt.text for prompt in protocol.select(suite, limit=None)]
    return replace(context, phrases=phrase_source("auto", texts=texts).name)


def _for(category: str, context: Context, protocol: Protocol) -> Context:
    return replace(context, prompts=tuple(protocol.prompts[category]))


def run(
    protocol: Protocol,
    system: System | Collection,
    settings: RunSettings,
    *,
    work: Path,
    out: Path,
    stage: Stage,
    scorers: Scorers | None = None,
    shard: Shard | None = None,
) -> tuple[Result, Path] | None:
    """Make or find all images, score them and write the result; returns it and its folder.

    scorers: of `build_scorers`, where they had to be built before the system.
    None in all processes but the first. Raises UserError that lists the images that are missing or corrupt,
    unless settings.allow_missing. Blank ones are scored and counted.
    """
    measured = measure(
        protocol, system, settings, work=work, out=out, stage=stage, scorers=scorers, shard=shard
    )
    if measured is None:
        return None
    result = make_result(protocol, system.info, settings, measured)
    return result, write_result(out, result, measured.prompts, measured.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was scored, and by whom.   rows: of prompts, in their order.   folder: where the images lie."""

    prompts: list[Prompt]
    scorers: Scorers
    rows: list[ScoreRow]
    missing: list[Missing]
    folder: Path


def measure(
    protocol: Protocol,
    system: System | Collection,
    settings: RunSettings,
    *,
    work: Path,
    out: Path,
    stage: Stage,
    scorers: Scorers | None = None,
    shard: Shard | None = None,
) -> Measured | None:
    """All but the result; None in all processes but the first."""
    shard = shard or Shard()
    # before an hour of generation, not after it
    for folder in (work, out):
        check_writable(folder / "any")
    folder = work_folder(work, protocol, system.info, seed=settings.seed)
    scorers = scorers or build_scorers(protocol, settings.suite, Context(cache=work / "cache"))
    scorers = scorers.reading(system.info.media, settings.frame)
    selected = protocol.select(settings.suite, limit=settings.limit)
    prompts = [prompt for prompt in selected if prompt.category in scorers.by_category]
    wanted = requests(
        prompts,
        images_per_prompt=settings.images_per_prompt,
        seed=settings.seed,
        seed_of=protocol.config.image_seed,
    )
    records = make_images(system, wanted, folder, shard, stage, prompts=protocol.all_prompts)
    with stage("scores", len(shard.mine(records))) as advance:
        mine = shard.mine(records)
        score(scorers.by_category, prompts, mine, folder, advance=advance, file_name=shard.file_name(SCORES))
    shard.barrier()
    if not shard.is_first:
        return None
    rows, missing = gather(scorers.by_category, prompts, records, folder)
    _keep(folder, rows)
    if missing and not settings.allow_missing:
        raise UserError(describe_missing(missing, len(wanted)))
    if not rows:
        raise UserError(f"nothing to score: all {len(wanted)} images are missing or corrupt")
    return Measured(prompts=prompts, scorers=scorers, rows=rows, missing=missing, folder=folder)


def _keep(folder: Path, rows: list[ScoreRow]) -> None:
    """scores.jsonl anew, in a fixed order, with the rows of other runs on these images."""
    known = read_scores_rows(folder)
    known.update({(r.prompt_id, r.sample, r.sha256, r.scorer): r for r in rows})
    merge_rows(folder, SCORES, (asdict(known[key]) for key in sorted(known)))


def make_result(protocol: Protocol, info: SystemInfo, settings: RunSettings, measured: Measured) -> Result:
    """The record of a run."""
    records = {category: scorer.record for category, scorer in measured.scorers.by_category.items()}
    names = {category: record.name for category, record in records.items()}
    num_scored, num_missing = len(measured.rows), len(measured.missing)
    return Result(
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        editions=protocol.editions,
        suite=settings.suite,
        seed=settings.seed,
        images_per_prompt=settings.images_per_prompt,
        limit=settings.limit,
        limit_choice=None if settings.limit is None else LimitChoice(rule="stratified", seed=LIMIT_SEED),
        system=system_record(info),
        media=info.media,
        scorers=records,
        phrase_table=phrase_table(records.values()),
        counts=Counts(
            expected=num_scored + num_missing,
            scored=num_scored,
            missing=num_missing,
            num_blank=sum(row.blank for row in measured.rows),
        ),
        missing=measured.missing,
        skipped=measured.scorers.skipped,
        metrics=aggregate(measured.prompts, measured.rows, names),
        provenance=provenance(device=info.device, images=measured.folder),
    )


def describe_missing(missing: list[Missing], expected: int, *, shown: int = 5) -> str:
    """One line with the first few names."""
    names = [f"{m.prompt_id}_{m.sample:02d} ({m.reason})" for m in missing[:shown]]
    more = f" and {len(missing) - shown} more" if len(missing) > shown else ""
    return (
        f"{len(missing)} of {expected} images cannot be scored: {', '.join(names)}{more};"
        " repair them, or score the rest with --allow-missing"
    )
