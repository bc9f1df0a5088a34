"""What the source of noun phrases does to scores: the same pictures under spaCy 3.6, spaCy 3.8 and the rules.

    python benchmarks/phrases.py --write docs/phrases.md       the two tables between the marks of that page

Needs the official lists (GENTRON_PROMPTS), no network's weights: what networks would say of a picture is
drawn, as a function of the picture and of what is asked, so that the same question of the same picture has
the same answer whoever cut it out of the prompt. Ten pictures a prompt:

detections   every word of the prompt that any source calls a noun is found in a picture with probability .8,
             and three others of the same list; confidences uniform in [.3, 1), sides of boxes in [60, 400) of
             479 px
depth        a slope in a direction of the picture's own
answers      BLIP's probability of yes: the square root of a uniform number, 2/3 on average
cosines      CLIP's: .31 + .03 x (a normal number of the picture) + .005 x (one of picture and text)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.prompts import Prompt
from bench.prompts.sets import COMPBENCH, complex_classes, load_list
from bench.scorers import ScorerRecord
from bench.scorers.blip_vqa import Settings as BlipSettings
from bench.scorers.blip_vqa import combine as combine_answers
from bench.scorers.blip_vqa import phrases_asked
from bench.scorers.clip import without_adjectives
from bench.scorers.detection import Detection, Detections
from bench.scorers.pairs import as_label
from bench.scorers.phrase_agreement import disagreements, write_between_marks
from bench.scorers.phrases import PhraseSource, phrase_source
from bench.scorers.spatial import Settings as SpatialSettings
from bench.scorers.spatial import SpatialScorer
from bench.scorers.spatial_3d import Spatial3dScorer
from bench.scorers.three_in_one import ACTION, ATTRIBUTE, PARTS, SPATIAL, Classes
from bench.scorers.three_in_one import combine as combine_parts

SOURCES = ("spacy-3.6", "spacy-3.8", "rules")
SAMPLES = 10
CATEGORIES = ("color", "shape", "texture", "spatial", "3d_spatial", "complex")
SIDE = 479
BLIP = BlipSettings(np_num=8, dropped_chunks=("top", "the side", "the left", "the right"))
IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)

Score = Callable[[Prompt, int, PhraseSource], float]  # prompt, sample, source -> score of the picture


def draw(*key: Any) -> np.random.Generator:
    """Numbers that belong to this key."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


# ---- what networks would say -----------------------------------------------------------------------------


@dataclass
class DrawnNetworks:
    """A detector and a depth network of one picture at a time: `picture` is set before each score.

    nouns: of each prompt, whichever source says so.   others: of the category, for what nobody asked for.
    """

    nouns: Mapping[str, Sequence[str]]
    others: Sequence[str]
    picture: tuple[str, int] = ("", 0)
    record: ScorerRecord = ScorerRecord(name="drawn", version=1)

    def detect(self, image: np.ndarray, digest: str) -> Detections:
        rng = draw("detections", *self.picture)
        wanted = [noun for noun in self.nouns[self.picture[0]] if rng.random() < 0.8]
        labels = [*wanted, *rng.choice(self.others, 3).tolist()]
        found = [Detection(str(as_label(label)), float(rng.uniform(0.3, 1)), _box(rng)) for label in labels]
        ordered = sorted(found, key=lambda one: -one.score)
        return Detections(found=tuple(ordered), size=(SIDE, SIDE), precision="fp32")

    def depth(self, image: np.ndarray, digest: str) -> np.ndarray:
        angle = draw("depth", *self.picture).uniform(0, 2 * math.pi)
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
        slope = (math.cos(angle) * x + math.sin(angle) * y) / (2 * math.sqrt(2)) + 0.5
        return (255 * slope).astype(np.uint8)


def _box(rng: np.random.Generator) -> tuple[float, float, float, float]:
    width, height = rng.uniform(60, 400, 2)
    left, top = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
    return (float(left), float(top), float(left + width), float(top + height))


def answers(prompt: Prompt, sample: int, source: PhraseSource) -> float:
    """BLIP-VQA's score."""
    asked = phrases_asked(source.parse(prompt.text).chunks, BLIP)
    return combine_answers(
        [math.sqrt(draw("answer", prompt.text, sample, phrase).random()) for phrase in asked]
    )


