"""T2I-CompBench++'s 3-D spatial score from UniDet's detections and DPT's depth: `unidet_3d`.

Score of an image: .25 * confidence of each object found, plus .5 * position if both are; no floor, unlike
2-D. Facts from UniDet_eval/3D_spatial_eval.py of Karine-Huang/T2I-CompBench at 1b70949; [Q] marks a quirk of
it that equal numbers need.
"""

# H W the detector's image; depth in [0, 1], larger is nearer

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.pairs import (
    Box,
    Pair,
    as_label,
    first_and_last_noun,
    first_named,
    iou,
    noted,
    pair_evidence,
    pair_parts,
    pair_reason,
)
from gentron.config import from_dict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bench.prompts import Prompt
    from bench.scorers.detection import Detector
    from bench.scorers.phrases import PhraseSource

VERSION = 2  # 1 took means in float32

RELATIONS = ("in front of", "behind", "hidden")  # the first that is a substring of the prompt
FULL_IOU = 0.5  # boxes must overlap: from here on fully, below in proportion


def mean_depth(depth: Tensor, box: Box) -> float:
    """Mean of the depth in a box.

    depth: (H, W) float32.   [Q] rows are taken by x and columns by y: the box mirrored at the diagonal. NaN
    where that leaves nothing of the picture.
    """
    # in float64 the sum of a depth map is exact: no last digit says which of two equal depths is nearer
    return float(depth[int(box[0]) : int(box[2]), int(box[1]) : int(box[3])].double().mean())


def position_score(relation: str | None, a: Box, b: Box, depth: Tensor) -> float:
    """How well the relation holds from box a to box b, in [0, 1].

    [Q] An overlap of exactly .5 gives 0 where .499 gives nearly 1, and so do boxes that do not overlap.
    """
    overlap = iou(a, b)
    if relation not in RELATIONS or overlap in (0, FULL_IOU):
        return 0
    nearer = mean_depth(depth, a) - mean_depth(depth, b)
    is_right = nearer > 0 if relation == "in front of" else nearer < 0  # NaN is neither
    if not is_right:
        return 0
    return 1 if overlap > FULL_IOU else overlap / FULL_IOU


def choose(asked: tuple[str | None, str | None], labels: Sequence[str]) -> tuple[int | None, int | None]:
    """Indices of the detections of the two objects: a name is found in every label that contains it.

    [Q] If both are there, labels are walked in score order and each match replaces the one before, until both
    have one: the object found later has its best detection, the other its last up to that point. If only one
    is there it has its best.
    """
    first, second = (
        [i for i, label in enumerate(labels) if name is not None and name in label] for name in asked
    )
    if not first or not second:
        return (first[0] if first else None), (second[0] if second else None)
    end = max(first[0], second[0])
    return max(i for i in first if i <= end), max(i for i in second if i <= end)


def depth_at(depth: np.ndarray, size: tuple[int, int]) -> Tensor:
    """The stored depth as the score reads it.

    depth: (H, W) uint8 at the picture's own size.   size: (width, height) of the detector's image, to which
    it is brought by PIL's bilinear filter as the picture was.   Returns (H, W) float32 in [0, 1].
    """
    import numpy as np
    import torch
    from PIL import Image

    picture = Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).float() / 255.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The protocol's `scorers.unidet_3d`."""

    detector: dict[str, Any]
    """Read by bench.scorers.unidet."""
    depth: dict[str, Any]
    """Read by bench.scorers.depth."""


class DepthSource(Protocol):
    """Depth of one picture at a time."""

    @property
    def record(self) -> ScorerRecord:
        """Weights and settings, for the record of the scorer that uses it."""
        ...

    def depth(self, image: np.ndarray, digest: str) -> np.ndarray:
        """image: (H, W, 3) uint8.   digest: sha256 of its file.   Returns (H, W) uint8, larger is nearer."""
        ...


class Spatial3dScorer:
    """Detections, depth and nouns of the prompt -> the score of an image."""

    def __init__(self, detector: Detector, depth: DepthSource, phrases: PhraseSource) -> None:
        self.detector, self.depth, self.phrases = detector, depth, phrases
        self.record = ScorerRecord(
            name="unidet_3d",
            version=VERSION,
            weights={**detector.record.weights, **depth.record.weights},
            random_weights=detector.record.random_weights or depth.record.random_weights,
            settings={
                "detector": dict(detector.record.settings),
                "depth": dict(depth.record.settings),
                "phrases": dict(phrases.record),
            },
        )

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        nouns = first_and_last_noun(self.phrases.parse(prompt.text).tokens)
        asked = as_label(nouns[0]), as_label(nouns[1])
        relation = first_named(prompt.text, RELATIONS)
        found = self.detector.detect(image, digest)
        labels = [d.label for d in found]
        confidences = [d.score for d in found]
        boxes = [d.box for d in found]
        first, second = choose(asked, labels)
        position, depths = None, {}
        if first is not None and second is not None:  # depth is looked at only where it enters
            depth = depth_at(self.depth.depth(image, digest), found.size)
            position = position_score(relation, boxes[first], boxes[second], depth)
            means = [mean_depth(depth, boxes[index]) for index in (first, second)]
            depths = {"mean_depths": [None if math.isnan(mean) else mean for mean in means]}
        pair = Pair(first, second, position)
        evidence = pair_evidence(asked, relation, pair, labels, confidences, boxes) | depths
        return Scored(
            score=pair.score(confidences),
            reason=pair_reason(asked, relation, pair, confidences) + noted(found),
            parts=pair_parts(pair),
            evidence=evidence,
        )


def build(settings: dict[str, Any], context: Context) -> Spatial3dScorer:
    """The scorer for a protocol's settings; MissingWeights if a network's file is not there."""
    from bench.scorers.depth import build_depth
    from bench.scorers.phrases import phrase_source
    from bench.scorers.unidet import build_detector
    from bench.weights import locate

    read = from_dict(Settings, settings, path="scorers.unidet_3d")
    phrases = phrase_source(context.phrases, texts=[prompt.text for prompt in context.prompts])
    locate("dpt-hybrid", context.models)  # before the detector loads
    return Spatial3dScorer(build_detector(read.detector, context), build_depth(read.depth, context), phrases)
