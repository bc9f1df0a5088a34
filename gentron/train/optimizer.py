"""AdamW, its learning rate over samples seen, and a step that a non-finite gradient cannot poison."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gentron.model import is_temporal
from gentron.train.recipe import TrainRecipe


def make_optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.AdamW:
    """AdamW with betas (0.9, 0.999), in one fused pass over a group; weights that are frozen are left out.

    A group's "lr_scale" multiplies the recipe's rate: the temporal weights, which start at zero output in
    a model that is trained already, have a rate of their own.
    """
    temporal, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (temporal if is_temporal(name) else rest).append(parameter)
    scale = recipe.video.temporal_learning_rate / recipe.learning_rate if recipe.video else 1.0
    groups = [{"params": rest, "lr_scale": 1.0}, {"params": temporal, "lr_scale": scale}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def learning_rate_at(recipe: TrainRecipe, samples_seen: int) -> float:
    """Linear warm-up (its first step is not zero), then what lr_schedule says."""
    begun = samples_seen + recipe.global_batch_size
    if begun < recipe.warmup_images:
        return recipe.learning_rate * begun / recipe.warmup_images
    if recipe.lr_schedule == "constant":
        return recipe.learning_rate
    if recipe.lr_schedule == "late_decay":
        left = max(0, recipe.total_images - samples_seen) / recipe.total_images
        return recipe.learning_rate * min(1.0, left * 3)
    length = max(1, recipe.total_images - recipe.warmup_images)
    progress = min(1.0, max(0, samples_seen - recipe.warmup_images) / length)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def step_unless(optimizer: torch.optim.AdamW, non_finite: Tensor, *, learning_rate: float) -> None:
    """One optimizer step, or none where non_finite (0-dim float, 1 = skip): no moment or count changes then.

    The fused kernel reads the flag on the device, so the host need not wait for the gradient norm.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
    optimizer.found_inf = non_finite  # type: ignore[attr-defined]  # the interface GradScaler uses
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
