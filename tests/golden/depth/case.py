"""Weights that DPT's official code and ours are both run on.

Drawn from NumPy's RandomState, whose stream is frozen, so that they need not be stored. Pictures are those of
tests/golden/unidet/case.py.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.scorers.depth import SMALL, Architecture, empty_network, published_shapes

CASES = {"small": SMALL, "full": Architecture()}
PICTURES = ("square", "wide", "tall", "dot")
STEP = 8  # of the stored pixels of a map


def state_dict(sizes: Architecture, seed: int) -> dict[str, Tensor]:
    """Random weights in the published layout; the map is nowhere 0."""
    shapes = {key: tuple(value.shape) for key, value in empty_network(sizes).state_dict().items()}
    random = np.random.RandomState(seed)
    drawn = {key: _draw(random, key, shape) for key, shape in sorted(published_shapes(shapes).items())}
    return {key: torch.from_numpy(value.astype(np.float32)) for key, value in drawn.items()}


def _draw(random: np.random.RandomState, key: str, shape: tuple[int, ...]) -> np.ndarray:
    if "pos_embed" in key or "cls_token" in key:
        return random.normal(0, 0.5, shape)
    if len(shape) == 1:
        is_scale = "norm" in key and key.endswith("weight")
        return random.uniform(0.8, 1.2, shape) if is_scale else random.normal(0, 0.1, shape)
    drawn = random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    return np.abs(drawn) if key == "scratch.output_conv.4.weight" else drawn
