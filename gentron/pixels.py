"""Pictures as files hold them (uint8, channels last) <-> as models see them ([-1, 1], channels first)."""

# H, W: sides of a picture in pixels; leading dimensions are free

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_unit_range(pictures: np.ndarray) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float32 in [-1, 1]; stays channels-last in memory."""
    return torch.from_numpy(pictures).movedim(-1, -3).float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """(..., 3, H, W) in [-1, 1], clamped -> (..., H, W, 3) uint8."""
    levels = (images.float().clamp(-1, 1) + 1) * 127.5
    array = levels.round().to(torch.uint8).movedim(-3, -1).cpu().numpy()
    return np.ascontiguousarray(array)
