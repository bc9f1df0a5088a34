"""A detector, a parser and a depth network that answer with what a test gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.prompts import Prompt
from bench.scorers import ScorerRecord
from bench.scorers.detection import Detection, Detections
from bench.scorers.phrases import Parse, Token

IMAGE = np.zeros((4, 4, 3), np.uint8)
DIGEST = "0" * 64
SIZE = (479, 479)

Found = list[tuple[str, float, tuple[float, float, float, float]]]


def prompt(text: str) -> Prompt:
    return Prompt(id="some-0000", category="some", text=text)


def _record(name: str) -> ScorerRecord:
    return ScorerRecord(name=name, version=1, weights={name: "ab"}, settings={"precision": "fp32"})


@dataclass
class GivenDetections:
    """Finds what it is told, in every picture."""

    found: Found = field(default_factory=list)
    size: tuple[int, int] = SIZE
    note: str = ""
    record: ScorerRecord = field(default_factory=lambda: _record("unidet"))

    def detect(self, image: np.ndarray, digest: str) -> Detections:
        found = tuple(Detection(*one) for one in self.found)
        return Detections(found=found, size=self.size, precision="fp32", note=self.note)


@dataclass
class GivenDepth:
    """A depth network that has seen every picture already."""

    map: np.ndarray
    looks: int = 0
    record: ScorerRecord = field(default_factory=lambda: _record("dpt"))

    def depth(self, image: np.ndarray, digest: str) -> np.ndarray:
        self.looks += 1
        return self.map


@dataclass
class GivenWords:
    """Parts of speech by word, NOUN for others; words are cut at blanks."""

    parts: dict[str, str] = field(default_factory=dict)
    name: str = "given"
    record: dict[str, Any] = field(default_factory=lambda: {"source": "given"})

    def parse(self, text: str) -> Parse:
        return Parse(tuple(Token(word, self.parts.get(word, "NOUN")) for word in text.split()), ())


@dataclass
class NextWords:
    """Gives the parses it was made with, one after the other."""

    parses: Any
    name: str = "given"
    record: dict[str, Any] = field(default_factory=dict)

    def parse(self, text: str) -> Parse:
        return Parse(tuple(Token(word.text, word.pos) for word in next(self.parses)), ())
