"""Cases on which an independent run of the official scripts and this bench differed, in tests/data/cases.

Each is [official value, ours at that time, the case]; the official value is the one to have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.scorers.detections import Found

CASES = Path(__file__).parents[2] / "data" / "cases"


@dataclass(frozen=True, slots=True)
class OfficialCase:
    """size: width and height of the detector's picture."""

    id: int
    prompt: str
    found: Found
    size: tuple[int, int]
    official: float


def official_cases(name: str) -> list[OfficialCase]:
    """name: numeracy or spatial_3d."""
    rows = json.loads((CASES / f"{name}_official_then_ours.json").read_text("utf-8"))
    return [_case(official, case) for official, _, case in rows]


def _case(official: float, case: dict) -> OfficialCase:
    height, width = case["hw"]
    # the detector's confidences are in the precision that it ran in
    scores = np.array(case["scores"], case["dtype"]).astype(float).tolist()
    boxes = [tuple(box) for box in case["boxes"]]
    return OfficialCase(
        id=case["id"],
        prompt=case["prompt"],
        found=list(zip(case["labels"], scores, boxes, strict=True)),
        size=(width, height),
        official=official,
    )
