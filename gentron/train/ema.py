"""The moving average of the weights, kept in fp32."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def make_ema(model: Model) -> Model:
    """A frozen fp32 copy of the model in eval mode."""
    return copy.deepcopy(model).float().eval().requires_grad_(False)


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, *, decay: float, non_finite: Tensor) -> None:
    """ema <- decay * ema + (1 - decay) * weights; unchanged where non_finite (0-dim float) is 1."""
    weight = (1 - decay) * (1 - non_finite)
    for average, value in zip(ema.parameters(), model.parameters(), strict=True):
        average.lerp_(value, weight)
