"""Random inputs for the detection scores, the same on every machine: for make.py, which hands them to the
official functions, and for the tests, which hand them to ours.

The legacy RandomState is used because its streams never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COUNT = 3000
SIDE = 479
LABELS = (
    "person",
    "chair",
    "dog",
    "cat",
    "cattle, cow",
    "table, desk",
    "desk",
    "mobile phone, cell phone",
    "microphone",
    "headphones",
    "picture, frame",
    "boat",
    "fish",
    "tv",
    "handbag, satchel",
    "backpack",
    "cabbage",
    "lamp",
    "bird",
    "sheep",
)
NOUNS = (
    "man",
    "woman",
    "boy",
    "girl",
    "chair",
    "dog",
    "cat",
    "cow",
    "desk",
    "phone",
    "lamp",
    "bird",
    "wallet",
)
RELATIONS_2D = (
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
    "with",
    "nearly over",
)
RELATIONS_3D = ("in front of", "behind", "hidden by", "beside")
OBJECTS = (
    ("dog", "dogs"),
    ("cat", "cats"),
    ("fish", "fish"),
    ("sheep", "sheep"),
    ("phone", "phones"),
    ("bag", "bags"),
    ("ship", "ships"),
    ("goldfish", "goldfish"),
    ("painting", "paintings"),
    ("television", "televisions"),
    ("man", "men"),
    ("woman", "women"),
    ("cow", "cows"),
    ("dog", "dogs"),
    ("person", "people"),
    ("desk", "desks"),
)
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight")
# words of the --complex form's prompts, each with the parts of speech it may get
PARTS = ("NOUN", "NOUN", "NOUN", "PROPN", "PROPN", "ADJ", "DET", "VERB", "ADP")
WORDS = ("the", "man", "dog", "chair", "bird", "desk", "lamp", "boat", "sheep")
SEEN = ("person", "dog", "chair", "bird", "desk", "lamp", "boat", "sheep")
PHRASES = (
    *("on top of", "on bottom of", "on the left of", "on the right of"),
    *("next to", "on side of", "near") * 3,
)


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of one picture in descending score; scores are float32 numbers."""

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    pos: str


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt with its words, and what was detected in its picture."""

    text: str
    words: tuple[Word, ...]
    found: Found


def box(rng: np.random.RandomState) -> tuple[float, float, float, float]:
    """A box inside the picture with sides of at least two pixels; now and then on whole pixels."""
    x, y = np.sort(rng.uniform(0, SIDE - 2, (2, 2)), axis=1)
    corners = np.array([x[0], y[0], x[1] + 2, y[1] + 2], np.float32)
    if rng.rand() < 0.2:
        corners = corners.round()
    return tuple(map(float, corners))  # type: ignore[return-value]


def found(rng: np.random.RandomState, wanted: Sequence[str] = ()) -> Found:
    """Up to nine detections; a box may be that of another one, moved a little; a wanted label is likely."""
    count = int(rng.randint(0, 10))
    boxes: list[tuple[float, float, float, float]] = []
    for _ in range(count):
        if boxes and rng.rand() < 0.35:
            old, shift = boxes[rng.randint(len(boxes))], rng.choice([0, 1, 8, 60])
            moved = np.clip(np.array(old, np.float32) + np.float32(rng.uniform(0, shift)), 0, SIDE)
            boxes.append(tuple(map(float, moved)) if _has_area(moved) else old)  # type: ignore[arg-type]
        else:
            boxes.append(box(rng))
    pool = [*LABELS, *[w for w in wanted for _ in range(8)]]
    labels = tuple(str(pool[rng.randint(len(pool))]) for _ in range(count))
    scores = np.sort(rng.uniform(0.1, 1, count).astype(np.float32))[::-1]
    return Found(labels, tuple(map(float, scores)), tuple(boxes))


def _has_area(corners: np.ndarray) -> bool:
    return bool(corners[2] > corners[0] and corners[3] > corners[1])


def pairs_of_boxes() -> list[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    """Relation and two boxes for the position rules."""
    rng = np.random.RandomState(1)
    made = []
    for i in range(COUNT):
        a, b = box(rng), box(rng)
        if i % 3 == 0:  # nearly the same box: overlaps on both sides of the thresholds
            moved = np.clip(
                np.array(a, np.float32) + np.float32(rng.uniform(-90, 90, 2).tolist() * 2), 0, SIDE
            )
            b = tuple(map(float, moved)) if _has_area(moved) else b
        made.append((RELATIONS_2D[rng.randint(len(RELATIONS_2D))], a, b))
    return made


def _labels_of(nouns: Sequence[str]) -> list[str]:
    people = [noun for noun in nouns if noun in ("man", "woman", "boy", "girl")]
    return [label for label in LABELS if any(noun in label for noun in nouns)] + ["person"] * len(people)


def template(seed: int, relations: Sequence[str]) -> list[Case]:
    """`a X <relation> a Y`, as in the spatial lists; words of the relation may be nouns too."""
    rng = np.random.RandomState(seed)
    made = []
    for _ in range(COUNT):
        x, y = (NOUNS[rng.randint(len(NOUNS))] for _ in range(2))
        relation = relations[rng.randint(len(relations))]
        words = (
            Word("a", "DET"),
            Word(x, "NOUN"),
            *[Word(w, "NOUN" if rng.rand() < 0.2 else "ADP") for w in relation.split()],
            Word("a", "DET"),
            Word(y, "NOUN"),
        )
        made.append(Case(" ".join(w.text for w in words), words, found(rng, _labels_of((x, y)))))
    return made


def mixed() -> list[Case]:
    """Words with any part of speech around any number of prepositions, for the --complex form; most words are
    detected, each with a score of its own, so that the score tells which two were taken."""
    rng = np.random.RandomState(3)
    made = []
    while len(made) < COUNT:
        words: list[Word] = []
        for place in range(2 if rng.rand() < 0.7 else 3):
            for _ in range(rng.randint(0, 5)):
                words.append(Word(WORDS[rng.randint(len(WORDS))], PARTS[rng.randint(len(PARTS))]))
            if place == 0 or rng.rand() < 0.2:
                phrase = PHRASES[rng.randint(len(PHRASES))].split()
                cut = len(phrase) - int(rng.rand() < 0.1)
                words += [Word(w, "ADP" if rng.rand() < 0.9 else "NOUN") for w in phrase[:cut]]
        if words:
            labels = tuple(str(label) for label in rng.permutation(SEEN)[: rng.randint(6, 9)])
            scores = np.sort(rng.uniform(0.1, 1, len(labels)).astype(np.float32))[::-1]
            boxes = tuple(box(rng) for _ in labels)
            seen = Found(labels, tuple(map(float, scores)), boxes)
            made.append(Case(" ".join(w.text for w in words), tuple(words), seen))
    return made


def counted() -> list[Case]:
    """Prompts with one to five numbers of objects, some of them named twice, and words between."""
    rng = np.random.RandomState(4)
    made = []
    for _ in range(COUNT):
        parts, wanted = [], []
        for _ in range(rng.randint(1, 6)):
            single, plural = OBJECTS[rng.randint(len(OBJECTS))]
            wanted += [label for label in LABELS if single in label]
            if rng.rand() < 0.4:
                parts.append(f"{('a', 'an', 'one')[rng.randint(3)]} {single}")
            else:
                parts.append(f"{NUMBERS[rng.randint(len(NUMBERS))]} {plural}")
        if rng.rand() < 0.3:
            parts.insert(0, "a red dog" if rng.rand() < 0.5 else "Two dogs")  # neither is counted
        joined = ", ".join(parts[:-1]) + (", and " if len(parts) > 1 else "") + parts[-1]
        made.append(Case(f"{joined} on the lawn", (), found(rng, wanted)))
    return made


def depths() -> list[np.ndarray]:
    """A few depth maps (H, W) uint8 at the detector's sizes; case i takes map i modulo their number."""
    rng = np.random.RandomState(5)
    made = []
    for height, width in ((479, 479), (360, 480), (480, 320)):
        coarse = rng.randint(0, 256, (20, 20)).astype(np.uint8)
        made.append(np.repeat(np.repeat(coarse, 24, 0), 24, 1)[:height, :width])
    return made


def three_in_one() -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Three prompt lists, and the scores of ten pictures for each prompt of the first."""
    prompts = [f"A Thing{i} and a {noun}. It stands." for i in range(10) for noun in ("dog", "cat", "lamp")]
    lists = {
        "complex_val": prompts,
        "complex_val_spatial": [p.upper() for p in prompts[:9]] + [f"{prompts[9]} Twice named."],
        "complex_val_action": prompts[8:20],
    }
    rng = np.random.RandomState(6)
    count = 10 * len(prompts)
    spatial = rng.uniform(0.5, 1, count) * (rng.rand(count) < 0.4)
    scores = {
        "attribute": rng.uniform(0, 1, count).round(4),
        "spatial": spatial,
        "action": rng.uniform(0.15, 0.4, count),
    }
    return lists, scores
