"""CLIP on the frames of a clip: with the prompt, and with each other. Cosines of ViT-B/32 in float32, as the
repository's CLIP scorer has them (bench/scorers/clip.py), every frame resized and embedded as a picture.

clip_frames: mean over frames of cos(frame, prompt), no prefix: the CLIP score of a clip.
clip_consistency: mean over neighbouring frames of cos(frame k, frame k + 1).
clip_consistency_first: mean over k >= 1 of cos(frame 0, frame k).
"""

# F frames of a clip, D numbers of an embedding

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.clip import (
    B_32,
    CONTEXT_LENGTH,
    ClipModel,
    cosine,
    load_clip,
    network_settings,
    tokenize,
)
from bench.scorers.video import ClipScorer, OfLastClip, check_frames
from bench.weights import locate

VERSION = 1


def consistency(embeddings: np.ndarray) -> float:
    """(F, D) -> mean cosine of neighbours."""
    pairs = [cosine(a, b) for a, b in zip(embeddings, embeddings[1:], strict=False)]
    return math.fsum(pairs) / len(pairs)


def consistency_first(embeddings: np.ndarray) -> float:
    """(F, D) -> mean cosine of the first with each other."""
    return math.fsum(cosine(embeddings[0], other) for other in embeddings[1:]) / (len(embeddings) - 1)


class ConsistencyScorer:
    """A number of the frames' embeddings alone."""

    needs_text = False

    def __init__(
        self,
        record: ScorerRecord,
        embeddings: OfLastClip[np.ndarray],
        of_embeddings: Callable[[np.ndarray], float],
    ) -> None:
        self.record, self._embeddings, self._of_embeddings = record, embeddings, of_embeddings

    def score(self, frames: np.ndarray, digest: str, text: str | None) -> Scored:
        check_frames(frames)
        value = self._of_embeddings(self._embeddings(frames, digest))
        return Scored(score=value, reason=f"cosine {value:.4f} over {len(frames) - 1} pairs of frames")


class ClipFramesScorer:
    """The mean cosine of frames and prompt."""

    needs_text = True

    def __init__(self, record: ScorerRecord, embeddings: OfLastClip[np.ndarray], model: ClipModel) -> None:
        self.record, self._embeddings, self._model = record, embeddings, model

    def score(self, frames: np.ndarray, digest: str, text: str | None) -> Scored:
        if text is None:
            raise ValueError("clip_frames compares frames with a prompt, and there is none")
        of_text = self._model.text_embedding(text)
        cosines = [cosine(frame, of_text) for frame in self._embeddings(frames, digest)]
        value = math.fsum(cosines) / len(cosines)
        tokens = tokenize(text)
        cut = f"; only the first {CONTEXT_LENGTH} of {tokens.count} tokens are seen"
        return Scored(
            score=value,
            reason=f"cosine {value:.4f} with '{text}'{cut if tokens.truncated else ''}",
            parts={
                "least frame": min(cosines),
                "truncated": float(tokens.truncated),
            },
        )


def build(names: Sequence[str], context: Context) -> dict[str, ClipScorer]:
    """The scorers of these names on one network; MissingWeights if its file is not here."""
    located = locate(B_32, context.models)
    model = load_clip(located, device=context.device)
    embeddings = OfLastClip(lambda frames: np.stack([model.image_embedding(frame) for frame in frames]))
    made: dict[str, ClipScorer] = {}
    for name in names:
        record = ScorerRecord(
            name=name,
            version=VERSION,
            weights={located.id: located.sha256},
            random_weights=located.random,
            settings=network_settings(model, located),
        )
        if name == "clip_frames":
            made[name] = ClipFramesScorer(record, embeddings, model)
        else:
            of_embeddings = consistency if name == "clip_consistency" else consistency_first
            made[name] = ConsistencyScorer(record, embeddings, of_embeddings)
    return made
