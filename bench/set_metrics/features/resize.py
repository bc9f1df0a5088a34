"""From an image of any size to a network's input: every convention, each exactly as its tool does it.

The tools differ by up to 28 % of an FID on the same images: the resize is never left to a library's default.
"""

# H W size of the image, S side of the network's input

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

INCEPTION_SIZE = 299


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32, 0 to 255."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float()


def pil_bicubic_float(image: np.ndarray, size: int) -> np.ndarray:
    """PIL's bicubic, antialiased, on each channel in float32, clipped to 0..255: clean-fid's.   (S, S, 3)"""
    channels = [
        np.asarray(
            Image.fromarray(image[:, :, c].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        )
        for c in range(3)
    ]
    return np.stack(channels, axis=2).clip(0, 255)


def tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """TensorFlow 1's resize_bilinear: (B, 3, H, W) -> (B, 3, S, S).

    Output pixel i looks at the place i H / S, without the half-pixel shift, and at two pixels at most,
    whatever the scale. The last row and column repeat.
    """
    rows = _tf1_places(images.shape[2], size)
    columns = _tf1_places(images.shape[3], size)
    upper, lower = images[:, :, rows.low], images[:, :, rows.high]
    upper = upper[..., columns.low] + (upper[..., columns.high] - upper[..., columns.low]) * columns.share
    lower = lower[..., columns.low] + (lower[..., columns.high] - lower[..., columns.low]) * columns.share
    return upper + (lower - upper) * rows.share[:, None]


class _Places(NamedTuple):
    """For each output pixel along an axis: its two neighbours and the share of the second, (S,) each."""

    low: Tensor
    high: Tensor
    share: Tensor


def _tf1_places(length: int, size: int) -> _Places:
    """In float32, as there: in float64 some places would fall on the other side of a pixel."""
    places = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size, dtype=torch.float32)
    low = places.long()
    return _Places(low, (low + 1).clamp_max(length - 1), places - low.float())


def clean(image: np.ndarray) -> Tensor:
    """clean-fid: PIL bicubic on floats, then (x - 128) / 128."""
    return (to_tensor(pil_bicubic_float(image, INCEPTION_SIZE)) - 128) / 128


def tf(image: np.ndarray) -> Tensor:
    """The original and torch-fidelity: TensorFlow 1 bilinear, then (x - 128) / 128."""
    return (tf1_bilinear(to_tensor(image), INCEPTION_SIZE) - 128) / 128


def pytorch_fid(image: np.ndarray) -> Tensor:
    """pytorch-fid: torch's bilinear without antialias on 0..1, then 2 x - 1, which is another scale."""
    scaled = to_tensor(image) / 255
    size = (INCEPTION_SIZE, INCEPTION_SIZE)
    return 2 * F.interpolate(scaled, size=size, mode="bilinear", align_corners=False) - 1


def torchmetrics(image: np.ndarray) -> Tensor:
    """torchmetrics from 1.8: torch's bilinear with antialias, then (x - 128) / 128."""
    size = (INCEPTION_SIZE, INCEPTION_SIZE)
    resized = F.interpolate(to_tensor(image), size=size, mode="bilinear", align_corners=False, antialias=True)
    return (resized - 128) / 128


def pil_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """PIL's bicubic, antialiased, on uint8, to a square whatever the aspect: (H, W, 3) -> (S, S, 3) uint8."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def centre_square(image: np.ndarray) -> np.ndarray:
    """The largest square in the middle, a pixel nearer to the top left where it cannot be exact."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
