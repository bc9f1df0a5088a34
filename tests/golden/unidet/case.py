"""Weights and pictures that UniDet's official code and ours are both run on.

Drawn from NumPy's RandomState, whose stream is frozen, so that they need not be stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.scorers.unidet_network import R50, RS200, Architecture, UniDet


@dataclass(frozen=True, slots=True)
class Case:
    """class_bias: mean bias of the class logits, low enough that not everything is detected."""

    sizes: Architecture
    class_bias: float


SMALL = {
    "r50": Case(
        replace(R50, stem_channels=16, block_channels=8, pyramid_channels=16, hidden_size=32), class_bias=-16
    ),
    # as far as the official code lets itself be shrunk: its ResNeSt-50, whose stem has 32 channels
    "rs200": Case(
        replace(
            RS200,
            blocks=(3, 4, 6, 3),
            stem_channels=32,
            block_channels=8,
            pyramid_channels=16,
            hidden_size=32,
        ),
        class_bias=-12,
    ),
}
FULL = {"r50": Case(R50, class_bias=-9), "rs200": Case(RS200, class_bias=-9)}

PICTURES = {  # name -> width, height
    "square": (512, 512),
    "landscape": (512, 384),
    "wide": (640, 360),
    "tall": (200, 640),
    "dot": (1, 1),
    "line": (1, 2000),
}


def state_dict(case: Case, seed: int) -> dict[str, Tensor]:
    """Random weights in the published layout under which boxes move and classes differ."""
    sizes = case.sizes
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in UniDet(sizes).state_dict().items()}
    random = np.random.RandomState(seed)
    drawn = {key: _draw(random, key, shape, case) for key, shape in sorted(shapes.items()) if shape}
    return {key: torch.from_numpy(value.astype(np.float32)) for key, value in drawn.items()}


def _draw(random: np.random.RandomState, key: str, shape: tuple[int, ...], case: Case) -> np.ndarray:
    if key.endswith("running_var"):
        # resnet's pictures are not divided by their deviation
        scale = 5e3 if key.endswith("stem.conv1.norm.running_var") else 1.0
        return scale * random.uniform(0.5, 1.5, shape)
    if key.endswith("cls_score.bias"):
        return random.normal(case.class_bias, 0.5, shape)
    if key.endswith(("running_mean", "bias")):
        return random.normal(0, 0.1, shape)
    if len(shape) == 1:  # of a norm; those at the end of a block keep the sum from growing
        return random.uniform(0.8, 1.2, shape) * (0.1 if "conv3.norm" in key else 1.0)
    gain = {
        "fpn_lateral": 0.14 if case.sizes.split else 0.2,  # to features of unit size
        "cls_score": 20.0 if case.sizes.split else 2.5,
        "bbox_pred": 8.0 if case.sizes.split else 1.0,
        "anchor_deltas": 0.5,
        "objectness_logits": 1.0,
    }
    wanted = next((value for name, value in gain.items() if name in key), 2**0.5)
    return random.normal(0, wanted / np.sqrt(np.prod(shape[1:])), shape)


def picture(name: str) -> np.ndarray:
    """(H, W, 3) uint8: soft blobs of several sizes and grain."""
    width, height = PICTURES[name]
    random = np.random.RandomState(sum(map(ord, name)))
    y, x = np.mgrid[0:height, 0:width]
    image = np.full((height, width, 3), 127.0)
    for _ in range(12):
        center_x, center_y = random.uniform(0, width), random.uniform(0, height)
        spread = random.uniform(0.05, 0.3) * max(width, height)
        near = np.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) / (2 * spread**2))
        image += near[:, :, None] * random.uniform(-160, 160, 3)
    image += random.normal(0, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def boxes(count: int, side: float, seed: int) -> np.ndarray:
    """(count, 4) float32: from a pixel to more than the picture, some over its border or flat."""
    random = np.random.RandomState(seed)
    centers, sizes = random.uniform(0, side, (count, 2)), np.exp(random.uniform(0, 6, (count, 2)))
    drawn = np.concatenate([centers - sizes / 2, centers + sizes / 2], 1).clip(-10, side + 10)
    drawn[:2] = (0, 0, 0, 0), (5, 5, 5, 9)
    return drawn.astype(np.float32)


def roi_features(seed: int) -> np.ndarray:
    """(1, 3, 24, 31) float32"""
    return np.random.RandomState(seed).normal(size=(1, 3, 24, 31)).astype(np.float32)


# name -> number of boxes, of groups, IoU threshold: the last two are over the limit where groups are shifted
SUPPRESSIONS = {
    "few": (300, 722, 0.5),
    "one group": (600, 1, 0.7),
    "classes": (1200, 40, 0.5),
    "levels": (1500, 5, 0.7),
}


def suppression(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Boxes (N, 4), scores (N,) with ties, groups (N,) and the threshold."""
    count, num_groups, threshold = SUPPRESSIONS[name]
    random = np.random.RandomState(count)
    scores = (random.uniform(0, 1, count).round(2)).astype(np.float32)
    return boxes(count, 160, count), scores, random.randint(0, num_groups, count), threshold
