"""Who sees what, in which order, on which side: pure functions of the study's secret.

Every rater judges every prompt under every question (a crossed design: the analysis can tell raters from
prompts). With R raters a system is on the left for R / 2 of them, and for half of the prompts of each rater.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.humaneval.study import GOLD, PAIR, REPEAT, Question, digest
from gentron.errors import UserError

APART = 3  # items of one prompt stand this far apart where the list allows it; never side by side


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What is judged: two pictures of a prompt, or a picture and its corruption.

    first, second: "a" and "b", or "intact" and "corrupted".   system: whose picture a gold item shows.
    """

    kind: Literal["pair", "gold", "repeat"]
    prompt_id: str
    system: Literal["a", "b"] | None = None

    @property
    def sides(self) -> tuple[str, str]:
        return ("intact", "corrupted") if self.kind == GOLD else ("a", "b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """An item in front of a rater; `left` is which of the two is on the left."""

    rater: str
    question: str
    item: Item
    left: str


def rater_names(count: int) -> list[str]:
    """r01, r02, ..."""
    if not 1 <= count <= 999:
        raise ValueError(f"raters must be in 1..999, got {count}")
    width = max(2, len(str(count)))
    return [f"r{number:0{width}d}" for number in range(1, count + 1)]


def place_all(
    questions: Sequence[Question],
    prompt_ids: Sequence[str],
    raters: Sequence[str],
    *,
    gold: int,
    flipped: float,
    secret: str,
) -> list[Placed]:
    """All trials: rater by rater, question by question, in the order in which they are shown.

    gold: gold items a question.   flipped: share of the prompts that are shown a second time, sides changed.
    """
    if not 0 <= gold <= len(prompt_ids):
        raise ValueError(f"gold must be in 0..{len(prompt_ids)}, the number of prompts, got {gold}")
    if not 0 <= flipped <= 1:
        raise ValueError(f"flipped must be a share in 0..1, got {flipped:g}")
    out = []
    for question in questions:
        name = question.name
        pairs = [Item(kind=PAIR, prompt_id=prompt_id) for prompt_id in prompt_ids]
        golden = [
            Item(kind=GOLD, prompt_id=prompt_id, system="a" if place % 2 == 0 else "b")
            for place, prompt_id in enumerate(_shuffled(prompt_ids, secret, "gold", name)[:gold])
        ]
        again = set(_shuffled(prompt_ids, secret, "repeat", name)[: round(flipped * len(prompt_ids))])
        side = {**_sides(pairs, raters, secret, name), **_sides(golden, raters, secret, name)}
        for rater in raters:
            placed = [
                Placed(rater=rater, question=name, item=item, left=item.sides[side[rater, item]])
                for item in (*pairs, *golden)
            ]
            placed += [
                Placed(
                    rater=rater,
                    question=name,
                    item=Item(kind=REPEAT, prompt_id=item.prompt_id),
                    left=item.sides[1 - side[rater, item]],
                )
                for item in pairs
                if item.prompt_id in again
            ]
            out += _apart(placed, secret)
    order = {name: place for place, name in enumerate(raters)}
    return sorted(out, key=lambda placed: order[placed.rater])  # stable: questions keep their order


def _shuffled(values: Sequence[str], secret: str, *what: str) -> list[str]:
    return sorted(values, key=lambda value: digest(secret, *what, value))


def _sides(
    items: Sequence[Item], raters: Sequence[str], secret: str, question: str
) -> dict[tuple[str, Item], int]:
    """0 or 1 by (rater, item), balanced within one over the raters of an item and the items of a rater."""
    by_rank = sorted(items, key=lambda item: digest(secret, "side", question, item.kind, item.prompt_id))
    rater_rank = {name: rank for rank, name in enumerate(_shuffled(raters, secret, "side", question))}
    return {
        (rater, item): (place + rank) % 2
        for place, item in enumerate(by_rank)
        for rater, rank in rater_rank.items()
    }


def _apart(placed: list[Placed], secret: str) -> list[Placed]:
    """In the order of sha256 of (secret, rater, item), moved as little as keeps a prompt's items apart."""
    left = sorted(
        placed,
        key=lambda p: digest(secret, "order", p.question, p.rater, p.item.kind, p.item.prompt_id),
    )
    counts = Counter(p.item.prompt_id for p in left)
    if max(counts.values()) > (len(left) + 1) // 2:
        raise UserError(
            f"{len(counts)} prompts are too few to keep items of one prompt apart:"
            " ask for more prompts, or for fewer gold items and repeats"
        )
    out: list[Placed] = []
    while left:
        recent = [p.item.prompt_id for p in out[-APART:]]
        (common, most), *_ = counts.most_common(1)
        tests: list[Callable[[str], bool]] = [
            lambda prompt, recent=recent: prompt not in recent,
            lambda prompt, recent=recent: prompt != recent[-1],
        ]
        if most > len(left) // 2 and common not in recent[-1:]:  # now, or two of it meet at the end
            tests.insert(0, lambda prompt, common=common: prompt == common)
        chosen = next(p for test in tests for p in left if test(p.item.prompt_id))
        left.remove(chosen)
        counts[chosen.item.prompt_id] -= 1
        out.append(chosen)
    return out
