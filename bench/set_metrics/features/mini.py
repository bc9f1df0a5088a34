"""A substitute for machines without pretrained networks: latents of the bundled mini autoencoder, pooled.

The picture is brought to 64 x 64 by the mean over areas and encoded to latents (4, 16, 16) of about unit
variance. Each channel's mean and standard deviation (divided by n) in each of the 4 x 4 squares of 4 x 4
latents are the features: 2 x 4 x 16 = 128, the means before the deviations, channel by channel, row by row. A
square is a cell of the shapes world's grid. Distances in these features are about that world; they are no
FID, and say nothing about photographs.
"""

# D features (128)

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.set_metrics.features import ExtractorRecord
from bench.systems.images import fit
from gentron.autoencoder import Autoencoder
from gentron.bundled import bundled_part
from gentron.errors import UserError
from gentron.hashing import file_sha256

NAME = "mini-autoencoder"
VERSION = 1
IMAGE_SIZE, CELLS = 64, 4
WEIGHTS = "diffusion_pytorch_model.safetensors"


class MiniAutoencoderExtractor:
    """Pooled latents of one image."""

    def __init__(self, autoencoder: Autoencoder, sha256: str, *, device: str = "cpu") -> None:
        self.autoencoder, self.device = autoencoder, device
        self.record = ExtractorRecord(
            name=NAME,
            version=VERSION,
            resize="mean over areas to 64 x 64; x / 127.5 - 1",
            layer=f"latents, mean and deviation in {CELLS} x {CELLS} cells",
            num_features=2 * autoencoder.latent_channels * CELLS**2,
            weights={f"mini/autoencoder/{WEIGHTS}": sha256},
        )

    def features(self, image: np.ndarray) -> np.ndarray:
        square = np.ascontiguousarray(fit(image, IMAGE_SIZE).transpose(2, 0, 1))
        pixels = torch.from_numpy(square)[None].float().to(self.device) / 127.5 - 1
        with torch.inference_mode():
            latents = self.autoencoder.encode(pixels)[0]  # (4, 16, 16)
        side = latents.shape[1] // CELLS
        cells = latents.view(-1, CELLS, side, CELLS, side).transpose(2, 3).flatten(3)  # (4, 4, 4, 16)
        pooled = torch.stack([cells.mean(dim=3), cells.std(dim=3, correction=0)])
        return pooled.flatten().cpu().numpy()


def build(name: str, mode: str | None, *, device: str, models: Path | None) -> MiniAutoencoderExtractor:
    """Needs nothing from the models folder."""
    if mode is not None:
        raise ValueError(f"{name} has no modes, got '{mode}'")
    folder = bundled_part("autoencoder")
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"the bundled autoencoder is missing ({path}): reinstall the package")
    digest = file_sha256(path)
    return MiniAutoencoderExtractor(Autoencoder.from_pretrained(folder, device=device), digest, device=device)
