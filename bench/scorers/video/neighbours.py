"""How alike neighbouring frames are, without a network: VBench's temporal flickering, SSIM and PSNR.

Temporal flickering is VBench's (2311.17982, vbench/temporal_flickering.py at 45e79ec): the mean absolute
difference of the pixels of neighbouring frames, over all pixels and channels, averaged over the pairs, as
(255 - mean) / 255. VBench takes it of clips that are asked to stand still and that pass its static filter;
of a clip with motion it says how little moves. The filter, and the flicker of those regions that do stand
still, are in flow.py, since both need an optical flow.

SSIM (Wang et al. 2004; a Gaussian window of 11 and sigma 1.5, borders left out) and PSNR are torchmetrics',
of RGB in 0 to 255. Equal frames have an infinite PSNR, which no mean survives: a pair has 100 dB at most.
"""

# F frames of a clip, H W size of a frame

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.video import ClipScorer, check_frames
from gentron.errors import UserError

VERSION = 1
LEVELS = 255.0
MOST_DECIBELS = 100.0
SSIM_WINDOW = 11  # pixels

OfFrames = Callable[[np.ndarray], float]


def mean_absolute_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of two (H, W, 3) uint8 frames, in grey levels, 0 to 255; exact."""
    return int(np.abs(a.astype(np.int16) - b).sum(dtype=np.int64)) / a.size


def temporal_flickering(frames: np.ndarray) -> float:
    """1 for a still clip, 0 for one that jumps between black and white."""
    pairs = [mean_absolute_difference(a, b) for a, b in zip(frames, frames[1:], strict=False)]
    return (LEVELS - math.fsum(pairs) / len(pairs)) / LEVELS


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, at most 100, of two (H, W, 3) uint8 frames."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    if np.array_equal(a, b):
        return MOST_DECIBELS
    found = peak_signal_noise_ratio(_as_images(a), _as_images(b), data_range=LEVELS)
    return min(float(found), MOST_DECIBELS)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Of two (H, W, 3) uint8 frames; UserError for frames smaller than its window."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(a.shape[:2]) < SSIM_WINDOW:
        raise UserError(
            f"SSIM needs frames of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got"
            f" {a.shape[1]} x {a.shape[0]}"
        )
    found = structural_similarity_index_measure(_as_images(a), _as_images(b), data_range=LEVELS)
    assert not isinstance(found, tuple)
    return float(found)


def _as_images(frame: np.ndarray):  # -> (1, 3, H, W) float64: sums of small differences keep their digits
    import torch

    return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None].double()


def mean_over_pairs(of_pair: Callable[[np.ndarray, np.ndarray], float]) -> OfFrames:
    """The mean over neighbouring frames of a number a pair."""

    def of_frames(frames: np.ndarray) -> float:
        pairs = [of_pair(a, b) for a, b in zip(frames, frames[1:], strict=False)]
        return math.fsum(pairs) / len(pairs)

    return of_frames


class NeighbourScorer:
    """A number of neighbouring frames' pixels.

    say: a template with {score}, for the reason.
    """

    needs_text = False

    def __init__(self, record: ScorerRecord, of_frames: OfFrames, say: str) -> None:
        self.record, self._of_frames, self._say = record, of_frames, say

    def score(self, frames: np.ndarray, digest: str, text: str | None) -> Scored:
        check_frames(frames)
        value = self._of_frames(frames)
        return Scored(score=value, reason=f"{self._say.format(score=value)} over {len(frames) - 1} pairs")


_TORCHMETRICS = {"channels": "RGB, 0 to 255, float64", "pairs": "neighbouring frames, mean"}
# name -> its number, the settings that a result keeps, and the words of a reason
_SCORERS: dict[str, tuple[OfFrames, dict[str, str], str]] = {
    "temporal_flickering": (
        temporal_flickering,
        {"definition": "(255 - mean |a - b|) / 255", "region": "all pixels", "pairs": "neighbouring frames"},
        "temporal flickering {score:.4f}",
    ),
    "neighbour_ssim": (
        mean_over_pairs(ssim),
        {**_TORCHMETRICS, "window": "Gaussian, 11, sigma 1.5"},
        "SSIM {score:.4f}",
    ),
    "neighbour_psnr": (
        mean_over_pairs(psnr),
        {**_TORCHMETRICS, "equal frames": "100 dB"},
        "PSNR {score:.2f} dB",
    ),
}


def build(names: Sequence[str], context: Context) -> dict[str, ClipScorer]:
    """The scorers of these names."""
    if any(name.startswith("neighbour_") for name in names):
        from gentron.torchvision_ops import prepare_torchvision

        prepare_torchvision()  # torchmetrics imports torchvision
    return {
        name: NeighbourScorer(ScorerRecord(name=name, version=VERSION, settings={**settings}), number, say)
        for name in names
        for number, settings, say in (_SCORERS[name],)
    }
