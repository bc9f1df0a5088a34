"""Values of a setting, as people write them, and the cells of a sweep. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

BASE = 1.0  # lambda_M of ordinary classifier-free guidance: what every other value is compared with
PUBLISHED = (1.0, 1.3)  # the paper's best range of lambda_M
MINI_LAMBDA_M = "1.0:1.3:0.05,0,0.5,1.6,2,3"
MOST_VALUES = 100
DIGITS = 6  # of a value: 1.0:1.3:0.05 gives 1.15 and not 1.1500000000000001


@dataclass(frozen=True, order=True, slots=True)
class Cell:
    """lambda_T, the text's guidance scale, and lambda_M, the motion's."""

    guidance_scale: float
    motion_guidance_scale: float

    @property
    def label(self) -> str:
        return f"lambda_M {self.motion_guidance_scale:g}, lambda_T {self.guidance_scale:g}"


def parse_values(text: str, *, name: str) -> list[float]:
    """Numbers and ranges start:stop:step, both ends included, by commas; each value once, by size."""
    values: set[float] = set()
    for word in text.split(","):
        values.update(_range(word.strip(), name))
    if len(values) > MOST_VALUES:
        raise ValueError(f"{name} must have at most {MOST_VALUES} values, got {len(values)}")
    return sorted(values)


def _range(word: str, name: str) -> list[float]:
    try:
        numbers = [float(part) for part in word.split(":")]
    except ValueError:
        raise ValueError(f"{name} must be numbers and ranges start:stop:step, got '{word}'") from None
    if len(numbers) not in (1, 3):
        raise ValueError(f"{name} must be numbers and ranges start:stop:step, got '{word}'")
    for number in numbers[:2]:
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name} must be finite and >= 0, got {number:g}")
    if len(numbers) == 1:
        return [_rounded(numbers[0])]
    start, stop, step = numbers
    if not (math.isfinite(step) and step > 0 and stop >= start):
        raise ValueError(f"{name} must be a range with start <= stop and step > 0, got '{word}'")
    count = int((stop - start) / step + 1e-6) + 1
    if count > MOST_VALUES:
        raise ValueError(f"{name} must have at most {MOST_VALUES} values, got {count}")
    return [_rounded(start + k * step) for k in range(count)]


def _rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0  # no -0


def cells(lambda_m: Sequence[float], lambda_t: Sequence[float]) -> list[Cell]:
    """Every pair; lambda_M = 1 is added where it is missing, and comes first: all are compared with it."""
    motions = sorted({BASE, *lambda_m}, key=lambda value: (value != BASE, value))
    return [Cell(text, motion) for text, motion in product(lambda_t, motions)]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of points that no other point beats: none is at least as high in both and higher in one."""

    def is_beaten(x: float, y: float) -> bool:
        return any(a >= x and b >= y and (a > x or b > y) for a, b in points)

    return [k for k, (x, y) in enumerate(points) if not is_beaten(x, y)]
