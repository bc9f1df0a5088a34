"""The shapes world's own judge on clips: what CLIP and FD are elsewhere, exactly, for prompts of that world.

judge_motion, judge_appearance and judge_persistence are the three scores of bench/scorers/motion.py, where
they are defined. judge_caption is the text alignment of the frames without a network: mean over frames of the
cosine of what the picture judge sees and what the prompt says is there (bench/scorers/shapes_attributes.py).
"""

# F frames of a clip

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.prompts import Prompt
from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.motion import MOTION_JUDGE_VERSION, ClipJudgement, judge_clip, look
from bench.scorers.shapes import JUDGE_VERSION, Detection
from bench.scorers.shapes_attributes import VERSION as ATTRIBUTES_VERSION
from bench.scorers.shapes_attributes import caption_counts, cosine, picture_counts
from bench.scorers.video import ClipScorer, OfLastClip, check_frames
from bench.systems.images import fit
from gentron.errors import UserError
from gentron.shapes.scene import CANVAS

Seen = list[list[Detection]]  # detections of each frame


@dataclass(frozen=True, eq=False)
class JudgeScorer:
    """One of the judge's numbers; all share what it sees in a clip."""

    record: ScorerRecord
    seen: OfLastClip[Seen]
    by_text: Mapping[str, Prompt]
    needs_text: bool = True

    def score(self, frames: np.ndarray, digest: str, text: str | None) -> Scored:
        check_frames(frames)
        prompt = self.by_text.get(text or "")
        if prompt is None:
            raise UserError(f"the judge of the shapes world does not know the prompt '{text}'")
        seen = self.seen(frames, digest)
        kind = self.record.name.removeprefix("judge_")
        if kind == "caption":
            return _caption(seen, prompt)
        return _judged(kind, judge_clip(seen, prompt.clip_claim))


def _judged(kind: str, judgement: ClipJudgement) -> Scored:
    found = getattr(judgement, kind)
    parts = judgement.parts if kind == "motion" else {}
    return Scored(score=found.value, reason=found.reason, parts=dict(parts))


def _caption(seen: Seen, prompt: Prompt) -> Scored:
    said = caption_counts(prompt.claim)
    cosines = [cosine(picture_counts(found), said) for found in seen]
    value = math.fsum(cosines) / len(cosines)
    return Scored(
        score=value, reason=f"cosine {value:.4f} of objects seen and named, least {min(cosines):.4f}"
    )


def build(names: Sequence[str], context: Context) -> dict[str, ClipScorer]:
    """The scorers of these names; UserError unless every prompt is one of the world's clips."""
    strangers = [prompt.id for prompt in context.prompts if not prompt.moves]
    if strangers or not context.prompts:
        first = f", such as {strangers[0]}" if strangers else ""
        raise UserError(
            f"{', '.join(names)} judge prompts of motion-shapes_v1 alone: {len(strangers)} of"
            f" {len(context.prompts)} are none{first}"
        )
    seen = OfLastClip(lambda frames: look(np.stack([fit(frame, CANVAS) for frame in frames])))
    by_text = {prompt.text: prompt for prompt in context.prompts}
    return {name: JudgeScorer(_record(name), seen, by_text) for name in names}


def _record(name: str) -> ScorerRecord:
    settings = {"picture_judge_version": JUDGE_VERSION, "resize": f"mean over areas to {CANVAS} x {CANVAS}"}
    version = ATTRIBUTES_VERSION if name == "judge_caption" else MOTION_JUDGE_VERSION
    return ScorerRecord(name=name, version=version, settings=settings)
