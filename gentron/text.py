"""Prompts -> PromptEmbeds."""

# B batch, L prompt tokens, E text width

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    clip_prompt_embeds: Tensor | None = None
    clip_prompt_mask: Tensor | None = None
    t5_prompt_embeds: Tensor | None = None
    t5_prompt_mask: Tensor | None = None
    pooled_prompt_embeds: Tensor | None = None
