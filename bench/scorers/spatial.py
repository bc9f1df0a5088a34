"""T2I-CompBench's 2-D spatial score from UniDet's detections: `unidet_2d`, and `unidet_complex`, the form
that enters the 3-in-1 score.

Score of an image: .25 * confidence of each object found, plus .5 * position if both are; below .5 it is 0.
So an image with one object or a wrong position gets 0, others at least .5. Facts from
UniDet_eval/2D_spatial_eval.py of Karine-Huang/T2I-CompBench at 1b70949; [Q] marks a quirk of it that equal
numbers need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.pairs import (
    Box,
    Pair,
    as_label,
    center_offset,
    first_and_last_noun,
    first_named,
    iou,
    noted,
    pair_evidence,
    pair_parts,
    pair_reason,
    short,
)
from gentron.config import from_dict

if TYPE_CHECKING:
    import numpy as np

    from bench.prompts import Prompt
    from bench.scorers.detection import Detector
    from bench.scorers.phrases import PhraseSource, Token

VERSION = 1

# [Q] the first that is a substring of the prompt, in this order: `near` also fires inside other words
RELATIONS = (
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
)
NEIGHBOURS = frozenset({"on side of", "next to", "near"})
# relation -> axis of the centres' offset (x, y) and the sign it must have from the first object to the second
DIRECTIONS = {
    "on the right of": (0, -1),
    "on the left of": (0, 1),
    "on the bottom of": (1, -1),
    "on the top of": (1, 1),
}
PREPOSITIONS = (
    "on top of",
    "on bottom of",
    "on the left",
    "on the right",
    "next to",
    "on side of",
    "near",
)
LONGEST_PREPOSITION = 3  # tokens
NEAR_PIXELS = 150  # of the detector's 479 or 480: near if closer than this along either axis
MAX_IOU = 0.1  # up to here two boxes count as beside each other
FLOOR = 0.5


def position_score(relation: str | None, a: Box, b: Box) -> float:
    """How well the relation holds from box a to box b, in [0, 1].

    [Q] `on top of` has no branch in the official code and gives 0, as no relation does. Offsets equal along
    both axes give 0 for the four directions.
    """
    offset = center_offset(a, b)
    sizes = abs(offset[0]), abs(offset[1])
    if relation in NEIGHBOURS:
        is_near = min(sizes) < NEAR_PIXELS
        return 1 if is_near else NEAR_PIXELS / max(sizes)
    if relation not in DIRECTIONS:
        return 0
    axis, sign = DIRECTIONS[relation]
    if sign * offset[axis] <= 0 or sizes[axis] <= sizes[1 - axis]:
        return 0
    overlap = iou(a, b)
    return 1 if overlap < MAX_IOU else MAX_IOU / overlap


# ---- which objects a prompt asks for ---------------------------------------------------------------------


def complex_objects(text: str, tokens: Sequence[Token]) -> tuple[str | None, str | None]:
    """The two nouns around a preposition; (None, None) unless the prompt's prepositions give exactly two.

    Backwards from the preposition the nearest NOUN or PROPN. Forwards the first NOUN; [Q] if there is none up
    to the end, the first PROPN that a token other than a PROPN follows, so never the last word.
    """
    spans = _spans(text, tokens)
    nouns: list[str] = []
    for i in range(len(tokens)):
        length = _preposition_length(text, spans, i)
        if length:
            nouns += _noun_before(tokens, i) + _noun_after(tokens, i + length)
    return (nouns[0], nouns[1]) if len(nouns) == 2 else (None, None)


def _spans(text: str, tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Start and end of each token in the text, so that a phrase is compared as it is written there."""
    spans, end = [], 0
    for token in tokens:
        start = text.index(token.text, end)
        end = start + len(token.text)
        spans.append((start, end))
    return spans


