"""What the original I3D and ours are both given: weights and clips from frozen random streams."""

# F frames of a clip

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.set_metrics.features.i3d import IMAGE_SIZE, random_state_dict

SEED = 3
FRAMES = (16, 17)  # an odd number of frames is padded otherwise


def state_dict() -> dict[str, Tensor]:
    """The network at its full size."""
    return random_state_dict(divisor=1, seed=SEED)


def clip(num_frames: int) -> Tensor:
    """(1, 3, F, 224, 224), -1 to 1: noise that drifts over a gradient."""
    rng = np.random.RandomState(num_frames)
    noise = rng.uniform(-1, 1, (3, IMAGE_SIZE, IMAGE_SIZE + num_frames)).astype(np.float32)
    frames = np.stack([noise[:, :, k : k + IMAGE_SIZE] for k in range(num_frames)], axis=1)
    ramp = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    return torch.from_numpy(0.5 * frames + 0.5 * ramp)[None]
