"""Decoding of files in threads, ahead of who asks: results by index, a bounded number of them waiting."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")

NUM_THREADS = min(8, os.cpu_count() or 1)
"""Pillow and libav release the interpreter while they decode, so threads do, and share memory."""
BATCHES_AHEAD = 2


class DecodeAhead(Generic[Result]):
    """decode(index) for batches of indices that go on as they began.

    The result of an index depends on the index alone, never on what was guessed: a wrong guess (after a
    resume, of another rank's share) costs time only. Waiting are at most BATCHES_AHEAD batches.
    """

    def __init__(self, decode: Callable[[int], Result], *, num_threads: int = NUM_THREADS) -> None:
        self._decode = decode
        self._num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: dict[int, Future[Result]] = {}
        self._last: Sequence[int] | None = None

    def __call__(self, indices: Sequence[int]) -> list[Result]:
        """The results for these indices, in their order; the next batches begin meanwhile."""
        if self._pool is None:  # threads come with the first use: a source may be made and never asked
            self._pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="decode")
        guessed = self._next(indices)
        wanted = {*indices, *guessed}
        for index in [index for index in self._waiting if index not in wanted]:
            self._waiting.pop(index).cancel()
        for index in (*indices, *guessed):
            if index not in self._waiting:
                self._waiting[index] = self._pool.submit(self._decode, index)
        self._last = indices
        futures = [self._waiting[index] for index in indices]
        results = [future.result() for future in futures]
        for index in set(indices):
            del self._waiting[index]
        return results

    def _next(self, indices: Sequence[int]) -> list[int]:
        """The batches that follow, if the step from the last batch to this one goes on."""
        step = len(indices)
        if self._last is not None and len(self._last) == len(indices) and indices[0] > self._last[0]:
            step = indices[0] - self._last[0]
        return [index + k * step for k in range(1, BATCHES_AHEAD + 1) for index in indices]
