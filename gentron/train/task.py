"""What the training loop asks of a task: samples made ready, their loss, validation and pictures by name.

The loop counts samples and knows nothing else of them; train/t2i.py and train/t2v.py each make one Task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from PIL import Image
from torch import Tensor, nn

B = TypeVar("B")
M = TypeVar("M", bound=nn.Module)


class Prepared(NamedTuple, Generic[B]):
    """A micro-batch ready for the model, on its device, with everything random drawn.

    kind: names what its samples are where a task has several kinds of steps; their losses are logged apart.
    unreadable: what the data could not give (a file's name and the reason), replaced by other samples.
    """

    batch: B
    kind: str | None = None
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task(Generic[M, B]):
    """loss, validate and sample are called under the recipe's autocast, prepare in the prefetch thread."""

    data: str
    """Where the samples come from, for the run's record."""
    unit: str = "images"
    """What a sample is called in rows ("images_seen") and on the console."""
    build_model: Callable[[], M]
    """The model at the start of the run; called once, after torch.manual_seed."""
    prepare: Callable[[range], Prepared[B]]
    """Consecutive samples by global index, all of one global batch, as a function of these indices alone."""
    loss: Callable[[M, B], Tensor]
    """What the micro-batch adds to the mean loss of its global batch, 0-dim, to be differentiated."""
    validate: Callable[[M], dict[str, dict[str, float]]]
    """Sets by name, "validation" or "validation_...": their numbers, "loss" the first."""
    sample: Callable[[M], Image.Image] | None = None
    """One picture of samples of fixed prompts with fixed noise; None where the recipe names no prompts."""
