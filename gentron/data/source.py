"""What the training loop asks of a data source, and the order in which a finite set is visited."""

# B batch, F frames, C latent channels, H W latent size

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from gentron.data.keyed import Stream, keyed_rng


class Batch(NamedTuple):
    """latents: (B, C, H, W), of clips (B, F, C, H, W), float32 at unit variance, on the CPU.
    captions: B strings.   unreadable: what another sample stands in for, a name and a reason each."""

    latents: Tensor
    captions: list[str]
    unreadable: tuple[str, ...] = ()


class DataSource(Protocol):
    """Samples by global index: the same index gives the same sample in every run with the same seed."""

    @property
    def name(self) -> str:
        """Where the samples come from, for the run's record."""
        ...

    def batch(self, global_indices: Sequence[int]) -> Batch:
        """The training samples with these global indices (the first sample of a run is 0, no upper end)."""
        ...

    def held_back(self) -> Batch:
        """The fixed validation set, never among the training samples."""
        ...


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_items: int) -> np.ndarray:
    return keyed_rng(seed, epoch, Stream.ORDER).permutation(num_items)


def item_of_index(seed: int, global_index: int, num_items: int) -> int:
    """The item that a global index visits: an epoch is a permutation of all, keyed on (seed, epoch)."""
    epoch, position = divmod(global_index, num_items)
    return int(_epoch_order(seed, epoch, num_items)[position])
