"""Images -> scores.jsonl, one row an image. Rows of the same bytes and the same scorer are kept when a run
goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.prompts import Prompt
from bench.scorers import OfFrames, Scorer
from bench.systems.generate import ImageRecord
from bench.systems.images import BadImage, read_clip, read_image
from bench.systems.rows import append_row, read_all_rows
from gentron.config import from_dict

SCORES = "scores.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """A row of scores.jsonl; see `Scored` for what a scorer says.

    scorer: digest of the scorer's record.   sha256: of the image's file.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """An image that could not be scored, and why: missing, corrupt or blank."""

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
    scorers: Mapping[str, Scorer],
    prompts: Sequence[Prompt],
    records: Iterable[ImageRecord],
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


def _read(scorer: Scorer, path: Path) -> tuple[np.ndarray, str]:
    """What the scorer looks at, and the digest of its file; raises BadImage with the reason."""
    if isinstance(scorer, OfFrames):
        return read_clip(path, num_frames=scorer.num_frames, fps=scorer.fps)
    return read_image(path)


def _score_one(scorer: Scorer, prompt: Prompt, record: ImageRecord, folder: Path) -> ScoreRow | None:
    """None for an image that is missing, corrupt, blank or not the one that was recorded."""
    try:
        image, digest = _read(scorer, folder / record.file)
    except BadImage:
        return None
    if digest != record.sha256:
        return None
    scored = scorer.score(image, digest, prompt, record.sample)
    return ScoreRow(
        prompt_id=record.prompt_id,
        sample=record.sample,
        seed=record.seed,
        sha256=digest,
        scorer=scorer.record.digest,
        **asdict(scored),
    )


def gather(
    scorers: Mapping[str, Scorer], prompts: Sequence[Prompt], records: Iterable[ImageRecord], folder: Path
) -> tuple[list[ScoreRow], list[Missing]]:
    """The rows of all records, in their order, and the images without one, each with its reason."""
    categories = {prompt.id: prompt.category for prompt in prompts}
    known = read_scores_rows(folder)
    rows, missing = [], []
    for record in records:
        scorer = scorers[categories[record.prompt_id]]
        row = known.get((record.prompt_id, record.sample, record.sha256 or "", scorer.record.digest))
        reason = None if row else _why_unscored(scorer, folder / record.file)
        if row:
            rows.append(row)
        else:
            missing.append(
                Missing(
                    prompt_id=record.prompt_id,
                    sample=record.sample,
                    file=record.file,
                    reason=reason or "changed since it was made",
                )
            )
    return rows, missing


def _why_unscored(scorer: Scorer, path: Path) -> str | None:
    try:
        _read(scorer, path)
    except BadImage as bad:
        return str(bad)
    return None


def why_unscored(path: Path) -> str | None:
    """missing, corrupt or blank; None for a picture that is none of them."""
    try:
        read_image(path)
    except BadImage as bad:
        return str(bad)
    return None
