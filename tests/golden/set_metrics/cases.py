"""The fixed inputs of make.py and of the tests: drawn from seeds, so only answers are stored. numpy only."""

from __future__ import annotations

import numpy as np

INCEPTION_SEED, DINOV2_SEED = 7, 11
SIZES = ((64, 64), (40, 70), (299, 299), (320, 200), (17, 33), (500, 333), (128, 256), (298, 300))
KEPT = 2  # pictures of the first set whose features are stored whole


def picture(seed: int, height: int, width: int, contrast: float) -> np.ndarray:
    """(H, W, 3) uint8: soft blobs, an edge, a little noise."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height, x / width
    image = np.full((height, width, 3), 0.5)
    for _ in range(6):
        cx, cy, radius = rng.rand(3) * [1, 1, 0.4] + [0, 0, 0.05]
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
        image += contrast * blob[..., None] * (rng.rand(3) - 0.5)
    image += contrast * 0.4 * (x * np.cos(seed) + y * np.sin(seed) > 0.4)[..., None]
    image += 0.05 * rng.randn(height, width, 3)
    return (image.clip(0, 1) * 255).astype(np.uint8)


def pictures() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two sets of eight, in several sizes and of other contrast."""
    first = [picture(k, *size, contrast=0.9) for k, size in enumerate(SIZES)]
    second = [picture(100 + k, *size[::-1], contrast=0.3) for k, size in enumerate(SIZES)]
    return first, second


def features(num_images: int, num_features: int, seed: int) -> np.ndarray:
    """(N, D) float64, >= 0 and correlated as pool features are; sets of other seeds differ in their mean."""
    mixing = np.random.RandomState(0).randn(num_features // 2, num_features) / np.sqrt(num_features)
    rng = np.random.RandomState(seed)
    latent = rng.randn(num_images, num_features // 2)
    return np.abs(latent @ mixing + 0.3 * rng.randn(num_images, num_features) + 0.02 * seed)


# num_images, num_reference, num_features
FRECHET_CASES = ((300, 260, 96), (60, 300, 96), (40, 50, 96), (300, 300, 32))
KERNEL_CASE = (180, 150, 48)
KID_SUBSETS, KID_SUBSET_SIZE = 7, 90
EMBEDDING_CASE = (70, 90, 40)
