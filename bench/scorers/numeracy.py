"""T2I-CompBench++'s numeracy score from UniDet's detections: `unidet_numeracy`.

Each of the n objects that a prompt counts weighs 1/n: half of that if the object is detected at all, half if
the number of its boxes is exactly the asked one. Facts from UniDet_eval/numeracy_eval.py of
Karine-Huang/T2I-CompBench at 1b70949; [Q] marks a quirk of it that equal numbers need.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.scorers import Context, Scored, ScorerRecord
from bench.scorers.phrases.tokens import tokenize
from gentron.atomic import atomic_file
from gentron.config import from_dict
from gentron.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from bench.prompts import Prompt
    from bench.scorers.detection import Detector

VERSION = 1
OBJECTS_ID = "compbench-objects"

NUMBERS = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
}
ARTICLES = ("a", "an")
ONE = (*ARTICLES, "one")
ALIASES = {
    "boy": "person",
    "girl": "person",
    "man": "person",
    "woman": "person",
    "ship": "boat",
    "telivision": "tv",  # [Q] misspelt, so "television" stays and finds no box
    "goldfish": "fish",
    "painting": "picture",
}
SAME_BOX = 0.9  # share of the union or of either box from which two boxes of a label are one object

Box = Sequence[float]


# ---- what a prompt asks for ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectNames:
    """Singulars and plurals of new_objects.txt, row by row; rows repeat, and the first one counts."""

    singulars: tuple[str, ...]
    plurals: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> ObjectNames:
        """Rows `singular - plural`; UserError for another form."""
        try:
            rows = [line.split(" - ") for line in path.read_text("utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a list of objects: {error}") from error
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise UserError(
                    f"{path}, line {number}: expected 'singular - plural', got '{' - '.join(row)}'"
                )
        singulars, plurals = (tuple(row[i].strip().lower() for row in rows) for i in (0, 1))
        return cls(singulars, plurals)


@dataclass(frozen=True, slots=True)
class Asked:
    """count: None where no number is left for the object; no number of boxes is then the exact one."""

    count: int | None
    name: str


def asked_objects(text: str, names: ObjectNames) -> list[Asked]:
    """Each number word followed by a known object; case counts. Words between the two hide the object [Q].

    [Q] "a" and "an" before a plural give an object but no number: the numbers after it move forward, so "an
    apples and two dogs" asks for two apples. The official code stops if an object without a number is found.

    It also stops at three things that its lists do not hold: a number at the end, a singular after a larger
    number ("two cow"), no object at all. Here the first two are passed over. It also looks for names of two
    words, of which new_objects.txt has none.
    """
    words = tokenize(text)
    found: list[str] = []
    counts: list[int] = []
    for number, word in zip(words, words[1:], strict=False):
        if number not in NUMBERS:
            continue
        if word in names.singulars and number in ONE:
            found.append(word)
            counts.append(1)
        elif word in names.plurals:
            found.append(names.singulars[names.plurals.index(word)])
            counts += [] if number in ARTICLES else [NUMBERS[number]]
    return [Asked(count, name) for name, count in zip_longest(found, counts)]


# ---- what was detected -----------------------------------------------------------------------------------


def is_same_box(a: Box, b: Box) -> bool:
    """Whether two boxes, inclusive of their last pixel (+1), cover each other by nine tenths."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    shared = width * height
    area_a, area_b = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return any(shared / whole > SAME_BOX for whole in (area_a + area_b - shared, area_a, area_b))


def distinct(labels: Sequence[str], boxes: Sequence[Box]) -> list[int]:
    """Indices of detections that are no second box of a kept one with the same label, in score order."""
    kept: list[int] = []
    for i, label in enumerate(labels):
        if not any(labels[k] == label and is_same_box(boxes[i], boxes[k]) for k in kept):
            kept.append(i)
    return kept


@dataclass(frozen=True, slots=True)
class Counted:
    """An asked object, the label that was looked for, and the indices of the labels taken for it."""

    asked: Asked
    label: str
    found: tuple[int, ...]


def count_objects(asked: Sequence[Asked], labels: Sequence[str]) -> list[Counted]:
    """Find each asked object among the labels.

    [Q] A name that is no label takes over every label that contains it ("phone": microphone, headphones);
    they stay renamed for the objects after it.
    """
    current = list(labels)
    counted = []
    for wanted in asked:
        name = ALIASES.get(wanted.name, wanted.name)
        if name not in current:
            current = [name if name in label else label for label in current]
        found = tuple(i for i, label in enumerate(current) if label == name)
        counted.append(Counted(wanted, name, found))
    return counted


