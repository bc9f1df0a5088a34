"""Motion of a clip by an optical flow: how much there is, whether frames agree along it, and the flicker of
what stands still. The flow is a part of each name: numbers of two flows do not compare.

F(a, b) is the flow of frame a to frame b, |F| its length in pixels of the clip's own frames.

flow_magnitude_*: mean |F| over all pixels of a pair, averaged over neighbouring pairs. Parts: `top 5 %`, the
mean of the largest twentieth, and `dynamic`, 1 if VBench's dynamic degree calls the clip moving: the top 5 %
exceed 6 px x (shorter side / 256) in at least round(4 F / 16) pairs. (VBench first thins a clip to 8 frames
a second. Here a clip is taken as it is.)

warping_error_*: Lai et al. 2018 (1808.00449): b warped back to a by F(a, b), bilinear; mean over visible
pixels and channels of the squared difference, RGB in 0 to 1; mean over pairs. A pixel is visible if its
target lies inside the frame and the flows there and back agree (Sundaram et al. 2010, as in Ruder et al.
2016): |F(a,b) + B|² <= 0.01 (|F(a,b)|² + |B|²) + 0.5, B the flow back, looked up at the target. Lai's further
mask of motion boundaries is left out. Where nothing is visible the pair counts with all pixels inside the
frame, or all. Part: `visible`, their share.

static_flicker_*: ours: mean absolute difference, of 1, over the pixels with |F| < 0.5 in both directions, all
pairs together. A clip of which no pixel stands still scores 0, with the part `static` (their share) at 0. Its
part `temporal_flickering of static clips` is VBench's number of clips that pass VBench's static filter
(static_filter.py at 45e79ec): with r the mean |F| of the fastest 2 %, t = 3 px x (shorter side / 256) and
n = round(2 F / 16), not more than n neighbouring pairs have r > t, and r <= 2 n t from the first frame to the
last and back. `passes static filter` is 1 or 0. (A clip of 4 frames or fewer has n = 0 there, and passes only
if first and last frame agree exactly.)
"""

# F frames of a clip, H W size of a frame, P pairs of neighbouring frames

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.video import ClipScorer, OfLastClip, check_frames
from bench.scorers.video.neighbours import temporal_flickering
from bench.scorers.video.optical_flow import OpticalFlow, build_flow

VERSION = 1
STATIC_BELOW = 0.5  # pixels: half a pixel is where rounding would put it elsewhere


@dataclass(frozen=True, eq=False)
class Flows:
    """forward, backward: (P, H, W, 2) of neighbours.   around: (2, H, W, 2), first to last and back."""

    forward: np.ndarray
    backward: np.ndarray
    around: np.ndarray


def flows_of(frames: np.ndarray, flow: OpticalFlow) -> Flows:
    """frames: (F, H, W, 3) uint8, F >= 2."""
    forward = [flow.flow(a, b) for a, b in zip(frames, frames[1:], strict=False)]
    backward = [flow.flow(b, a) for a, b in zip(frames, frames[1:], strict=False)]
    around = [flow.flow(frames[0], frames[-1]), flow.flow(frames[-1], frames[0])]
    return Flows(np.stack(forward), np.stack(backward), np.stack(around))


def lengths(flow: np.ndarray) -> np.ndarray:
    """(..., 2) -> (...) float64, in pixels."""
    return np.sqrt(np.square(flow.astype(np.float64)).sum(axis=-1))


def mean_of_fastest(flow: np.ndarray, share: float) -> float:
    """Mean length of this share of the pixels, a whole number of them, rounded down; one at least."""
    sizes = np.sort(lengths(flow), axis=None)[::-1]
    return float(sizes[: max(int(sizes.size * share), 1)].mean())


# ---- VBench's two decisions ------------------------------------------------------------------------------


def is_dynamic(flows: Flows) -> bool:
    """Whether VBench's dynamic degree calls a clip moving."""
    pairs, height, width = flows.forward.shape[:3]
    threshold = 6.0 * (min(height, width) / 256)
    fast = sum(mean_of_fastest(flow, 0.05) > threshold for flow in flows.forward)
    return fast >= round(4 * ((pairs + 1) / 16))


def passes_static_filter(flows: Flows) -> bool:
    """Whether VBench takes the temporal flickering of a clip."""
    pairs, height, width = flows.forward.shape[:3]
    threshold = 3.0 * (min(height, width) / 256)
    allowed = round(2 * ((pairs + 1) / 16))
    fast = sum(mean_of_fastest(flow, 0.02) > threshold for flow in flows.forward)
    far = max(mean_of_fastest(flow, 0.02) for flow in flows.around)
    return fast <= allowed and far <= threshold * allowed * 2


# ---- warping ---------------------------------------------------------------------------------------------


