"""Images -> scores.jsonl, one row an image. Rows of the same bytes and the same scorer are kept when a run
goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.prompts import Prompt
from bench.scorers import Scorer
from bench.scorers.frames import OverFrames, score_frames
from bench.systems.images import BadImage
from bench.systems.rows import append_row, read_all_rows
from bench.systems.samples import SampleRecord, are_blank, read_frames
from gentron.config import from_dict

SCORES = "scores.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """A row of scores.jsonl; see `Scored` for what a scorer says.

    scorer: digest of the scorer's record.   sha256: of the image's file.   blank: the image is of one colour;
    rows from before they were scored are of none.
    """

    prompt_id: str
    sample: int
    seed: int
    sha256: str
    scorer: str
    score: float
    reason: str
    parts: dict[str, float]
    evidence: dict[str, Any]
    chance: float | None
    shuffled: float | None
    blank: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """An image that could not be scored, and why: missing or corrupt, say."""

    prompt_id: str
    sample: int
    file: str
    reason: str


RowKey = tuple[str, int, str, str]  # prompt id, sample, sha256 of the image, digest of the scorer


def read_scores_rows(folder: Path) -> dict[RowKey, ScoreRow]:
    """All rows of a work folder that are whole; those of an older form are left out and scored again."""
    rows = {}
    for data in read_all_rows(folder, SCORES):
        try:
            row = from_dict(ScoreRow, data)
        except ValueError:
            continue
        rows[row.prompt_id, row.sample, row.sha256, row.scorer] = row
    return rows


def score(
    scorers: Mapping[str, Scorer | OverFrames],
    prompts: Sequence[Prompt],
    records: Iterable[SampleRecord],
    folder: Path,
    *,
    advance: Callable[[int], None],
    file_name: str = SCORES,
) -> None:
    """Score the records that have no row yet, each appended to `file_name` as soon as it is known.

    scorers: by category.   records: of prompts in `prompts`; bad images are passed over, `gather` lists them.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    kept = read_scores_rows(folder)
    for record in records:
        prompt = by_id[record.prompt_id]
        scorer = scorers[prompt.category]
        if (record.prompt_id, record.sample, record.sha256, scorer.record.digest) not in kept:
            row = _score_one(scorer, prompt, record, folder)
            if row is not None:
                append_row(folder / file_name, asdict(row))
        advance(1)


def _score_one(
    scorer: Scorer | OverFrames, prompt: Prompt, record: SampleRecord, folder: Path
) -> ScoreRow | None:
    """None for an image that is missing, corrupt or not the one that was recorded."""
    try:
        frames = read_frames(folder, record)
    except BadImage:
        return None
    assert record.sha256 is not None
    scored = score_frames(scorer, frames, prompt, record.sample)
    return ScoreRow(
        prompt_id=record.prompt_id,
        sample=record.sample,
        seed=record.seed,
        sha256=record.sha256,
        scorer=scorer.record.digest,
        blank=are_blank(frames),
        **asdict(scored),
    )


def gather(
    scorers: Mapping[str, Scorer | OverFrames],
    prompts: Sequence[Prompt],
    records: Iterable[SampleRecord],
    folder: Path,
) -> tuple[list[ScoreRow], list[Missing]]:
    """The rows of all records, in their order, and the images without one, each with its reason."""
    categories = {prompt.id: prompt.category for prompt in prompts}
    known = read_scores_rows(folder)
    rows, missing = [], []
    for record in records:
        digest = scorers[categories[record.prompt_id]].record.digest
        row = known.get((record.prompt_id, record.sample, record.sha256 or "", digest))
        if row:
            rows.append(row)
        else:
            missing.append(missing_of(folder, record))
    return rows, missing


def missing_of(folder: Path, record: SampleRecord) -> Missing:
    """A record without a row: why it could not be scored."""
    try:
        read_frames(folder, record)
        reason = "changed since it was made"
    except BadImage as bad:
        reason = str(bad)
    return Missing(prompt_id=record.prompt_id, sample=record.sample, file=record.file, reason=reason)
