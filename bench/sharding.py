"""One process among those that torchrun started, or the only one. No torch unless there are several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from gentron.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """rank: of this process, from 0.   world_size: how many there are."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Shard:
        """As torchrun describes it in RANK and WORLD_SIZE; a lone process without them."""
        try:
            rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        except ValueError:
            raise UserError(
                "RANK and WORLD_SIZE must be integers: start several processes with torchrun"
            ) from None
        if not 0 <= rank < world_size:
            raise UserError(f"RANK must be from 0 to WORLD_SIZE - 1 ({world_size - 1}), got {rank}")
        return cls(rank, world_size)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """Every world_size-th item, from rank on."""
        return list(items[self.rank :: self.world_size])

    def file_name(self, name: str) -> str:
        """scores.jsonl -> scores-rank1.jsonl where several processes write; they never share a file."""
        return name if self.world_size == 1 else name.replace(".jsonl", f"-rank{self.rank}.jsonl")

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size == 1:
            return
        import torch.distributed as dist

        if not dist.is_initialized():
            # no deadline of half an hour: one process may have far more to draw than another
            from datetime import timedelta

            dist.init_process_group("gloo", timeout=timedelta(days=7))
        dist.barrier()

    def leave(self) -> None:
        """Undo what `barrier` set up; call once, at the end."""
        if self.world_size == 1:
            return
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
