"""Images -> scores.jsonl, one row an image. Rows of the same bytes are kept when a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.generate import ImageRecord, append_row, read_rows
from bench.images import BadImage, fit, read_image
from bench.prompts import Prompt, redraw
from bench.protocol import Protocol
from bench.scorers import SCORERS
from bench.scorers.shapes import Detection, ShapesScorer
from gentron.errors import UserError

SCORES = "scores.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """A row of scores.jsonl.

    chance, shuffled: what the same picture scores against the prompt with the tested attribute redrawn, and
    against other prompts of the category.
    """

    prompt_id: str
    sample: int
    sha256: str
    score: float
    reason: str
    parts: dict[str, float]
    chance: float
    shuffled: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """An image that could not be scored, and why: missing, corrupt or blank."""

    prompt_id: str
    sample: int
    file: str
    reason: str


def build_scorer(protocol: Protocol) -> ShapesScorer:
    """The protocol's scorer; UserError if this version of the bench has another one."""
    spec, world = protocol.config.scorer, protocol.config.world
    if spec.name not in SCORERS:
        raise UserError(f"unknown scorer '{spec.name}'; known: {', '.join(SCORERS)}")
    scorer = SCORERS[spec.name]()
    if (spec.version, world.version) != (scorer.version, scorer.world_version):
        raise UserError(
            f"{protocol.name} asks for scorer {spec.name} version {spec.version} and world {world.version};"
            f" installed are {scorer.version} and {scorer.world_version}: install the matching release"
        )
    return scorer


def score(
    protocol: Protocol,
    prompts: list[Prompt],
    records: list[ImageRecord],
    folder: Path,
    *,
    advance: Callable[[int], None],
) -> tuple[list[ScoreRow], list[Missing]]:
    """Score every record, in order; rows that are in scores.jsonl already with the same bytes are kept."""
    scorer = build_scorer(protocol)
    by_id = {prompt.id: prompt for prompt in prompts}
    kept = {(r["prompt_id"], r["sample"], r["sha256"]): ScoreRow(**r) for r in read_rows(folder / SCORES)}
    rows, missing = [], []
    for record in records:
        try:
            image, digest = read_image(folder / record.file)
        except BadImage as bad:
            missing.append(_missing(record, str(bad)))
            continue
        finally:
            advance(1)
        if record.sha256 != digest:
            missing.append(_missing(record, "changed since it was made"))
            continue
        row = kept.get((record.prompt_id, record.sample, digest))
        if row is None:
            seen = scorer.look(fit(image, protocol.config.image_size))
            row = _score_one(protocol, scorer, by_id[record.prompt_id], record.sample, seen, digest)
            append_row(folder / SCORES, asdict(row))
        rows.append(row)
    return rows, missing


def _missing(record: ImageRecord, reason: str) -> Missing:
    return Missing(prompt_id=record.prompt_id, sample=record.sample, file=record.file, reason=reason)


def _score_one(
    protocol: Protocol, scorer: ShapesScorer, prompt: Prompt, sample: int, seen: list[Detection], digest: str
) -> ScoreRow:
    judgement = scorer.score(seen, prompt.description)
    chance, others = protocol.config.chance, protocol.prompts[prompt.category]
    # keyed by the prompt, so that a picture's chance level does not depend on what else was scored
    key = [chance.seed, sample, *prompt.id.encode()]
    rng = np.random.default_rng(key)
    tested = protocol.config.categories[prompt.category].tested
    redrawn = [redraw(prompt.description, tested, rng) for _ in range(chance.draws)]
    strangers = [p for p in others if p.id != prompt.id]
    shuffled = [strangers[int(k)].description for k in rng.integers(0, len(strangers), chance.draws)]
    return ScoreRow(
        prompt_id=prompt.id,
        sample=sample,
        sha256=digest,
        score=judgement.score,
        reason=judgement.reason,
        parts=judgement.parts,
        chance=float(np.mean([scorer.score(seen, d).score for d in redrawn])),
        shuffled=float(np.mean([scorer.score(seen, d).score for d in shuffled])),
    )
