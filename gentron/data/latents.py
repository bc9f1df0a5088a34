"""A file of encoded latents that grows by whole chunks, so that an interrupted encoding goes on."""

# N items, C latent channels, H W latent size

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

CHUNK = 256
"""Items encoded together; a file holds whole chunks, so each item is always encoded in the same company."""


def latent_cache(
    path: Path,
    *,
    num_items: int,
    shape: tuple[int, ...],
    encode_items: Callable[[range], np.ndarray],
    on_progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """(>= N, C, H, W) float16, read-only, memory-mapped: the latents of items 0..N-1, encoded where missing.

    encode_items gives the latents of a range of items.   on_progress is told the number of items done.
    The file at `path` may grow later: an item's bytes depend on its index alone, not on num_items.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = int(np.prod(shape)) * 2
    num_chunks = -(-num_items // CHUNK)
    # a second run of the same set waits here and finds it done; the lock's own file stays, empty
    with FileLock(path.with_suffix(".lock")), open(path, "ab") as file:
        done = os.fstat(file.fileno()).st_size // (record * CHUNK)
        if done < num_chunks:
            file.truncate(done * CHUNK * record)  # a chunk cut short by a kill is encoded again
        for chunk in range(done, num_chunks):
            latents = encode_items(range(chunk * CHUNK, (chunk + 1) * CHUNK))
            assert latents.shape == (CHUNK, *shape), f"encoded {latents.shape}, expected {(CHUNK, *shape)}"
            file.write(np.ascontiguousarray(latents, np.float16).tobytes())
            file.flush()
            on_progress(min((chunk + 1) * CHUNK, num_items))
        os.fsync(file.fileno())
    return np.memmap(path, np.float16, "r", shape=(max(done, num_chunks) * CHUNK, *shape))