def cosine(prompt: Prompt, sample: int, source: PhraseSource) -> float:
    """CLIP's, with the text of the 3-in-1 score."""
    text = without_adjectives(prompt.text, source)
    of_picture, of_text = (draw("cosine", prompt.text, sample, about).normal() for about in ("", text))
    return 0.31 + 0.03 * of_picture + 0.005 * of_text


# ---- scores of a category --------------------------------------------------------------------------------


def scorer_of(category: str, networks: DrawnNetworks) -> Score:
    """The score of a picture as the category's scorer makes it. numeracy and non_spatial read no phrases."""
    if category in ("color", "shape", "texture"):
        return answers
    if category == "complex":
        return _three_in_one(networks, Classes(*complex_classes()))
    return _spatial_3d(networks) if category == "3d_spatial" else _spatial(networks, complex=False)


def _spatial(networks: DrawnNetworks, *, complex: bool) -> Score:
    settings = SpatialSettings(complex=complex, detector={})

    def score(prompt: Prompt, sample: int, source: PhraseSource) -> float:
        networks.picture = (prompt.text, sample)
        return SpatialScorer(settings, networks, source).score(IMAGE, "", prompt, sample).score

    return score


def _spatial_3d(networks: DrawnNetworks) -> Score:
    def score(prompt: Prompt, sample: int, source: PhraseSource) -> float:
        networks.picture = (prompt.text, sample)
        return Spatial3dScorer(networks, networks, source).score(IMAGE, "", prompt, sample).score

    return score


def _three_in_one(networks: DrawnNetworks, classes: Classes) -> Score:
    parts = {ATTRIBUTE: answers, SPATIAL: _spatial(networks, complex=True), ACTION: cosine}

    def score(prompt: Prompt, sample: int, source: PhraseSource) -> float:
        kind = classes.of(prompt.text)
        return combine_parts(kind, {name: parts[name](prompt, sample, source) for name in PARTS[kind]})

    return score


# ---- tables ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """means: of each source.   against: other source -> mean of the paired differences to the first source,
    their standard error over prompts, and the prompts whose score differs."""

    category: str
    means: dict[str, float]
    against: dict[str, tuple[float, float, int]]


def effect(category: str, sources: Mapping[str, PhraseSource], *, samples: int = SAMPLES) -> Effect:
    """The scores of a category's pictures under all sources."""
    prompts = load_list(COMPBENCH, category)
    networks = DrawnNetworks(*nouns_of(prompts, list(sources.values())))
    score = scorer_of(category, networks)
    values = {
        name: np.array([[score(p, k, source) for k in range(samples)] for p in prompts])
        for name, source in sources.items()
    }
    first, *others = sources
    against = {}
    for name in others:
        differences = (values[name] - values[first]).mean(axis=1)
        stderr = float(differences.std(ddof=1) / math.sqrt(len(prompts)))
        changed = int((values[name] != values[first]).any(axis=1).sum())
        against[name] = (float(differences.mean()), stderr, changed)
    return Effect(
        category=category, means={name: float(v.mean()) for name, v in values.items()}, against=against
    )


def nouns_of(
    prompts: Sequence[Prompt], sources: Sequence[PhraseSource]
) -> tuple[dict[str, list[str]], list[str]]:
    """For each prompt what some source calls a noun; and all of them."""
    nouns = {
        prompt.text: sorted(
            {
                token.text
                for source in sources
                for token in source.parse(prompt.text).tokens
                if token.pos in ("NOUN", "PROPN")
            }
        )
        for prompt in prompts
    }
    return nouns, sorted({noun for found in nouns.values() for noun in found})


def effects_table(effects: Sequence[Effect]) -> str:
    first, *others = effects[0].means
    heads = [first, *(f"{name} (difference, prompts)" for name in others)]
    lines = [f"| category | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for row in effects:
        cells = [f"{row.means[first]:.4f}"]
        for name in others:
            difference, stderr, changed = row.against[name]
            cells.append(f"{row.means[name]:.4f} ({difference:+.4f} ± {stderr:.4f}, {changed})")
        lines.append(f"| {row.category} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", type=Path, help="page with the marks of both tables; stdout if none")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    options = parser.parse_args()
    sources = {name: phrase_source(name) for name in SOURCES}
    tables = {
        "disagreements": disagreements(sources),
        "effects": effects_table([effect(c, sources, samples=options.samples) for c in CATEGORIES]),
    }
    for name, table in tables.items():
        if options.write is None:
            print(table)
        else:
            write_between_marks(options.write, table, name=name)


if __name__ == "__main__":
    main()
