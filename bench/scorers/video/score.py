"""Clips -> rows, one a clip and measure. Rows of the same frames and the same scorer are kept when a run goes
on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from bench.scorers.score import SCORES, Missing, ScoreRow, read_scores_rows
from bench.scorers.video import ClipScorer
from bench.systems.clips import Clip, Reading, read_clip
from bench.systems.rows import append_row, merge_rows
from gentron.errors import MediaError


def score_clips(
    scorers: Mapping[str, ClipScorer],
    clips: Iterable[Clip],
    folder: Path,
    *,
    reading: Reading,
    advance: Callable[[int], None],
    file_name: str = SCORES,
) -> None:
    """Score what has no row yet, each number appended to `file_name` as soon as it is known.

    Clips that cannot be read, or hold one frame, are passed over; `gather_clips` lists them.
    """
    with one_thread():
        _score_clips(scorers, clips, folder, reading, advance, file_name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of several threads round otherwise with their number, and with it a number of a clip would."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _score_clips(
    scorers: Mapping[str, ClipScorer],
    clips: Iterable[Clip],
    folder: Path,
    reading: Reading,
    advance: Callable[[int], None],
    file_name: str,
) -> None:
    kept = read_scores_rows(folder)
    for clip in clips:
        try:
            frames = read_clip(clip.path, reading)
        except MediaError:
            advance(1)
            continue
        for scorer in scorers.values() if len(frames.pixels) > 1 else ():
            key = (clip.prompt_id, clip.sample, frames.digest, scorer.record.digest)
            if key in kept or (scorer.needs_text and clip.text is None):
                continue
            scored = scorer.score(frames.pixels, frames.digest, clip.text)
            row = ScoreRow(
                prompt_id=clip.prompt_id,
                sample=clip.sample,
                seed=clip.seed,
                sha256=frames.digest,
                scorer=scorer.record.digest,
                **asdict(scored),
            )
            append_row(folder / file_name, asdict(row))
        advance(1)


class Gathered(NamedTuple):
    """rows: by measure, each in the order of the clips.   missing: clips without numbers, with the reason."""

    rows: dict[str, list[ScoreRow]]
    missing: list[Missing]


def gather_clips(
    scorers: Mapping[str, ClipScorer], clips: Sequence[Clip], folder: Path, *, reading: Reading
) -> Gathered:
    """The rows of all clips once every process has scored its share."""
    known = read_scores_rows(folder)
    rows: dict[str, list[ScoreRow]] = {name: [] for name in scorers}
    missing = []
    for clip in clips:
        try:
            frames = read_clip(clip.path, reading)
        except MediaError as error:
            missing.append(_missing(clip, str(error)))
            continue
        if len(frames.pixels) < 2:
            missing.append(_missing(clip, "one frame, expected at least 2"))
            continue
        for name, scorer in scorers.items():
            row = known.get((clip.prompt_id, clip.sample, frames.digest, scorer.record.digest))
            if row is not None:
                rows[name].append(row)
            else:
                assert scorer.needs_text and clip.text is None, f"{name} of {clip.name} was not scored"
    return Gathered(rows, missing)


def keep_rows(folder: Path, rows: Mapping[str, Sequence[ScoreRow]]) -> None:
    """scores.jsonl anew, in a fixed order, with the rows of other runs on these clips."""
    known = read_scores_rows(folder)
    known.update({(r.prompt_id, r.sample, r.sha256, r.scorer): r for group in rows.values() for r in group})
    merge_rows(folder, SCORES, (asdict(known[key]) for key in sorted(known)))


def _missing(clip: Clip, reason: str) -> Missing:
    return Missing(prompt_id=clip.prompt_id, sample=clip.sample, file=clip.name, reason=reason)
