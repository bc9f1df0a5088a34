"""Activation checkpointing: what a block keeps for its backward pass, and what it computes again there.

none       keeps everything.
selective  keeps the results of matrix products and attention, and computes norms, modulation and GELU again.
full       keeps the block's input and computes the whole block again: a third more FLOPs a step.
`gentron plan` states memory and speed under each. Gradients are the same, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

CheckpointPolicy = Literal["none", "selective", "full"]

_ATTENTION = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
)


def _kept_operations() -> list[Any]:
    aten = torch.ops.aten
    attention = [getattr(aten, name).default for name in _ATTENTION if hasattr(aten, name)]
    return [aten.mm.default, aten.addmm.default, *attention]


def run_block(block: Callable[..., Tensor], *inputs: Any, policy: CheckpointPolicy) -> Tensor:
    """block(*inputs), its activations kept as the policy says; outside of training always as it is."""
    if policy == "none" or not torch.is_grad_enabled():
        return block(*inputs)
    if policy == "full":
        return checkpoint(block, *inputs, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _kept_operations())
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
