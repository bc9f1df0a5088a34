"""CLIP's image embeddings: ViT-B/32 for CLIP-FID as clean-fid has it, ViT-L/14 at 336 for CMMD.

Neither is normalised here; CMMD normalises itself.
"""

# D numbers of an embedding: 512 or 768

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.scorers.clip import ClipModel, load_clip
from bench.set_metrics.features import ExtractorRecord
from bench.set_metrics.features.resize import centre_square, pil_bicubic
from bench.weights import Located, locate

VERSION = 1
B_32, L_14_336 = "clip-vit-b-32", "clip-vit-l-14-336"


def _whole(image: np.ndarray) -> np.ndarray:
    """ClipModel's own preprocessing is clean-fid's: short side 224 by PIL's bicubic, then the centre."""
    return image


def _cropped_first(image: np.ndarray) -> np.ndarray:
    """CMMD's: the centre square first, then 336 by PIL's bicubic; at 336 ClipModel changes nothing more."""
    return pil_bicubic(centre_square(image), 336)


PREPARE: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    B_32: ("short side to 224 by PIL bicubic, centre crop; CLIP's mean and deviation", _whole),
    L_14_336: ("centre square to 336 by PIL bicubic; CLIP's mean and deviation", _cropped_first),
}


class ClipExtractor:
    """The image embedding of one image, not normalised."""

    def __init__(self, model: ClipModel, located: Located) -> None:
        words, self._prepare = PREPARE[located.id]
        self.model = model
        self.record = ExtractorRecord(
            name=located.id,
            version=VERSION,
            resize=words,
            layer="image embedding",
            num_features=model.sizes.embedding_size,
            weights={located.id: located.sha256},
            random_weights=located.random,
        )

    def features(self, image: np.ndarray) -> np.ndarray:
        return self.model.image_embedding(self._prepare(image))


def build(name: str, mode: str | None, *, device: str, models: Path | None) -> ClipExtractor:
    if mode is not None:
        raise ValueError(f"{name} has no modes, got '{mode}'")
    located = locate(name, models)
    return ClipExtractor(load_clip(located, device=device), located)
