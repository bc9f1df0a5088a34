"""Set metrics of two results: the difference of two numbers, with an interval where features were kept."""

from __future__ import annotations

from pathlib import Path

from bench.compare import Effect, higher_is_better
from bench.results import SetMetric

NOT_KEPT = "the features were not kept: only the difference of the two values is known, it cannot be judged"


def set_effect(
    baseline: SetMetric, candidate: SetMetric, baseline_folder: Path, candidate_folder: Path, *, seed: int
) -> Effect:
    return Effect(
        metric=candidate.name,
        higher_is_better=higher_is_better(candidate.name),
        baseline=baseline.value,
        candidate=candidate.value,
        difference=candidate.value - baseline.value,
        stderr=None,
        sd=None,
        p=None,
        num_prompts=0,
        num_images=candidate.num_images,
        num_differ=0,
        identical=False,
        note=NOT_KEPT,
        differences=None,
    )