def _preposition_length(text: str, spans: list[tuple[int, int]], i: int) -> int:
    """Tokens of the longest preposition that starts at token i, 0 for none."""
    for length in range(LONGEST_PREPOSITION, 0, -1):
        last = min(i + length, len(spans)) - 1  # [Q] a slice past the end is cut: length stays as asked
        if text[spans[i][0] : spans[last][1]] in PREPOSITIONS:
            return length
    return 0


def _noun_before(tokens: Sequence[Token], i: int) -> list[str]:
    return [token.text for token in reversed(tokens[:i]) if token.pos in ("NOUN", "PROPN")][:1]


def _noun_after(tokens: Sequence[Token], start: int) -> list[str]:
    rest = tokens[start:]
    nouns = [token.text for token in rest if token.pos == "NOUN"]
    names = [
        token.text
        for token, following in zip(rest, rest[1:], strict=False)
        if token.pos == "PROPN" and following.pos != "PROPN"
    ]
    return (nouns or names)[:1]


# ---- the score -------------------------------------------------------------------------------------------


def find_pair(
    asked: tuple[str | None, str | None], relation: str | None, labels: Sequence[str], boxes: Sequence[Box]
) -> Pair:
    """The best detection of each object: labels are in descending score and must be equal to the name [Q]."""
    first, second = (labels.index(name) if name is not None and name in labels else None for name in asked)
    if first is None or second is None:
        return Pair(first, second, None)
    return Pair(first, second, position_score(relation, boxes[first], boxes[second]))


def spatial_score(pair: Pair, confidences: Sequence[float]) -> float:
    """The official value of an image, 0 or in [.5, 1]."""
    score = pair.score(confidences)
    return 0.0 if score < FLOOR else score


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The protocol's `scorers.unidet_2d` or `scorers.unidet_complex`."""

    complex: bool
    """Objects as the complex category's prompts need: the two nouns around a preposition."""
    detector: dict[str, Any]
    """Read by bench.scorers.unidet."""


class SpatialScorer:
    """Detections and nouns of the prompt -> the score of an image."""

    def __init__(self, settings: Settings, detector: Detector, phrases: PhraseSource) -> None:
        self.settings, self.detector, self.phrases = settings, detector, phrases
        self.record = ScorerRecord(
            name="unidet_complex" if settings.complex else "unidet_2d",
            version=VERSION,
            weights=dict(detector.record.weights),
            random_weights=detector.record.random_weights,
            settings={"detector": dict(detector.record.settings), "phrases": dict(phrases.record)},
        )

    def asked(self, prompt: Prompt) -> tuple[str | None, str | None]:
        """Labels of the two objects that the prompt asks for."""
        tokens = self.phrases.parse(prompt.text).tokens
        if self.settings.complex:
            nouns = complex_objects(prompt.text, tokens)
        else:
            nouns = first_and_last_noun(tokens)
        return as_label(nouns[0]), as_label(nouns[1])

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        asked, relation = self.asked(prompt), first_named(prompt.text, RELATIONS)
        found = self.detector.detect(image, digest)
        labels = [d.label for d in found]
        confidences = [d.score for d in found]
        boxes = [d.box for d in found]
        pair = find_pair(asked, relation, labels, boxes)
        score = spatial_score(pair, confidences)
        reason = pair_reason(asked, relation, pair, confidences) + noted(found)
        if score == 0 and pair.score(confidences) > 0:
            reason += f"; {short(pair.score(confidences))} is below {short(FLOOR)}"
        return Scored(
            score=score,
            reason=reason,
            parts=pair_parts(pair),
            evidence=pair_evidence(asked, relation, pair, labels, confidences, boxes),
        )


def build(settings: dict[str, Any], context: Context) -> SpatialScorer:
    """The scorer for a protocol's settings; MissingWeights if the detector's files are not there."""
    from bench.scorers.phrases import phrase_source
    from bench.scorers.unidet import build_detector

    read = from_dict(Settings, settings, path="scorers.unidet_2d")
    phrases = phrase_source(context.phrases, texts=[prompt.text for prompt in context.prompts])
    return SpatialScorer(read, build_detector(read.detector, context), phrases)
