"""Scores of two results, paired by prompt, seed and sample -> the effect of a category."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.compare.effects import Effect, higher_is_better
from bench.compare.statistics import RESAMPLES, sign_flip_p, spread
from bench.results.evidence import ROUNDED
from bench.results.record import ScoreLine


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An image of the baseline and the candidate's of the same prompt, seed and sample."""

    baseline: ScoreLine
    candidate: ScoreLine

    @property
    def difference(self) -> float:
        """Of a file of six digits and one with all of them, what the rounding makes is no difference."""
        found = self.candidate.score - self.baseline.score
        rounded = self.baseline.seed is None or self.candidate.seed is None
        return 0.0 if rounded and abs(found) <= ROUNDED else found

    @property
    def identical(self) -> bool:
        digests = {self.baseline.image_sha256, self.candidate.image_sha256}
        return len(digests) == 1 and None not in digests and "" not in digests


def pair(baseline: Sequence[ScoreLine], candidate: Sequence[ScoreLine]) -> dict[str, list[Pair]]:
    """Pairs by prompt id, sorted, each prompt's by sample. Both sides must hold the same images."""
    others = {(line.prompt_id, line.sample): line for line in candidate}
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for line in sorted(baseline, key=lambda line: (line.prompt_id, line.sample)):
        other = others[line.prompt_id, line.sample]
        pairs[line.prompt_id].append(Pair(baseline=line, candidate=other))
    return dict(pairs)


def category_effect(
    metric: str, pairs: Mapping[str, Sequence[Pair]], *, resamples: int = RESAMPLES, seed: int = 0
) -> Effect:
    """The mean over prompts of the prompts' mean differences."""
    groups = list(pairs.values())
    return paired_effect(
        metric,
        np.array([math.fsum(p.baseline.score for p in group) / len(group) for group in groups]),
        np.array([math.fsum(p.candidate.score for p in group) / len(group) for group in groups]),
        # not the difference of the two: their rounding would make prompts differ that do not
        np.array([math.fsum(p.difference for p in group) / len(group) for group in groups]),
        num_images=sum(map(len, groups)),
        same_pictures=all(p.identical for group in groups for p in group),
        resamples=resamples,
        seed=seed,
    )


def paired_effect(
    metric: str,
    baseline: np.ndarray,
    candidate: np.ndarray,
    differences: np.ndarray,
    *,
    num_images: int,
    same_pictures: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Effect:
    """From one mean a prompt of each side, and of the differences."""
    seen = spread(differences)
    several = seen.num_prompts > 1
    return Effect(
        metric=metric,
        higher_is_better=higher_is_better(metric),
        baseline=math.fsum(baseline) / len(baseline),
        candidate=math.fsum(candidate) / len(candidate),
        difference=seen.mean,
        stderr=seen.stderr,
        sd=seen.sd,
        p=sign_flip_p(differences, resamples=resamples, seed=seed) if several else None,
        num_prompts=seen.num_prompts,
        num_images=num_images,
        num_differ=seen.num_differ,
        identical=same_pictures and not seen.num_differ,
        note="" if several else "one prompt: nothing can be said beyond it",
        differences=differences,
        resamples=resamples,
    )
