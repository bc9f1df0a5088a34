"""Pictures, questions and weights that the original BLIP-VQA and ours are both asked about.

All are drawn from NumPy's RandomState, whose stream is frozen, so that only the answers are stored.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from PIL import Image

SEED = 5
IMAGE_SIZE = 480

QUESTIONS = (
    "a green bench?",
    "a blue bowl?",
    "The Fluffy Dog?",
    "the left?",
    "it?",
    "a wooden, rectangular table - with the cat's book?",
    "a clock that reads 11:44. (yes!)?",
    "an oval coffee table and an oval rug and the red vase of a very very very old silver metallic chair?",
    "a café naïve Ünïcode 日本 bench\u00a0bag?",
    " two  spaces?",
    "leather leather leather leather leather leather leather leather?",
    "!!!",
    "",
    " ".join(["red"] * 60) + "?",
)
# of the full-size network, which takes seconds an answer
FULL_PICTURES = ("blobs_512x512", "noise_640x360", "pixel_1x1")
FULL_QUESTIONS = QUESTIONS[:3] + QUESTIONS[5:8]


def pictures() -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 of several forms: soft blobs, noise, a grey ramp, one pixel, one colour."""
    rng = np.random.RandomState(SEED)

    def blobs(height: int, width: int) -> np.ndarray:
        coarse = rng.randint(0, 256, (5, 7, 3)).astype(np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))

    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[:, None], 60, 1)
    return {
        "blobs_512x512": blobs(512, 512),
        "blobs_97x333": blobs(97, 333),
        "blobs_480x480": blobs(480, 480),
        "noise_640x360": rng.randint(0, 256, (640, 360, 3)).astype(np.uint8),
        "grey_90x60": np.repeat(ramp[:, :, None], 3, 2),
        "pixel_1x1": np.array([[[200, 30, 90]]], np.uint8),
        "red_32x32": np.full((32, 32, 3), (255, 0, 0), np.uint8),
    }


def state_digest(state: dict[str, torch.Tensor]) -> str:
    """To tell weights drawn otherwise from a network that answers otherwise."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
