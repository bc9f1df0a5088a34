"""The main job, from a protocol to a written result: generate, score, aggregate, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.aggregate import aggregate
from bench.generate import collect, generate, requests
from bench.prompts import Prompt
from bench.protocol import Protocol
from bench.results import Counts, Result, SystemRecord, provenance, write_result
from bench.score import Missing, build_scorer, score
from bench.systems import Collection, System, SystemInfo
from gentron.atomic import check_writable
from gentron.errors import UserError

# a stage's name and length -> a context that gives the function to call with each advance
Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    suite: str
    seed: int
    images_per_prompt: int
    limit: int | None
    allow_missing: bool


def work_folder(work: Path, protocol: Protocol, info: SystemInfo, *, seed: int) -> Path:
    """Where images and rows of this system under this protocol lie.

    Its name holds a hash of all that shapes an image or a score, so the same command finds its images again,
    and a longer run those of a shorter one, but never those of other weights or settings.
    """
    key = [protocol.sha256, info.kind, info.name, info.weights_sha256, info.settings, info.untrained, seed]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return work / protocol.name / f"{info.name}-{digest[:8]}"


def run(
    protocol: Protocol,
    system: System | Collection,
    settings: RunSettings,
    *,
    work: Path,
    out: Path,
    stage: Stage,
) -> tuple[Result, Path]:
    """Make or find all images, score them and write the result; returns it and its folder.

    Raises UserError that lists the images that are missing, corrupt or blank, unless settings.allow_missing.
    """
    # before an hour of generation, not after it
    build_scorer(protocol)
    for folder in (work, out):
        check_writable(folder / "any")
    prompts = protocol.select(settings.suite, limit=settings.limit)
    wanted = requests(prompts, images_per_prompt=settings.images_per_prompt, seed=settings.seed)
    folder = work_folder(work, protocol, system.info, seed=settings.seed)
    with stage("images", len(wanted)) as advance:
        if isinstance(system, Collection):
            records = collect(system, wanted, folder)
            advance(len(wanted))
        else:
            records = generate(system, wanted, folder, advance=advance)
    with stage("scores", len(records)) as advance:
        rows, missing = score(protocol, prompts, records, folder, advance=advance)
    if missing and not settings.allow_missing:
        raise UserError(describe_missing(missing, len(wanted)))
    if not rows:
        raise UserError(f"nothing to score: all {len(wanted)} images are missing, corrupt or blank")
    result = _result(protocol, prompts, system.info, settings, (rows, missing))
    return result, write_result(out, result, prompts, rows)


def _result(
    protocol: Protocol, prompts: list[Prompt], info: SystemInfo, settings: RunSettings, scored
) -> Result:
    rows, missing = scored
    system = {key: value for key, value in asdict(info).items() if key != "device"}
    return Result(
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        suite=settings.suite,
        seed=settings.seed,
        images_per_prompt=settings.images_per_prompt,
        limit=settings.limit,
        system=SystemRecord(**system),
        counts=Counts(expected=len(rows) + len(missing), scored=len(rows), missing=len(missing)),
        missing=missing,
        metrics=aggregate(prompts, rows),
        provenance=provenance(device=info.device),
    )


def describe_missing(missing: list[Missing], expected: int, *, shown: int = 5) -> str:
    """One line with the first few names."""
    names = [f"{m.prompt_id}_{m.sample:02d} ({m.reason})" for m in missing[:shown]]
    more = f" and {len(missing) - shown} more" if len(missing) > shown else ""
    return (
        f"{len(missing)} of {expected} images cannot be scored: {', '.join(names)}{more};"
        " repair them, or score the rest with --allow-missing"
    )
