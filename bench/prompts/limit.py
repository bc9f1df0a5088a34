"""Which prompts of a list a limit takes: a seeded order in which every beginning is fair to the splits.

The first prompts of a list would be of one kind: the official color, shape and texture lists open with 200 of
the seen split, and sorted lists go on so. The prompts of a smaller limit are among those of a larger one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.prompts import Prompt
from gentron.hashing import json_sha256

SEED = 0


def fair_order(prompts: Sequence[Prompt], *, seed: int = SEED) -> list[Prompt]:
    """A category's prompts such that every beginning holds each split by its share, to within one.

    Within a split by the sha256 of (seed, id); the k-th of a split of n stands at (k + 1/2) / n of the whole.
    """
    splits: dict[str | None, list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda prompt: json_sha256([seed, prompt.id])):
        splits[prompt.split].append(prompt)
    places = [
        ((k + 0.5) / len(group), json_sha256([seed, prompt.id]), prompt)
        for group in splits.values()
        for k, prompt in enumerate(group)
    ]
    return [prompt for _, _, prompt in sorted(places, key=lambda place: place[:2])]


def limited(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """`limit` prompts of a category, or all, in the order of the list. ValueError for a limit below 1."""
    if limit is None:
        return list(prompts)
    if limit < 1:
        raise ValueError(f"limit must be >= 1, got {limit}")
    kept = {prompt.id for prompt in fair_order(prompts)[:limit]}
    return [prompt for prompt in prompts if prompt.id in kept]
