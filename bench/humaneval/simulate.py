"""Raters that do not exist, with a known truth: to rehearse a study and to test its statistics.

A vote is an ordered probit: z = prompt + rater + noise, all normal, cut at two points so that win, draw and
lose have the asked shares over all prompts and raters, whatever the spread of either. Everything that leaves
this module says "simulated".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from bench.humaneval.ingest import ANSWERS_KIND, ANSWERS_VERSION
from bench.humaneval.study import GOLD, Key, Question, Study, Trial, digest

FAST_S, CAREFUL_S = 0.4, 5.0
SLIP = 0.02  # an attentive rater misses a gold item this often


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """win, draw and lose of system A over all prompts and raters, in the limit.

    prompt_sd, rater_sd: spread of prompts and raters beside the noise of one vote, which has sd 1.
    left_bias: added to z for the left one; it moves single votes, not balanced shares at win = lose.
    careless: share of the raters who press anything, fast.
    """

    win: float
    draw: float
    lose: float
    prompt_sd: float = 0.7
    rater_sd: float = 0.3
    left_bias: float = 0.0
    careless: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.win, self.draw, self.lose)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"win, draw and lose must be shares that add up to 1, got {shares}")
        for name in ("prompt_sd", "rater_sd"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} must be in 0..100, got {getattr(self, name)}")
        if not abs(self.left_bias) <= 100:
            raise ValueError(f"left_bias must be in -100..100, got {self.left_bias}")
        if not 0 <= self.careless <= 1:
            raise ValueError(f"careless must be a share in 0..1, got {self.careless}")

    @property
    def cuts(self) -> tuple[float, float]:
        """z below the first is a lose, above the second a win."""
        spread = math.sqrt(1 + self.prompt_sd**2 + self.rater_sd**2)
        return spread * float(ndtri(self.lose)), spread * float(ndtri(1 - self.win))


def draw_votes(truth: Truth, *, prompts: int, raters: int, rng: np.random.Generator) -> np.ndarray:
    """(prompts, raters) in {-1, 0, 1}: one complete question, nobody careless, no left bias."""
    z = rng.normal(0, truth.prompt_sd, (prompts, 1)) + rng.normal(0, truth.rater_sd, (1, raters))
    return _cut(z + rng.normal(0, 1, (prompts, raters)), truth.cuts)


def _cut(z: np.ndarray, cuts: tuple[float, float]) -> np.ndarray:
    low, high = cuts
    return (z > high).astype(np.int64) - (z <= low)


def simulate(
    study: Study, study_sha256: str, key: Key, truth: Truth, *, seed: int
) -> dict[str, dict[str, Any]]:
    """Files as the page saves them, by rater; every one of them says that it is simulated."""
    careless = sorted(study.raters, key=lambda name: digest(seed, "careless", name))
    careless = set(careless[: round(truth.careless * len(careless))])
    return {
        rater: {
            "schema_version": ANSWERS_VERSION,
            "kind": ANSWERS_KIND,
            "study_id": study.study_id,
            "study_sha256": study_sha256,
            "rater": rater,
            "token": f"simulated-{seed}",
            "simulated": True,
            "truth": {name: getattr(truth, name) for name in truth.__dataclass_fields__},
            "answers": [
                _answer(study.question(trial.question), trial, key, truth, seed, careless=rater in careless)
                for trial in study.trials
                if trial.rater == rater
            ],
        }
        for rater in study.raters
    }


def _answer(
    question: Question, trial: Trial, key: Key, truth: Truth, seed: int, *, careless: bool
) -> dict[str, Any]:
    rng = _rng(seed, "vote", trial.id)
    if careless:
        code = question.choices[int(rng.integers(len(question.choices)))].code
        seconds = FAST_S * float(rng.uniform(0.5, 1.5))
    else:
        code = _code(question, _side(trial, key, truth, seed, rng), rng)
        seconds = CAREFUL_S * float(np.exp(rng.normal(0, 0.3)))
    return {"trial": trial.id, "choice": code, "ms": round(1000 * seconds), "at": "", "layout": "row"}


def _side(trial: Trial, key: Key, truth: Truth, seed: int, rng: np.random.Generator) -> str:
    """left, right or tie of an attentive rater."""
    item = key.trials[trial.id]
    if item.kind == GOLD:
        prefers_first = rng.uniform() >= SLIP
    else:
        prompt = _rng(seed, "prompt", trial.question, item.prompt_id).normal(0, truth.prompt_sd)
        rater = _rng(seed, "rater", trial.question, trial.rater).normal(0, truth.rater_sd)
        lean = truth.left_bias if item.left == "a" else -truth.left_bias
        net = int(_cut(np.array(prompt + rater + lean + rng.normal()), truth.cuts))
        if net == 0:
            return "tie"
        prefers_first = net > 0
    return "left" if prefers_first == (item.left in ("a", "intact")) else "right"


def _code(question: Question, side: str, rng: np.random.Generator) -> str:
    fitting = [choice.code for choice in question.choices if choice.outcome == side]
    return fitting[int(rng.integers(len(fitting)))]


def _rng(*words: str | int) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(digest(*words), "big"))


def dump_answers(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
