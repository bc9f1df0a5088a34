"""The next micro-batches, made ready in a thread of their own while the model works on this one."""

# B batch, L prompt tokens

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from gentron.text import PromptEmbeds

DEPTH = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def prefetch(prepare: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Iterator[Result]]:
    """Yield an iterator over prepare(item), in order, at most DEPTH ahead of what was asked for.

    One thread, so prepare is never called twice at a time; its exceptions rise where its result is taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        waiting: deque[Future[Result]] = deque()
        left = iter(items)

        def results() -> Iterator[Result]:
            while True:
                while len(waiting) < DEPTH and (item := next(left, None)) is not None:
                    waiting.append(pool.submit(prepare, item))
                if not waiting:
                    return
                yield waiting.popleft().result()

        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()


def trim_padding(prompt_embeds: PromptEmbeds) -> PromptEmbeds:
    """Drop the columns that are padding in every row: they weigh nothing in attention, and cost time.

    Needs the masks on the host, so it is for the CPU; a GPU prefers shapes that stay the same.
    """
    cut: dict[str, object] = {}
    for name in ("clip", "t5"):
        tokens, mask = (getattr(prompt_embeds, f"{name}_prompt_{part}") for part in ("embeds", "mask"))
        if tokens is not None and mask is not None:
            length = int(mask.any(0).nonzero().max()) + 1
            cut |= {f"{name}_prompt_embeds": tokens[:, :length], f"{name}_prompt_mask": mask[:, :length]}
    return replace(prompt_embeds, **cut)  # type: ignore[arg-type]
