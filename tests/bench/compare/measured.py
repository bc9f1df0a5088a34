"""Results with known scores, written as a run writes them, for the tests of compare and gate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.prompts import Prompt
from bench.prompts.seeds import image_seed
from bench.results.aggregate import aggregate
from bench.results.record import (
    Counts,
    Provenance,
    Result,
    SetMetric,
    Skipped,
    SystemRecord,
    write_result,
)
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing, ScoreRow

Scores = Mapping[str, np.ndarray]  # category -> (prompts, samples)


def made_prompts(sizes: Mapping[str, int]) -> list[Prompt]:
    return [
        Prompt(id=f"{name}-{k:04d}", category=name, text=f"a {name} thing, number {k}")
        for name, size in sizes.items()
        for k in range(size)
    ]


def write_scores(
    out: Path,
    scores: Scores,
    *,
    name: str = "made",
    seed: int = 0,
    digest: str = "",
    protocol: str = "made_v1",
    protocol_sha256: str = "a" * 64,
    suite: str = "all",
    limit: int | None = None,
    scorer: ScorerRecord | None = None,
    untrained: bool = False,
    dirty: bool | None = False,
    date: str = "2026-01-02T03:04:05+00:00",
    skipped: Sequence[Skipped] = (),
    missing: Sequence[Missing] = (),
    set_metrics: Sequence[SetMetric] = (),
    images: str | None = None,
    settings: dict[str, object] | None = None,
    text: Callable[[Prompt], str] | None = None,
) -> Path:
    """Folder of a result with these scores. digest: what sets its pictures apart from another result's."""
    record = scorer or ScorerRecord(name="made", version=1)
    prompts = made_prompts({category: len(values) for category, values in scores.items()})
    if text is not None:
        prompts = [Prompt(id=p.id, category=p.category, text=text(p)) for p in prompts]
    values = [row for matrix in scores.values() for row in np.asarray(matrix, float)]
    rows = [
        ScoreRow(
            prompt_id=prompt.id,
            sample=sample,
            seed=image_seed(seed, prompt.id, sample),
            sha256=hashlib.sha256(f"{digest}{prompt.id}{sample}".encode()).hexdigest(),
            scorer=record.digest,
            score=float(score),
            reason=f"scored {score:.2f}",
            parts={},
            evidence={},
            chance=None,
            shuffled=None,
        )
        for prompt, of_prompt in zip(prompts, values, strict=True)
        for sample, score in enumerate(of_prompt)
    ]
    result = Result(
        protocol=protocol,
        protocol_sha256=protocol_sha256,
        suite=suite,
        seed=seed,
        images_per_prompt=len(values[0]) if values else 1,
        limit=limit,
        system=SystemRecord(
            kind="gentron", name=name, weights_sha256="c" * 64, untrained=untrained, settings=settings or {}
        ),
        scorers={category: record for category in scores},
        counts=Counts(expected=len(rows) + len(missing), scored=len(rows), missing=len(missing)),
        missing=list(missing),
        skipped=list(skipped),
        metrics=aggregate(prompts, rows, {category: record.name for category in scores}),
        set_metrics=list(set_metrics),
        provenance=Provenance(
            date=date,
            commit="0123456789abcdef",
            dirty=dirty,
            command="gentron-bench compbench",
            device="cpu",
            machine="x86_64 Linux",
            packages={"python": "3.11"},
            images=images,
        ),
    )
    return write_result(out, result, prompts, rows)


def noisy(
    seed: int, sizes: Mapping[str, int], *, samples: int = 1, drop: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Right, half right or wrong pictures of prompts of unequal ease, which is the same for every seed.

    drop: what each category loses of its share of right ones.
    """
    found = {}
    for k, (category, size) in enumerate(sizes.items()):
        ease = np.random.default_rng(k).beta(4, 1.5, size)
        right = np.clip(ease - (drop or {}).get(category, 0.0), 0, 1)
        found[category] = np.random.default_rng([seed, k]).binomial(2, right[:, None], (size, samples)) / 2
    return found
