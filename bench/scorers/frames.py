"""Clips before scorers: the one place where frames become pictures, or a clip.

A scorer of pictures never learns what a clip is. It is asked about every frame, and the means are the clip's;
or about one frame, where the protocol or the caller says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from bench.prompts import Prompt
from bench.scorers import Scored, Scorer, ScorerRecord
from bench.systems.samples import Frame, taken


class OverFrames:
    """A picture scorer that reads clips.   frame: the one that is scored; None scores all."""

    def __init__(self, scorer: Scorer, frame: int | None = None) -> None:
        self._scorer, self._frame = scorer, frame

    @property
    def record(self) -> ScorerRecord:
        """Another one than of pictures: the two do not compare."""
        record, which = self._scorer.record, "mean" if self._frame is None else self._frame
        return replace(record, settings={**record.settings, "frames": which})

    def score(self, frames: Sequence[Frame], prompt: Prompt, sample: int) -> Scored:
        chosen = taken(frames, self._frame)
        each = [self._scorer.score(frame.pixels, frame.sha256, prompt, sample) for frame in chosen]
        return each[0] if self._frame is not None else mean_over_frames(each)


def mean_over_frames(each: Sequence[Scored]) -> Scored:
    """Means of all numbers, of a part over the frames that have it. The reason is the worst frame's."""
    worst = min(range(len(each)), key=lambda k: each[k].score)
    parts = dict.fromkeys(name for scored in each for name in scored.parts)
    return Scored(
        score=_mean(scored.score for scored in each),
        reason=f"mean of {len(each)} frames; lowest, frame {worst}: {each[worst].reason}",
        parts={name: _mean(s.parts[name] for s in each if name in s.parts) for name in parts},
        evidence={"frames": [scored.evidence for scored in each]},
        chance=_mean_if_all(scored.chance for scored in each),
        shuffled=_mean_if_all(scored.shuffled for scored in each),
    )


@runtime_checkable
class ClipJudge(Protocol):
    """Scores the frames of a clip together, as a judge of motion must."""

    @property
    def record(self) -> ScorerRecord: ...

    def score_clip(self, frames: np.ndarray, prompt: Prompt, sample: int) -> Scored:
        """frames: (F, H, W, 3) uint8.   sample: its index among the prompt's."""
        ...


def score_frames(
    scorer: Scorer | OverFrames | ClipJudge, frames: Sequence[Frame], prompt: Prompt, sample: int
) -> Scored:
    """Of a picture, which has one frame, or of a clip; ValueError for a clip and a scorer of pictures."""
    if isinstance(scorer, OverFrames):
        return scorer.score(frames, prompt, sample)
    if isinstance(scorer, ClipJudge):
        return scorer.score_clip(np.stack([frame.pixels for frame in frames]), prompt, sample)
    if len(frames) != 1:
        raise ValueError(f"'{scorer.record.name}' scores pictures, got {len(frames)} frames: use OverFrames")
    return scorer.score(frames[0].pixels, frames[0].sha256, prompt, sample)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _mean_if_all(values: Iterable[float | None]) -> float | None:
    found = [value for value in values]
    known = [value for value in found if value is not None]
    return _mean(known) if known and len(known) == len(found) else None