def look_up(image: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """image (H, W, C) at the places that flow (H, W, 2) points to from each pixel, bilinear, float64.

    Returns it with (H, W) bool: whether the place lies inside the image, its border pixels' centres included.
    """
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + flow[..., 0].astype(np.float64), rows + flow[..., 1].astype(np.float64)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, low = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    wide = image.astype(np.float64)
    upper = wide[top, left] * (1 - across) + wide[top, right] * across
    lower = wide[low, left] * (1 - across) + wide[low, right] * across
    return upper * (1 - down) + lower * down, inside


def visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose target lies inside the frame and is not hidden there."""
    back, inside = look_up(backward, forward)
    there = forward.astype(np.float64)
    apart = np.square(there + back).sum(axis=-1)
    sizes = np.square(there).sum(axis=-1) + np.square(back).sum(axis=-1)
    return inside & (apart <= 0.01 * sizes + 0.5)


def warping_error(
    a: np.ndarray, b: np.ndarray, forward: np.ndarray, backward: np.ndarray
) -> tuple[float, float]:
    """The error of a pair and the share of pixels that are visible.   a, b: (H, W, 3) uint8."""
    warped, inside = look_up(b, forward)
    seen = visible(forward, backward)
    counted = next((mask for mask in (seen, inside) if mask.any()), np.ones_like(seen))
    squares = np.square((warped - a) / 255.0)
    return float(squares[counted].mean()), float(seen.mean())


# ---- what stands still -----------------------------------------------------------------------------------


def static_flicker(frames: np.ndarray, flows: Flows) -> tuple[float, float]:
    """Mean absolute difference over static pixels of all pairs, of 1, and the share of pixels that are."""
    still = (lengths(flows.forward) < STATIC_BELOW) & (lengths(flows.backward) < STATIC_BELOW)  # (P, H, W)
    if not still.any():
        return 0.0, 0.0
    steps = np.abs(frames[1:].astype(np.int16) - frames[:-1])[still]
    return int(steps.sum(dtype=np.int64)) / steps.size / 255, float(still.mean())


# ---- the scorers -----------------------------------------------------------------------------------------


def _score_magnitude(frames: np.ndarray, flows: Flows) -> Scored:
    value = math.fsum(float(lengths(flow).mean()) for flow in flows.forward) / len(flows.forward)
    fastest = math.fsum(mean_of_fastest(flow, 0.05) for flow in flows.forward) / len(flows.forward)
    return Scored(
        score=value,
        reason=f"{value:.2f} px a frame on average, {fastest:.2f} px among the fastest 5 %",
        parts={"top 5 %": fastest, "dynamic": float(is_dynamic(flows))},
    )


def _score_warping(frames: np.ndarray, flows: Flows) -> Scored:
    found = [
        warping_error(a, b, forward, backward)
        for a, b, forward, backward in zip(frames, frames[1:], flows.forward, flows.backward, strict=False)
    ]
    value = math.fsum(error for error, _ in found) / len(found)
    share = math.fsum(seen for _, seen in found) / len(found)
    return Scored(
        score=value,
        reason=f"warping error {value:.2e} over {share:.0%} of the pixels",
        parts={"visible": share},
    )


def _score_static(frames: np.ndarray, flows: Flows) -> Scored:
    value, share = static_flicker(frames, flows)
    passes = passes_static_filter(flows)
    parts = {"static": share, "passes static filter": float(passes)}
    if passes:
        parts["temporal_flickering of static clips"] = temporal_flickering(frames)
    reason = f"static pixels ({share:.0%}) change by {value:.4f}" if share else "no pixel stands still"
    return Scored(score=value, reason=reason, parts=parts)


_SCORERS: dict[str, Callable[[np.ndarray, Flows], Scored]] = {
    "flow_magnitude": _score_magnitude,
    "warping_error": _score_warping,
    "static_flicker": _score_static,
}
_SETTINGS: dict[str, dict[str, object]] = {
    "flow_magnitude": {"dynamic": "VBench: top 5 % over 6 px x side / 256 in round(4 F / 16) pairs"},
    "warping_error": {"visible": "|F + B|² <= 0.01 (|F|² + |B|²) + 0.5", "difference": "squared, RGB 0 to 1"},
    "static_flicker": {"static": f"|F| < {STATIC_BELOW} px both ways", "filter": "VBench's static_filter"},
}


class FlowScorer:
    """A number over a clip's flows, which scorers of the same flow share."""

    needs_text = False

    def __init__(
        self,
        record: ScorerRecord,
        flows: OfLastClip[Flows],
        of_flows: Callable[[np.ndarray, Flows], Scored],
    ) -> None:
        self.record, self._flows, self._of_flows = record, flows, of_flows

    def score(self, frames: np.ndarray, digest: str, text: str | None) -> Scored:
        check_frames(frames)
        return self._of_flows(frames, self._flows(frames, digest))


def build(names: Sequence[str], context: Context) -> dict[str, ClipScorer]:
    """The scorers of these names, all of one flow; MissingWeights if it is not here."""
    (flow_name,) = {name.rpartition("_")[2] for name in names}
    flow = build_flow(flow_name, context)
    flows = OfLastClip(lambda frames: flows_of(frames, flow))
    made: dict[str, ClipScorer] = {}
    for name in names:
        kind = name.rpartition("_")[0]
        record = ScorerRecord(
            name=name,
            version=VERSION,
            weights=flow.weights,
            random_weights=flow.random_weights,
            settings={**flow.settings, **_SETTINGS[kind]},
        )
        made[name] = FlowScorer(record, flows, _SCORERS[kind])
    return made
