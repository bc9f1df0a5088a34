"""Pictures and texts for CLIP, the same on every machine: for make.py and for the tests."""

from __future__ import annotations

import numpy as np

SEED = 1  # of the random weights
TEXTS = (
    "a green bench and a blue bowl",
    "The quick brown fox jumps over the lazy dog.",
    "A photo depicts two dogs, a cat's toy and an 11:44 clock",
    "caf\u00e9 \u2014 na\u00efve \u00fcber & <b>bold</b>",
    "  spaces   and CAPITALS ",
    "dog " * 76,  # more than the 77 tokens
)
SIZES = ((64, 64), (100, 301), (513, 255), (224, 224), (337, 600))


def images() -> list[np.ndarray]:
    """(H, W, 3) uint8: smooth colours with some noise, at several aspect ratios."""
    rng = np.random.RandomState(7)
    made = []
    for height, width in SIZES:
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        waves = [np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + rng.uniform(0, 6)) for _ in range(3)]
        noise = rng.uniform(-20, 20, (height, width, 3))
        made.append(np.clip(127 + 100 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))
    return made


def sampled(pixels: np.ndarray) -> np.ndarray:
    """Every 16th pixel of (3, S, S), enough to tell two resizes or crops apart."""
    return pixels[:, ::16, ::16]
