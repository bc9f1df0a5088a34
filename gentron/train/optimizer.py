"""AdamW, its learning rate over images seen, and a step that a non-finite gradient cannot poison."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gentron.train.recipe import TrainRecipe


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: TrainRecipe) -> torch.optim.AdamW:
    """AdamW with betas (0.9, 0.999), in one fused pass over the parameters."""
    return torch.optim.AdamW(
        list(parameters),
        lr=recipe.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def learning_rate_at(recipe: TrainRecipe, images_seen: int) -> float:
    """Linear warm-up (its first step is not zero), then constant, or half a cosine down to zero."""
    begun = images_seen + recipe.global_batch_size
    if begun < recipe.warmup_images:
        return recipe.learning_rate * begun / recipe.warmup_images
    if recipe.lr_schedule == "constant":
        return recipe.learning_rate
    length = max(1, recipe.total_images - recipe.warmup_images)
    progress = min(1.0, max(0, images_seen - recipe.warmup_images) / length)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def step_unless(optimizer: torch.optim.AdamW, non_finite: Tensor, *, learning_rate: float) -> None:
    """One optimizer step, or none where non_finite (0-dim float, 1 = skip): no moment or count changes then.

    The fused kernel reads the flag on the device, so the host need not wait for the gradient norm.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.found_inf = non_finite  # type: ignore[attr-defined]  # the interface GradScaler uses
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