def numeracy_score(counted: Sequence[Counted]) -> float:
    """The official value of an image, added up in the official order; 0 for a prompt that counts nothing."""
    score = 0.0
    for one in counted:
        weight = 1.0 / len(counted)
        if one.found:
            score += 0.5 * weight
            if len(one.found) == one.asked.count:
                score += 0.5 * weight
    return score


# ---- the scorer ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The protocol's `scorers.unidet_numeracy`."""

    detector: dict[str, Any]
    """Read by bench.scorers.unidet."""


class NumeracyScorer:
    """Detections and the numbers of the prompt -> the score of an image."""

    def __init__(
        self, detector: Detector, names: ObjectNames, *, names_sha256: str, random_names: bool = False
    ) -> None:
        self.detector, self.names = detector, names
        self.record = ScorerRecord(
            name="unidet_numeracy",
            version=VERSION,
            weights={**detector.record.weights, OBJECTS_ID: names_sha256},
            random_weights=detector.record.random_weights or random_names,
            settings={"detector": dict(detector.record.settings)},
        )

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        seen = self.detector.detect(image, digest)
        found = list(seen)
        kept = [found[i] for i in distinct([d.label for d in found], [d.box for d in found])]
        counted = count_objects(asked_objects(prompt.text, self.names), [d.label for d in kept])
        evidence = {
            "objects": [
                {
                    "name": one.asked.name,
                    "label": one.label,
                    "asked": one.asked.count,
                    "found": len(one.found),
                    "detections": [
                        {
                            "label": kept[i].label,
                            "score": kept[i].score,
                            "box": [float(x) for x in kept[i].box],
                        }
                        for i in one.found
                    ],
                }
                for one in counted
            ],
            "num_detections": len(found),
            "num_distinct": len(kept),
        }
        return Scored(
            score=numeracy_score(counted),
            reason=_reason(counted) + (f"; {seen.note}" if seen.note else ""),
            parts=_parts(counted),
            evidence=evidence,
        )


def _reason(counted: Sequence[Counted]) -> str:
    if not counted:
        return "the prompt counts no known object"
    return " · ".join(
        f"{one.asked.name}: asked {one.asked.count or 'no number'}, found {len(one.found)}" for one in counted
    )


def _parts(counted: Sequence[Counted]) -> dict[str, float]:
    """objects: share of the asked objects that are there.   count: share with the exact number."""
    if not counted:
        return {}
    exact = sum(len(one.found) == one.asked.count for one in counted)
    return {
        "objects": sum(bool(one.found) for one in counted) / len(counted),
        "count": exact / len(counted),
    }


def build(settings: dict[str, Any], context: Context) -> NumeracyScorer:
    """The scorer for a protocol's settings; MissingWeights if a file is not there."""
    from bench.scorers.unidet import build_detector
    from bench.weights import locate

    read = from_dict(Settings, settings, path="scorers.unidet_numeracy")
    located = locate(OBJECTS_ID, context.models)
    return NumeracyScorer(
        build_detector(read.detector, context),
        ObjectNames.read(located.path),
        names_sha256=located.sha256,
        random_names=located.random,
    )


# words that the official prompts count, and that random detectors find
_EVERYDAY = (
    "dog cat bird horse pig cow rabbit frog turtle giraffe chicken bee butterfly car train bicycle airplane"
    " boat chair sofa table desk couch lamp clock vase bowl cup plate phone book suitcase bag backpack candle"
    " balloon key boy girl"
).split()
_IRREGULAR = {
    "butterfly": "butterflies",
    "couch": "couches",
    "sheep": "sheep",
    "fish": "fish",
    "man": "men",
}


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """A short list of objects in the form of new_objects.txt, in an order drawn from the seed."""
    if id != OBJECTS_ID:
        raise ValueError(f"numeracy has no weights '{id}'; known: {OBJECTS_ID}")
    names = dict.fromkeys([*_EVERYDAY, *_IRREGULAR])
    rows = [f"{name} - {_IRREGULAR.get(name, f'{name}s')}\n" for name in names]
    random.Random(seed).shuffle(rows)
    with atomic_file(path) as temporary:
        temporary.write_text("".join(rows), "utf-8")
