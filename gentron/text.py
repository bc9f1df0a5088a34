"""Prompts -> PromptEmbeds: the CLIP text tower and the T5 encoder, through transformers.

The unconditional branch is the empty prompt, encoded like every other prompt, in training and in sampling.
"""

# B batch, L prompt tokens, E text width

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentron.errors import UserError
from gentron.torchvision_ops import prepare_torchvision

# Sizes of the paper's encoders: openai/clip-vit-large-patch14 (text tower) and google/flan-t5-xxl (encoder).
CLIP_L: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 1,
}
CLIP_MAX_LENGTH = 77
T5_MAX_LENGTH = 120


@dataclass(frozen=True)
class PromptEmbeds:
    """B encoded prompts; an absent encoder is None.

    clip_prompt_embeds, t5_prompt_embeds: (B, L, E), L and E each encoder's own.
    clip_prompt_mask, t5_prompt_mask: (B, L) bool, True at real tokens.
    pooled_prompt_embeds: (B, E), CLIP's.
    """

    clip_prompt_embeds: Tensor | None = None
    clip_prompt_mask: Tensor | None = None
    t5_prompt_embeds: Tensor | None = None
    t5_prompt_mask: Tensor | None = None
    pooled_prompt_embeds: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("clip_prompt", "t5_prompt"):
            embeds, mask = getattr(self, f"{name}_embeds"), getattr(self, f"{name}_mask")
            assert (embeds is None) == (mask is None), f"{name}: tokens and mask come together"
            assert embeds is None or embeds.shape[:2] == mask.shape, f"{name}: {embeds.shape} / {mask.shape}"
        sizes = {tensor.shape[0] for _, tensor in self._present()}
        assert len(sizes) == 1, f"prompt embeds need one batch size, got {sorted(sizes)}"

    def _present(self) -> list[tuple[str, Tensor]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, tensor) for name, tensor in named if tensor is not None]

    def _map(self, function: Any) -> PromptEmbeds:
        return replace(self, **{name: function(tensor) for name, tensor in self._present()})

    @property
    def batch_size(self) -> int:
        """B, the number of prompts."""
        return self._present()[0][1].shape[0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PromptEmbeds:
        """Move all; cast the embeddings to `dtype`, never the masks."""
        return self._map(lambda x: x.to(device=device, dtype=dtype if x.is_floating_point() else None))

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> PromptEmbeds:
        """Select prompts along the batch: a slice, a list of indices or an index (or bool) tensor."""
        chosen = index if isinstance(index, (slice, Tensor)) else list(index)
        return self._map(lambda x: x[chosen])

    def repeat_interleave(self, repeats: int) -> PromptEmbeds:
        """Each prompt `repeats` times in a row: a, b -> a, a, b, b."""
        return self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    @classmethod
    def cat(cls, parts: Sequence[PromptEmbeds]) -> PromptEmbeds:
        """Join along the batch; a shorter L is padded with zeros that the mask marks as not real."""
        names = [name for name, _ in parts[0]._present()]
        if any([name for name, _ in part._present()] != names for part in parts):
            raise ValueError("prompt embeds to join must come from the same encoders")
        joined = {name: _cat_padded([getattr(part, name) for part in parts]) for name in names}
        return cls(**joined)


def _cat_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Join (B, L, E) or (B, L) along B after padding L with zeros; (B, E) pooled vectors share E."""
    length = max(x.shape[1] for x in tensors)
    padded = [F.pad(x, (0, 0) * (x.ndim - 2) + (0, length - x.shape[1])) for x in tensors]
    return torch.cat(padded, dim=0)


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def __call__(self, text: list[str], **options: Any) -> Any:
        """Return a mapping with input_ids and attention_mask."""
        ...


class HashTokenizer:
    """A stand-in for models without a vocabulary (`--random-weights`): a word's id is its hash.

    Deterministic on every machine, with the real ids of the special tokens and the real lengths; it means
    nothing to trained weights.
    """

    def __init__(self, vocab_size: int, *, eos: int, pad: int, bos: int | None = None) -> None:
        self.eos, self.pad, self.bos = eos, pad, bos
        self._low = 2 if min(eos, pad) < 2 else 0
        self._high = vocab_size if self._low else min(eos, pad, eos if bos is None else bos)

    def _word_id(self, word: str) -> int:
        number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        return self._low + number % (self._high - self._low)

    def _ids(self, prompt: str, limit: int | None) -> list[int]:
        words = [self._word_id(word) for word in re.findall(r"\w+|[^\w\s]", prompt.lower())]
        start = [] if self.bos is None else [self.bos]
        return start + (words if limit is None else words[: limit - len(start) - 1]) + [self.eos]

    def __call__(self, text: list[str], **options: Any) -> dict[str, Any]:
        """Same options as transformers where they are used here: truncation, max_length, return_tensors."""
        limit = options["max_length"] if options.get("truncation") else None
        rows = [self._ids(prompt, limit) for prompt in text]
        masks = [[1] * len(row) for row in rows]
        if limit is None:
            return {"input_ids": rows, "attention_mask": masks}
        ids = [row + [self.pad] * (limit - len(row)) for row in rows]
        real = [row + [0] * (limit - len(row)) for row in masks]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real)}


@dataclass(frozen=True)
class TextEncoder:
    """One tokenizer and its transformers encoder; prompts are padded and truncated to `max_length` tokens."""

    name: str
    tokenizer: Tokenizer
    model: nn.Module
    max_length: int

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) int64 and mask (B, L) bool, L = max_length always, whatever the batch."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        mask = tokens["attention_mask"].bool()
        if not bool(mask.any(dim=1).all()):
            raise ValueError(
                f"the {self.name} tokenizer gives no token for an empty prompt: it must add an end token"
            )
        return tokens["input_ids"], mask

    def check_fit(self, **widths: int) -> None:
        """Raise UserError unless tokens and positions exist for all input, and E is each of `widths`."""
        config: Any = self.model.config
        positions = getattr(config, "max_position_embeddings", self.max_length)
        problem = None
        for name, width in widths.items():
            if config.hidden_size != width:
                problem = f"the model's {name} is {width}, the encoder's hidden_size {config.hidden_size}"
        if self.max_length > positions:
            problem = f"{self.name}_max_length must be <= {positions}, got {self.max_length}"
        if isinstance(self.tokenizer, Sized) and len(self.tokenizer) > config.vocab_size:
            problem = f"its tokenizer has {len(self.tokenizer)} tokens, its weights {config.vocab_size}"
        if problem is not None:
            raise UserError(f"the {self.name} text encoder does not fit: {problem}")

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens (B, L, E), mask (B, L) bool, pooled (B, E) or None."""
        ids, mask = self.tokenize(prompts)
        device = next(self.model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        output = self.model(input_ids=ids, attention_mask=mask.long())
        return output.last_hidden_state, mask, getattr(output, "pooler_output", None)

    def too_long(self, prompts: Sequence[str]) -> list[int]:
        """Indices of the prompts with more tokens than max_length: the rest of those is not read."""
        rows = self.tokenizer(list(prompts), verbose=False)["input_ids"]
        return [index for index, row in enumerate(rows) if len(row) > self.max_length]

    def unknown_words(self, prompts: Sequence[str]) -> set[str]:
        """Words outside a closed vocabulary, lower-cased; punctuation does not count."""
        unknown_id = getattr(self.tokenizer, "unk_token_id", None)
        # CLIP's byte-level tokenizer names its end token as unknown token: nothing is ever unknown to it.
        if unknown_id is None or unknown_id == getattr(self.tokenizer, "eos_token_id", None):
            return set()
        encoded = self.tokenizer(list(prompts), verbose=False, return_offsets_mapping=True)
        rows = zip(prompts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        spans = (
            prompt[start:end].lower()
            for prompt, ids, offsets in rows
            for token, (start, end) in zip(ids, offsets, strict=True)
            if token == unknown_id
        )
        return {word for word in spans if re.search(r"\w", word)}


class TextEncoders:
    """CLIP, T5 or both, side by side: prompts in, PromptEmbeds out."""

    def __init__(self, clip: TextEncoder | None, t5: TextEncoder | None) -> None:
        if clip is None and t5 is None:
            raise ValueError("at least one text encoder is needed: clip, t5 or both")
        _refuse_fp16(t5)
        self.clip, self.t5 = clip, t5

    @classmethod
    def from_pretrained(
        cls,
        clip: str | Path | None,
        t5: str | Path | None,
        *,
        clip_max_length: int = CLIP_MAX_LENGTH,
        t5_max_length: int = T5_MAX_LENGTH,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> TextEncoders:
        """Load from hub ids or folders (tokenizer and weights in one folder).

        dtype: fp32 by default; bf16 is fine for both, fp16 is refused for T5, whose activations overflow it.
        Raises UserError when a folder or the hub has no such model, or the weights do not fit it.
        """
        prepare_torchvision()
        from transformers import CLIPTextModel, T5EncoderModel

        wanted = dtype or torch.float32
        if t5 is not None:
            _check_t5_dtype(wanted)
        towers: dict[str, TextEncoder | None] = {"clip": None, "t5": None}
        for name, source, model, limit in (
            ("clip", clip, CLIPTextModel, clip_max_length),
            ("t5", t5, T5EncoderModel, t5_max_length),
        ):
            if source is not None:
                towers[name] = _load(name, source, model, limit, torch.device(device), wanted)
        return cls(**towers)

    @property
    def max_length(self) -> int:
        """Tokens of the longest encoder input."""
        return max(tower.max_length for tower in (self.clip, self.t5) if tower is not None)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], *, batch_size: int | None = None) -> PromptEmbeds:
        """Encode B prompts; "" is the unconditional branch. L is always the encoder's max_length.

        batch_size: prompts per forward pass, None = all at once.
        """
        if not prompts:
            raise ValueError("no prompts to encode")
        size = batch_size or len(prompts)
        parts = [self._encode(prompts[start : start + size]) for start in range(0, len(prompts), size)]
        return PromptEmbeds.cat(parts)

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeds:
        embeds: dict[str, Tensor | None] = {}
        if self.clip is not None:
            tokens, mask, pooled = self.clip.encode(prompts)
            embeds |= {"clip_prompt_embeds": tokens, "clip_prompt_mask": mask, "pooled_prompt_embeds": pooled}
        if self.t5 is not None:
            tokens, mask, _ = self.t5.encode(prompts)
            embeds |= {"t5_prompt_embeds": tokens, "t5_prompt_mask": mask}
        return PromptEmbeds(**embeds)

    def remarks(self, prompts: Sequence[str]) -> list[str]:
        """What the encoders will not read of these prompts: a line per encoder, a line of unknown words."""
        towers = [tower for tower in (self.clip, self.t5) if tower is not None]
        lines = []
        for tower in towers:
            if long := tower.too_long(prompts):
                number = "1 prompt" if len(long) == 1 else f"{len(long)} prompts"
                first = prompts[long[0]]
                lines.append(
                    f"{tower.name} reads {tower.max_length} tokens: the end of {number} is cut off"
                    f" ('{first[:40]}...')"
                )
        if unknown := set[str]().union(*(tower.unknown_words(prompts) for tower in towers)):
            lines.append(f"words this model's text encoder does not know: {', '.join(sorted(unknown))}")
        return lines


def _check_t5_dtype(dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        raise ValueError("T5 must run in float32 or bfloat16, got float16: its activations overflow")


def _refuse_fp16(t5: TextEncoder | None) -> None:
    if t5 is not None:
        _check_t5_dtype(next(t5.model.parameters()).dtype)


def first_line(error: Exception) -> str:
    """The first line of a message of another library, or the error's kind where it has none; two lines if the
    first only announces the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line[:300].rstrip(" .,:")


def require_folder(source: str | Path, *, what: str) -> None:
    """A path that does not exist is said plainly, before a library takes it for a hub id."""
    is_path = isinstance(source, Path) or str(source).startswith(("/", ".", "~"))
    if is_path and not Path(source).is_dir():
        raise UserError(f"the {what} folder '{source}' does not exist")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without progress bars, and without what transformers and diffusers print about a bad folder or a hub
    out of reach: the error that they raise says it once."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()


def _load(
    name: str, source: str | Path, model_class: Any, limit: int, device: torch.device, dtype: torch.dtype
) -> TextEncoder:
    from transformers import AutoTokenizer

    require_folder(source, what=f"{name} text encoder")
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model, report = model_class.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except Exception as error:  # transformers raises many kinds for a bad folder; all mean "not loadable"
        raise UserError(
            f"cannot load the {name} text encoder from '{source}': {first_line(error)}; give a folder with"
            " its tokenizer and weights, or a hub id this machine can reach"
        ) from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise UserError(
            f"the {name} text encoder in '{source}' lacks {len(missing)} weights, first {missing[0]}"
        )
    return TextEncoder(name, tokenizer, model.eval().requires_grad_(False).to(device), limit)


def random_clip(
    width: int = 768, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """An untrained CLIP text tower with a HashTokenizer: CLIP-L (123M) at its width, else two layers."""
    prepare_torchvision()
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = dict(CLIP_L)
    if width != CLIP_L["hidden_size"]:
        sizes |= {"hidden_size": width, "projection_dim": width, "intermediate_size": 4 * width}
        sizes |= {"num_hidden_layers": 2, "num_attention_heads": 1}
    model: Any = CLIPTextModel(CLIPTextConfig(**sizes))
    model = model.to(device=device, dtype=dtype)
    tokenizer = HashTokenizer(
        sizes["vocab_size"], bos=sizes["bos_token_id"], eos=sizes["eos_token_id"], pad=sizes["pad_token_id"]
    )
    return TextEncoder("clip", tokenizer, model.eval().requires_grad_(False), CLIP_MAX_LENGTH)


def random_t5(
    width: int = 4096, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> TextEncoder:
    """An untrained T5 encoder with a HashTokenizer: Flan-T5-XXL (4.76B) at its width, else two layers.

    It is built without storage and filled in its final dtype: 9.5 GB in bf16 is also its peak.
    """
    prepare_torchvision()
    from transformers import T5Config, T5EncoderModel

    _check_t5_dtype(dtype)
    sizes = dict(T5_XXL)
    if width != T5_XXL["d_model"]:
        sizes |= {"d_model": width, "d_ff": 4 * width, "num_layers": 2, "num_heads": 2}
    with torch.device("meta"):
        model: Any = T5EncoderModel(T5Config(**sizes))
    assert not list(model.buffers()), "a buffer would be left unset by to_empty"
    model = model.to(dtype).to_empty(device=device)
    _fill_t5(model)
    tokenizer = HashTokenizer(sizes["vocab_size"], eos=sizes["eos_token_id"], pad=sizes["pad_token_id"])
    return TextEncoder("t5", tokenizer, model.eval().requires_grad_(False), T5_MAX_LENGTH)


@torch.no_grad()
def _fill_t5(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
