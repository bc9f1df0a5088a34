"""Two asked objects, what was detected of them, and what they give: shared by the 2-D and the 3-D score.

[Q] marks a quirk of the official code that equal numbers need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.scorers.detection import Detections
    from bench.scorers.phrases import Token

Box = Sequence[float]  # x1, y1, x2, y2 in pixels of the detector's image, y down

PERSON = "person"
PERSONS = frozenset({"girl", "boy", "man", "woman"})  # the only synonyms; no plurals either


def as_label(noun: str | None) -> str | None:
    """The noun as the detector's labels call it."""
    return PERSON if noun in PERSONS else noun


def first_and_last_noun(tokens: Sequence[Token]) -> tuple[str | None, str | None]:
    """[Q] NOUN only, a proper noun does not count; the same word twice where there is one.

    (None, None) where the official code stops with an IndexError.
    """
    nouns = [token.text for token in tokens if token.pos == "NOUN"]
    return (nouns[0], nouns[-1]) if nouns else (None, None)


def first_named(text: str, relations: Sequence[str]) -> str | None:
    """The first of `relations`, in their order, that is a substring of the text."""
    return next((relation for relation in relations if relation in text), None)


def center_offset(a: Box, b: Box) -> tuple[float, float]:
    """From the centre of a to that of b."""
    return (b[0] + b[2]) / 2 - (a[0] + a[2]) / 2, (b[1] + b[3]) / 2 - (a[1] + a[3]) / 2


def iou(a: Box, b: Box) -> float:
    """Intersection over union without the +1 pixel; 0 for two boxes without area, where the official code
    divides by zero."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Indices of the detections taken for the two objects, None where there is none, and how well the asked
    relation holds in [0, 1]: None unless both are found."""

    first: int | None
    second: int | None
    position: float | None

    def score(self, confidences: Sequence[float]) -> float:
        """A quarter of each confidence and half of the position, in the official order of additions."""
        if self.first is not None and self.second is not None:
            score = 0.25 * confidences[self.first] + 0.25 * confidences[self.second]
            return score + (self.position or 0) / 2
        found = self.second if self.first is None else self.first
        return 0.0 if found is None else 0.25 * confidences[found]


def short(value: float) -> str:
    """0.9137 -> .91, 1.0 -> 1.00: numbers in a one-line reason."""
    return f"{value:.2f}".removeprefix("0")


def noted(found: Detections) -> str:
    """The detector's own note, where it did not run as asked."""
    return f"; {found.note}" if found.note else ""


def pair_reason(
    asked: tuple[str | None, str | None], relation: str | None, pair: Pair, confidences: Sequence[float]
) -> str:
    """`chair .91 on the left of dog .88: position 1.00`, or which object is missing."""
    if asked[0] is None or asked[1] is None:
        return "the prompt does not name two objects"
    said = [
        f"no {name}" if index is None else f"{name} {short(confidences[index])}"
        for name, index in zip(asked, (pair.first, pair.second), strict=True)
    ]
    if pair.position is None:
        return ", ".join(said)
    return f"{said[0]} {relation or 'with no relation to'} {said[1]}: position {short(pair.position)}"


def pair_parts(pair: Pair) -> dict[str, float]:
    """objects: share of the two that are found.   relation: the position score, 0 unless both are found."""
    found = (pair.first is not None) + (pair.second is not None)
    return {"objects": found / 2, "relation": float(pair.position or 0)}


def pair_evidence(
    asked: tuple[str | None, str | None],
    relation: str | None,
    pair: Pair,
    labels: Sequence[str],
    confidences: Sequence[float],
    boxes: Sequence[Box],
) -> dict[str, Any]:
    """The objects asked, the detection taken for each and the relation, as JSON."""
    used = [
        None
        if index is None
        else {"label": labels[index], "score": confidences[index], "box": [float(x) for x in boxes[index]]}
        for index in (pair.first, pair.second)
    ]
    return {
        "asked": list(asked),
        "relation": relation,
        "position": pair.position,
        "used": used,
        "num_detections": len(labels),
    }
