"""The measures of clips, on clips made to have the fault and to lack it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gentron.data.quality import Quality, Thresholds, laplacian_variance, luma, measure
from gentron.errors import UserError

T, H, W = 12, 128, 192


def scaled(values: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def texture(seed: int = 0) -> np.ndarray:
    """(H, 2 W) luma with structure of all sizes, like a film's."""
    rng = np.random.default_rng(seed)
    total = np.zeros((H, 2 * W))
    for size in (2, 4, 8, 16, 32):
        coarse = rng.normal(size=(H // size, 2 * W // size)) * size
        total += scaled(coarse, 2 * W, H)
    total = (total - total.mean()) / total.std()
    return np.clip(total * 45 + 120, 0, 255).astype(np.float32)


def moving(seed: int = 0, step: int = 5) -> list[np.ndarray]:
    whole = texture(seed)
    return [whole[:, step * t : step * t + W].copy() for t in range(T)]


def titled(frames: list[np.ndarray]) -> list[np.ndarray]:
    """With white letters in a black outline, as subtitles are."""
    mask = Image.new("L", (W, H), 128)
    draw = ImageDraw.Draw(mask)
    for row in (90, 104):
        draw.text((30, row), "SUBTITLE of a film 1234", fill=255, stroke_width=1, stroke_fill=0)
    drawn = np.asarray(mask, np.float32)
    return [np.where(drawn != 128, drawn, frame) for frame in frames]


def test_a_good_clip_has_no_fault() -> None:
    quality = measure(moving())
    assert quality.sharpness > 20
    assert (quality.still, quality.frozen, quality.black, quality.border) == (0, 0, 0, 0)
    assert quality.overlay < 0.01


def test_blur_lowers_sharpness() -> None:
    sharp = measure(moving()).sharpness
    blurred = [scaled(scaled(frame, W // 4, H // 4), W, H) for frame in moving()]
    assert measure(blurred).sharpness < 0.2 * sharp


def test_laplacian_of_a_closed_form() -> None:
    """A parabola has a constant Laplacian, a checkerboard of +-a one of 8 a in size."""
    y, x = np.mgrid[:20, :30].astype(np.float32)
    assert laplacian_variance(x**2 + 3 * y**2) == pytest.approx(0, abs=1e-6)
    board = np.where((x + y) % 2 == 0, 1.0, -1.0)
    assert laplacian_variance(board) == pytest.approx(64)


def test_still_and_frozen_shares() -> None:
    frames = moving()
    frozen = [frames[0]] * 6 + frames[:6]
    quality = measure(frozen)
    assert quality.frozen == quality.still == pytest.approx(6 / 11)  # five pairs, and the first of the film
    rng = np.random.default_rng(0)
    grainy = [frames[0] + rng.normal(scale=0.4, size=(H, W)) for _ in range(T)]  # moves by 0.45 on average
    quality = measure(grainy)
    assert quality.still == 1 and quality.frozen == 0


def test_black_frames_are_counted() -> None:
    black = np.full((H, W), 16.0) + np.random.default_rng(0).normal(scale=2, size=(H, W))
    assert measure([black] * 3 + moving()[:9]).black == pytest.approx(3 / 12)
    night = np.full((H, W), 14.0)
    night[40:60, 40:60] = 200  # a lamp at night is no black frame
    assert measure([night] * 3).black == 0


@pytest.mark.parametrize("top,left", [(16, 0), (0, 24), (10, 12)])
def test_borders_are_measured_by_their_area(top: int, left: int) -> None:
    frames = []
    for frame in moving():
        framed = np.full((H, W), 16, np.float32)
        framed[top : H - top, left : W - left] = frame[top : H - top, left : W - left]
        frames.append(framed)
    inside = (1 - 2 * top / H) * (1 - 2 * left / W)
    assert measure(frames).border == pytest.approx(1 - inside, abs=0.02)


def test_a_flat_clip_has_no_border() -> None:
    assert measure([np.full((H, W), 40.0)] * 3).border == 0
    assert measure([np.full((H, W), 40.0 * t) for t in range(5)]).border == 0


def test_overlaid_text_is_told_from_the_picture_behind() -> None:
    clear, spoiled = (measure(frames).overlay for frames in (moving(), titled(moving())))
    assert clear < 0.01 and spoiled > 0.1
    assert measure(titled([moving()[0]] * T)).overlay == 0  # nothing moves behind: a sign in the scene


def test_measuring_does_not_depend_on_how_frames_come() -> None:
    frames = titled(moving())
    assert measure(iter(frames)) == measure(frames)
    assert measure(frames[:1]).still == 0
    with pytest.raises(ValueError, match="no frames"):
        measure([])


def test_luma_is_at_most_256_high() -> None:
    assert luma(np.zeros((512, 1024, 3), np.uint8)).shape == (256, 512)
    assert luma(np.zeros((64, 96, 3), np.uint8)).shape == (64, 96)


GOOD = Quality(sharpness=100, still=0.2, frozen=0.1, black=0, border=0.05, overlay=0.02)


@pytest.mark.parametrize(
    "thresholds,reason",
    [
        (Thresholds(), None),
        (Thresholds(min_sharpness=100, max_still=0.2), None),
        (Thresholds(min_sharpness=101), "sharpness 100 below 101"),
        (Thresholds(max_still=0.1), "still 0.2 above 0.1"),
        (Thresholds(max_border=0), "border 0.05 above 0"),
    ],
)
def test_thresholds_say_why(thresholds: Thresholds, reason: str | None) -> None:
    assert thresholds.reason(GOOD) == reason


@pytest.mark.parametrize("field,value", [("max_still", 1.5), ("min_sharpness", -1), ("max_black", np.nan)])
def test_senseless_thresholds_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{field} must be in"):
        Thresholds(**{field: value})
