"""Which prompts a limit takes."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.prompts import Prompt
from bench.prompts.limit import fair_order, limited

LIST = [
    Prompt(id=f"color-{k:04d}", category="color", text=f"{k}", split="seen" if k < 200 else "unseen")
    for k in range(300)
]


def test_every_beginning_holds_the_splits_by_their_share() -> None:
    """The official color, shape and texture lists open with 200 of the seen split."""
    order = fair_order(LIST)
    for limit in range(1, 301):
        assert abs(Counter(p.split for p in order[:limit])["unseen"] - limit / 3) <= 1
    assert sorted(p.id for p in order) == [p.id for p in LIST]
    assert order != fair_order(LIST, seed=1)


def test_a_limit_keeps_the_order_of_the_list_and_the_prompts_of_a_smaller_one() -> None:
    some, more = limited(LIST, 20), limited(LIST, 60)
    assert len(some) == 20 and set(some) < set(more) and some == [p for p in LIST if p in some]
    assert some != LIST[:20] and limited(LIST, None) == LIST == limited(LIST, 1000)
    with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
        limited(LIST, 0)
