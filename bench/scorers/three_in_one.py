"""T2I-CompBench's score of complex prompts: `three_in_one`, the mean of what a prompt asks for.

A prompt about space: BLIP-VQA and the 2-D spatial score. One about an action: BLIP-VQA and the CLIP cosine.
Any other: all three. Only the parts that enter are computed. Facts from 3_in_1_eval/3_in_1.py of
Karine-Huang/T2I-CompBench at 1b70949; [Q] marks a quirk of it that equal numbers need.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.prompts.sets import COMPBENCH, complex_classes, complex_key, prompt_set
from bench.scorers import Context, Scored, Scorer, ScorerRecord, blip_vqa, clip, spatial
from bench.weights import locate
from gentron.config import from_dict

if TYPE_CHECKING:
    import numpy as np

    from bench.prompts import Prompt

VERSION = 1
ATTRIBUTE, SPATIAL, ACTION = "attribute", "spatial", "action"
BOTH = "spatial and action"
PARTS = {
    SPATIAL: (SPATIAL, ATTRIBUTE),
    ACTION: (ACTION, ATTRIBUTE),
    BOTH: (ATTRIBUTE, SPATIAL, ACTION),
}
"""Class of a prompt -> its parts, in the order in which the official code adds them."""

LISTS = {SPATIAL: "complex_val_spatial.txt", ACTION: "complex_val_action.txt"}
WEIGHTS = ("blip-vqa", "bert-vocab", "unidet-rs200", "unidet-labels", "clip-vit-b-32")


@dataclass(frozen=True, slots=True)
class Classes:
    """Keys (see bench.prompts.sets.complex_key) of the prompts about space and of those about actions."""

    spatial: Collection[str]
    action: Collection[str]

    def of(self, text: str) -> str:
        """The class of a prompt. [Q] It is looked up by all before the first full stop, in lower case, and a
        prompt in both lists is about space."""
        key = complex_key(text)
        if key in self.spatial:
            return SPATIAL
        return ACTION if key in self.action else BOTH


def combine(kind: str, values: Mapping[str, float]) -> float:
    """The mean of the parts that count for a class, in the official order of operations.

    values: BLIP-VQA as its four decimals, the others as they are.
    """
    parts = [values[part] for part in PARTS[kind]]
    total = parts[0]
    for value in parts[1:]:
        total += value
    return total * 0.5 if len(parts) == 2 else total / len(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The protocol's `scorers.three_in_one`: the settings of its parts."""

    blip_vqa: dict[str, Any]
    unidet_complex: dict[str, Any]
    clip_cosine: dict[str, Any]


class ThreeInOneScorer:
    """Up to three scorers -> one score of an image.

    parts: a scorer each for attribute, spatial and action.   lists: name -> sha256 of the lists of classes.
    """

    def __init__(self, parts: Mapping[str, Scorer], classes: Classes, *, lists: dict[str, str]) -> None:
        self.parts, self.classes = parts, classes
        records = {name: scorer.record for name, scorer in parts.items()}
        self.record = ScorerRecord(
            name="three_in_one",
            version=VERSION,
            weights={id: sha256 for record in records.values() for id, sha256 in record.weights.items()},
            random_weights=any(record.random_weights for record in records.values()),
            settings={
                "lists": lists,
                **{
                    name: {"name": record.name, "version": record.version, **record.settings}
                    for name, record in records.items()
                },
            },
        )

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        kind = self.classes.of(prompt.text)
        scored = {name: self.parts[name].score(image, digest, prompt, sample) for name in PARTS[kind]}
        values = {name: one.score for name, one in scored.items()}
        said = " · ".join(f"{name} {one.score:.4f} ({one.reason})" for name, one in scored.items())
        return Scored(
            score=combine(kind, values),
            reason=f"{kind} prompt: {said}",
            parts=values,
            evidence={"class": kind, **{name: _evidence(one) for name, one in scored.items()}},
        )


def _evidence(scored: Scored) -> dict[str, Any]:
    kept = asdict(scored)
    return {name: kept[name] for name in ("score", "parts", "evidence")}


def build(settings: dict[str, Any], context: Context) -> ThreeInOneScorer:
    """The scorer for a protocol's settings; MissingWeights if a network's file is not there.

    UserError if T2I-CompBench's lists of classes are not fetched.
    """
    read = from_dict(Settings, settings, path="scorers.three_in_one")
    for name in ("unidet_complex", "clip_cosine"):
        if getattr(read, name).get("complex") is not True:
            raise ValueError(f"three_in_one.{name}.complex must be true: prompts of several objects need it")
    spatial_keys, action_keys = complex_classes()
    for id in WEIGHTS:  # before the first network loads
        locate(id, context.models)
    parts: dict[str, Scorer] = {
        ATTRIBUTE: blip_vqa.build(read.blip_vqa, context),
        SPATIAL: spatial.build(read.unidet_complex, context),
        ACTION: clip.build(read.clip_cosine, context),
    }
    lists = {name: prompt_set(COMPBENCH).file(file).content_sha256 for name, file in LISTS.items()}
    return ThreeInOneScorer(parts, Classes(spatial_keys, action_keys), lists=lists)
