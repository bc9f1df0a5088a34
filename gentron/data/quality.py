"""What the paper blames for clips that spoil a model: blur, stillness, black frames, borders, overlaid text.

Every measure is "ours": the paper names the faults and gives no definition. Luma is 0 to 255.
"""

# H W sides of a frame in pixels, T sampled frames of a clip

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image

from gentron.errors import UserError

SAMPLES_PER_SECOND = 4
"""At which measures look at a clip: the rate that the model is trained on."""
SHORT_SIDE = 256
"""Of the luma that is measured, so that thresholds hold for sources of any size."""

FROZEN = 0.1
"""Mean absolute difference of neighbours below which they are one frame shown twice, coded anew."""
STILL = 1.0
"""The same below which hardly anything moves: grain of a tripod shot is above, a photograph on show below."""
BLACK_MEAN, BLACK_DEVIATION = 20.0, 8.0
"""A frame darker and flatter than this; 16 is the black of video."""
BORDER_DEVIATION = 3.0
"""Within a row or column of a border, and of it over time."""
EDGE = 48.0
"""Luma step to a neighbour that is an edge of drawn text; over time it must stay above."""
BLOCK = 16
BLOCK_EDGES = 0.06
"""Share of a block's pixels on lasting edges from which it may hold text."""
BLOCK_MOTION = 6.0
"""Deviation over time of the pixels off the edges: the picture behind must move."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Measures of one clip."""

    sharpness: float
    """Median over frames of the variance of the luma's Laplacian: to be compared within a set."""
    still: float
    """Share of neighbouring frames, 1/4 s apart, between which hardly anything moves; with the frozen."""
    frozen: float
    """Share of neighbouring frames that are equal but for coding noise."""
    black: float
    """Share of frames that are black."""
    border: float
    """Share of the area in bars at the edges, flat and the same in all frames."""
    overlay: float
    """Share of 16 px blocks with lasting edges over a moving picture: titles, subtitles, watermarks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Clips beyond any of these are dropped; None: never for this reason."""

    min_sharpness: float | None = None
    max_still: float | None = None
    max_frozen: float | None = None
    max_black: float | None = None
    max_border: float | None = None
    max_overlay: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            top = 1.0 if field.name.startswith("max_") else float("inf")
            if value is not None and not 0 <= value <= top:
                raise UserError(f"{field.name} must be in [0, {top:g}], got {value}")

    def reason(self, quality: Quality) -> str | None:
        """Why a clip is dropped, or None: the first threshold that it fails, with the value."""
        for field in fields(self):
            limit, (side, measure) = getattr(self, field.name), field.name.split("_")
            value = getattr(quality, measure)
            if limit is not None and (value < limit if side == "min" else value > limit):
                return f"{measure} {value:.3g} {'below' if side == 'min' else 'above'} {limit:g}"
        return None


def luma(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> float32 luma, its short side at most SHORT_SIDE."""
    image = Image.fromarray(pixels).convert("L")
    scale = SHORT_SIDE / min(image.size)
    if scale < 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image, np.float32)


def measure(frames: Iterable[np.ndarray]) -> Quality:
    """frames: lumas (H, W) of one clip at SAMPLES_PER_SECOND, of one size.

    Frames go by one at a time: a long clip costs no memory.
    """
    sharpness: list[float] = []
    differences: list[float] = []
    num_black, num_frames = 0, 0
    previous: np.ndarray | None = None
    over_time: _OverTime | None = None
    for frame in frames:
        num_frames += 1
        over_time = over_time or _OverTime(frame.shape)
        over_time.add(frame)
        sharpness.append(laplacian_variance(frame))
        num_black += bool(frame.mean() < BLACK_MEAN and frame.std() < BLACK_DEVIATION)
        if previous is not None:
            differences.append(float(np.abs(frame - previous).mean()))
        previous = frame
    if over_time is None:
        raise ValueError("no frames to measure")
    steps = np.array(differences or [np.inf])  # one frame alone is neither still nor frozen
    return Quality(
        sharpness=float(np.median(sharpness)),
        still=float((steps < STILL).mean()),
        frozen=float((steps < FROZEN).mean()),
        black=num_black / num_frames,
        border=over_time.border(),
        overlay=over_time.overlay(),
    )


def laplacian_variance(frame: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian inside the frame (Pech-Pacheco et al. 2000)."""
    inner = frame[1:-1, 1:-1]
    laplacian = frame[:-2, 1:-1] + frame[2:, 1:-1] + frame[1:-1, :-2] + frame[1:-1, 2:] - 4 * inner
    return float(laplacian.var()) if laplacian.size else 0.0


class _OverTime:
    """What stays and what changes at each pixel, summed up frame by frame."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._count = 0
        self._sum, self._squares = np.zeros(shape), np.zeros(shape)
        self._across = np.full((shape[0], shape[1] - 1), np.inf, np.float32)
        self._down = np.full((shape[0] - 1, shape[1]), np.inf, np.float32)
        self._row_spread, self._column_spread = np.zeros(shape[0]), np.zeros(shape[1])

    def add(self, frame: np.ndarray) -> None:
        self._count += 1
        self._sum += frame
        self._squares += np.square(frame, dtype=np.float64)
        # the least step an edge ever has; its sign may not turn, so |step| of each frame will do
        np.minimum(self._across, np.abs(np.diff(frame, axis=1)), out=self._across)
        np.minimum(self._down, np.abs(np.diff(frame, axis=0)), out=self._down)
        np.maximum(self._row_spread, frame.std(axis=1), out=self._row_spread)
        np.maximum(self._column_spread, frame.std(axis=0), out=self._column_spread)

    def _deviation(self) -> np.ndarray:
        mean = self._sum / self._count
        return np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))

    def border(self) -> float:
        """1 - the area inside the bars; a frame that is flat as a whole has no border."""
        deviation = self._deviation()
        rows = (self._row_spread < BORDER_DEVIATION) & (deviation.mean(1) < BORDER_DEVIATION)
        columns = (self._column_spread < BORDER_DEVIATION) & (deviation.mean(0) < BORDER_DEVIATION)
        if rows.all() or columns.all():
            return 0.0
        inside = 1.0
        for flat in (rows, columns):
            bars = int(np.argmin(flat)) + int(np.argmin(flat[::-1]))
            inside *= 1 - bars / len(flat)
        return 1 - inside

    def overlay(self) -> float:
        edges = np.zeros(self._sum.shape, bool)
        edges[:, 1:] |= self._across > EDGE
        edges[:, :-1] |= self._across > EDGE
        edges[1:] |= self._down > EDGE
        edges[:-1] |= self._down > EDGE
        shares, moving = _blocks(edges), _blocks(np.where(edges, 0.0, self._deviation()))
        moving = moving / np.maximum(1 - shares, 1e-6)  # over the pixels off the edges alone
        found = (shares > BLOCK_EDGES) & (shares < 1) & (moving > BLOCK_MOTION)
        return float(found.mean()) if found.size else 0.0


def _blocks(values: np.ndarray) -> np.ndarray:
    """Means over blocks; a rest at the right and at the bottom is left out."""
    height, width = (side // BLOCK * BLOCK for side in values.shape)
    cut = values[:height, :width].astype(np.float64)
    return cut.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3))
