"""Feature extractors: networks with their preprocessing, one a file. An image becomes a vector, alone.

One image at a time, so that a vector depends on its image and nothing else: not on a batch, on the number of
processes or on where a run was killed. Nothing heavy is imported before an extractor is built.
"""

# F frames of a clip, H W size of an image, D numbers of a feature

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gentron.hashing import json_sha256

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractorRecord:
    """All that shapes a feature: two distances compare only where these agree."""

    name: str
    version: int
    mode: str | None = None
    """The convention, where several are in use."""
    resize: str
    """From the image's size to the network's, and the scale of the pixels, in words."""
    layer: str
    num_features: int
    dtype: str = "float32"
    weights: dict[str, str] = field(default_factory=dict)
    """Name of each network's file -> its sha256."""
    random_weights: bool = False
    """The network is random: a rehearsal, never a result."""

    @property
    def digest(self) -> str:
        """Short hash that names this very extractor in a cache."""
        return json_sha256(asdict(self))[:16]

    @property
    def label(self) -> str:
        return self.name if self.mode is None else f"{self.name}-{self.mode}"


class Extractor(Protocol):
    """Makes the features of one image, or of one clip."""

    @property
    def record(self) -> ExtractorRecord: ...

    def features(self, image: np.ndarray) -> np.ndarray:
        """image: (H, W, 3) uint8 of any size; a clip, for I3D, (F, H, W, 3).   Returns (D,) float32."""
        ...


# name -> module with build(name, mode, device=..., models=...)
EXTRACTORS = {
    "inception": "bench.set_metrics.features.inception",
    "clip-vit-b-32": "bench.set_metrics.features.clip",
    "clip-vit-l-14-336": "bench.set_metrics.features.clip",
    "dinov2-vit-l-14": "bench.set_metrics.features.dinov2",
    "mini-autoencoder": "bench.set_metrics.features.mini",
    "i3d": "bench.set_metrics.features.i3d",
}
WEIGHTS_OF = {
    "inception": "bench.set_metrics.features.inception",
    "dinov2-vit-l-14": "bench.set_metrics.features.dinov2",
    "i3d": "bench.set_metrics.features.i3d",
}


def build_extractor(
    name: str, *, mode: str | None = None, device: str = "cpu", models: Path | None = None
) -> Extractor:
    """The extractor of this name; MissingWeights if its network's file is not here.

    mode: of `inception`: clean, tf, pytorch-fid or torchmetrics; of `i3d`: tf or stylegan-v.   models: folder
    of networks.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"unknown extractor '{name}'; known: {', '.join(EXTRACTORS)}")
    return import_module(EXTRACTORS[name]).build(name, mode, device=device, models=models)


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """A small file of random weights in the published format, for rehearsals."""
    _module_of(id).random_weights(path, seed=seed)


def check_keys(id: str, path: Path) -> None:
    """UserError unless the file holds the network that `id` names."""
    _module_of(id).check_keys(path)


def _module_of(id: str) -> Any:
    if id not in WEIGHTS_OF:
        raise ValueError(f"no extractor has weights '{id}'; known: {', '.join(WEIGHTS_OF)}")
    return import_module(WEIGHTS_OF[id])
