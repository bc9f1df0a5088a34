"""Per-image scorers, one a file, named as protocols name them. Nothing heavy is imported until one is
built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.prompts import Prompt
from gentron.errors import UserError
from gentron.hashing import json_sha256

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a scorer says of one image.

    parts: numbers behind the score, by name; each is averaged over the images that have it.
    evidence: what the scorer saw, as JSON: questions with their probabilities, detections.
    chance, shuffled: what the same picture scores against the prompt with the tested attribute redrawn, and
    against other prompts of the category; None where the scorer has no such levels.
    """

    score: float
    reason: str
    """One line that tells a reader why."""
    parts: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    chance: float | None = None
    shuffled: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerRecord:
    """What a result says about a scorer: two scores compare only where these agree."""

    name: str
    version: int
    weights: dict[str, str] = field(default_factory=dict)
    """Name of each network's file -> its sha256."""
    random_weights: bool = False
    """Some network is random: a rehearsal, never a result."""
    settings: dict[str, Any] = field(default_factory=dict)
    """All else that shapes a score: precision, source of noun phrases, constants outside the protocol."""

    @property
    def digest(self) -> str:
        """Short hash that names this very scorer in scores.jsonl."""
        return json_sha256(asdict(self))[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a scorer is given beside its settings.

    models: folder of pretrained networks; None for the user's.   cache: folder for detections and features.
    phrases: source of noun phrases.   prompts: all of the category, for scorers that compare with them.
    """

    device: str = "cpu"
    models: Path | None = None
    cache: Path | None = None
    phrases: str = "auto"
    prompts: Sequence[Prompt] = ()


class Scorer(Protocol):
    """Scores one image at a time, independent of all others, so that any split of the work gives the same."""

    @property
    def record(self) -> ScorerRecord: ...

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        """image: (H, W, 3) uint8.   digest: sha256 of its file.   sample: its index among the prompt's."""
        ...


# name in a protocol -> module with build(settings, context)
SCORERS = {
    "shapes": "bench.scorers.shapes",
    "motion": "bench.scorers.motion",
    "blip_vqa": "bench.scorers.blip_vqa",
    "unidet_2d": "bench.scorers.spatial",
    "unidet_complex": "bench.scorers.spatial",
    "unidet_numeracy": "bench.scorers.numeracy",
    "unidet_3d": "bench.scorers.spatial_3d",
    "clip_cosine": "bench.scorers.clip",
    "three_in_one": "bench.scorers.three_in_one",
}


def build_scorer(name: str, settings: dict[str, Any], context: Context) -> Scorer:
    """The scorer of this name; UserError if there is none, MissingWeights if a network's file is not here.

    settings: the protocol's, read strictly by the scorer.
    """
    if name not in SCORERS:
        raise UserError(f"unknown scorer '{name}'; known: {', '.join(SCORERS)}")
    return import_module(SCORERS[name]).build(settings, context)
