"""Base against base: how far the metrics of an unchanged system move when only the seeds change."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import special

from bench.compare.band import AARuns, Band, MetricBand, Source
from bench.compare.comparable import require_comparable
from bench.compare.effects import Effect
from bench.compare.gate import INCONCLUSIVE, REGRESSION, Tolerance, judge, overall
from bench.compare.paired import category_effect, pair
from bench.compare.statistics import ALPHA
from bench.results.evidence import Evidence
from bench.results.record import Result, ScoreLine, provenance
from gentron.config import to_dict
from gentron.errors import UserError

# seed -> a run's result and its folder
RunOnce = Callable[[int], tuple[Result, Path] | None]


def prompt_means(lines: Sequence[ScoreLine]) -> dict[str, float]:
    """Mean score of each prompt over its images, by id, sorted."""
    groups: dict[str, list[float]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: (line.prompt_id, line.sample)):
        groups[line.prompt_id].append(line.score)
    return {prompt_id: math.fsum(group) / len(group) for prompt_id, group in groups.items()}


def metric_band(means: np.ndarray, *, alpha: float, num_metrics: int) -> MetricBand:
    """The band of a metric from (K runs, N prompts) means.

    Runs of the same prompts differ by their seeds alone, so the variance of a difference of two runs is twice
    the mean over prompts of the variance within a prompt, over N. Two runs give a steady one, as every prompt
    adds K - 1 degrees of freedom, fewer where some prompts vary much more than others (Satterthwaite).
    Bonferroni over the metrics: the band holds for all of them at once.
    """
    runs, prompts = means.shape
    within = means.var(axis=0, ddof=1)
    sd_difference = math.sqrt(2 * float(within.mean()))
    fourth = float(np.sum(within**2))
    freedom = (runs - 1) * float(within.sum()) ** 2 / fourth if fourth else 1.0
    reach = float(special.stdtrit(freedom, 1 - alpha / (2 * num_metrics)))
    of_runs = means.mean(axis=1)
    return MetricBand(
        band=reach * sd_difference / math.sqrt(prompts),
        largest=float(of_runs.max() - of_runs.min()),
        sd_difference=sd_difference,
        mean=float(of_runs.mean()),
        num_prompts=prompts,
    )


def calibrate(runs: Sequence[Evidence], *, alpha: float = ALPHA, seed: int = 0) -> Band:
    """The band of one system from two or more runs with different seeds.

    Raises UserError if they are not of one system or share a seed, NotComparable if they were not measured in
    the same way.
    """
    categories = _check(runs)
    bands = {
        name: metric_band(
            np.array([list(prompt_means(run.lines[name]).values()) for run in runs]),
            alpha=alpha,
            num_metrics=len(categories),
        )
        for name in categories
    }
    first = runs[0].result
    return Band(
        protocol=first.protocol,
        protocol_sha256=first.protocol_sha256,
        editions=first.editions,
        images_per_prompt=first.images_per_prompt,
        limit=first.limit,
        system=first.system,
        rehearsal=first.is_rehearsal or first.system.untrained,
        alpha=alpha,
        metrics=bands,
        a_a=_against_itself(runs, bands, alpha=alpha, seed=seed),
        runs=[
            Source(path=run.path.as_posix(), result_sha256=run.sha256, seed=run.result.seed) for run in runs
        ],
        provenance=provenance(device=first.provenance.device),
    )


def _check(runs: Sequence[Evidence]) -> list[str]:
    """The categories that all runs have."""
    if len(runs) < 2:
        raise UserError(f"a band needs at least 2 runs of one system with different seeds, got {len(runs)}")
    first = runs[0]
    categories = list(first.lines)
    if not categories:
        raise UserError(f"{first.path} has no scores by category: nothing to calibrate")
    for other in runs[1:]:
        if to_dict(other.result.system) != to_dict(first.result.system):
            names = f"{first.result.system.name} / {other.result.system.name}"
            raise UserError(f"the runs are of different systems ({names}): a band is of one system")
        if list(other.lines) != categories:
            raise UserError(f"{other.path} has other categories than {first.path}: measure the same suite")
        require_comparable(first, other, categories, same_seed=False)
    seeds = [run.result.seed for run in runs]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"the runs must have different seeds, got {', '.join(map(str, seeds))}")
    return categories


def _against_itself(
    runs: Sequence[Evidence], bands: dict[str, MetricBand], *, alpha: float, seed: int
) -> AARuns:
    """Every pair of runs through the gate, with the bands as tolerances."""
    allowed = {name: Tolerance(band.band, "band") for name, band in bands.items()}
    verdicts = []
    for baseline, candidate in combinations(runs, 2):
        effects: dict[str, Effect] = {
            name: category_effect(name, pair(baseline.lines[name], candidate.lines[name]), seed=seed)
            for name in bands
        }
        verdicts.append(overall(judge(effects, list(bands), allowed, alpha=alpha, seed=seed)))
    return AARuns(
        pairs=len(verdicts),
        regressions=verdicts.count(REGRESSION),
        inconclusive=verdicts.count(INCONCLUSIVE),
    )


def measure(run_once: RunOnce, seeds: Sequence[int]) -> list[Path]:
    """Folders of a run with each seed; a run that is there already is found again, not made anew."""
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise ValueError(f"seeds must be at least 2 different ones, got {list(seeds)}")
    folders = []
    for seed in seeds:
        done = run_once(seed)
        assert done is not None, "one process always gets its result"
        folders.append(done[1])
    return folders
