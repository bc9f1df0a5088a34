"""Train the mini text encoders: a T5 on caption -> canonical scene, a CLIP on caption <-> picture.

The T5's decoder has a single layer and its target names the left (upper, inner) object first whatever the
caption's order, so the encoder itself must bind attributes to objects and work out who stands where.
"""

# B batch, L prompt tokens, E text width

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gentron.atomic import atomic_folder
from gentron.pixels import to_unit_range
from gentron.shapes import Description, describe, phrase, render, sample_scene, scene_rng
from gentron.shapes.captions import ObjectDescription
from gentron.shapes.scene import CANVAS, CELL, SPATIAL
from gentron.shapes.vocabulary import build_tokenizer, words
from gentron.text import quiet_loading
from gentron.torchvision_ops import prepare_torchvision
from gentron.train.run_folder import start_run
from gentron.train.steps import StepState, training_steps

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerFast, T5ForConditionalGeneration

MAX_LENGTH = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRecipe:
    """Both encoders have the same width; steps were set by the minutes they take on one CPU core."""

    width: int = 128
    num_layers: int = 3
    num_heads: int = 4
    mlp_width: int = 384
    t5_steps: int = 2_500
    t5_batch_size: int = 64
    t5_learning_rate: float = 2e-3
    clip_steps: int = 1_200
    clip_batch_size: int = 96
    clip_learning_rate: float = 1e-3
    warmup_steps: int = 100
    seed: int = 0


# ---- T5 ----------------------------------------------------------------------------------------------------


def build_t5(recipe: TextRecipe) -> T5ForConditionalGeneration:
    """T5 v1.1 layout (gated GELU) with a one-layer decoder, which only training needs."""
    prepare_torchvision()
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(recipe.seed)
    vocabulary = words()
    # not in the signature; the first leaves the decoder's output unscaled, as v1.1 does
    options: dict[str, Any] = {
        "tie_word_embeddings": False,
        "decoder_start_token_id": vocabulary.index("<s>"),
    }
    config = T5Config(
        **options,
        vocab_size=len(vocabulary),
        d_model=recipe.width,
        d_kv=recipe.width // recipe.num_heads,
        d_ff=recipe.mlp_width,
        num_layers=recipe.num_layers,
        num_decoder_layers=1,
        num_heads=recipe.num_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=vocabulary.index("<pad>"),
        eos_token_id=vocabulary.index("</s>"),
    )
    model = T5ForConditionalGeneration(config)
    # T5 starts these at 0.09, and Adam moves them by one learning rate a step: without strong positions from
    # the start the encoder stays a bag of words for thousands of steps
    for name, parameter in model.named_parameters():
        if "relative_attention_bias" in name:
            nn.init.normal_(parameter, std=2.0)
    return model


def canonical(description: Description) -> str:
    """The claim in one fixed wording: size texture colour shape of each object in the caption's order, except
    that of two objects side by side the left one comes first, and of two in a column the upper one."""
    parts = [
        " ".join(value or "any" for value in (o.size, o.texture, o.color, o.shape))
        for o in description.objects
    ]
    relation, rest = description.relation, parts[2:]
    if relation is None:
        return " ; ".join(parts)
    head = parts[:2]
    if relation in ("right of", "below"):
        head.reverse()
    if relation in SPATIAL:
        relation = "beside" if relation in ("left of", "right of") else "over"
    return " ; ".join([f"{head[0]} {relation} {head[1]}", *rest])


def t5_loss(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, step: int, recipe: TextRecipe
) -> dict[str, Tensor]:
    """Cross-entropy of the canonical wording given the caption."""
    captions, targets = [], []
    for i in range(recipe.t5_batch_size):
        rng = scene_rng(recipe.seed + 10, step * 4096 + i)
        description = describe(sample_scene(rng), rng)
        captions.append(phrase(description, rng))
        targets.append(canonical(description))
    source = tokenizer(captions, padding=True, return_tensors="pt")
    target = tokenizer(targets, padding=True, return_tensors="pt")
    labels = target.input_ids.masked_fill(target.attention_mask == 0, -100)
    output = model(input_ids=source.input_ids, attention_mask=source.attention_mask, labels=labels)
    hit = (output.logits.argmax(-1) == labels) | (labels == -100)
    return {"loss": output.loss, "exact": hit.all(1).float().mean()}


# ---- CLIP --------------------------------------------------------------------------------------------------


def build_clip(recipe: TextRecipe) -> CLIPModel:
    """A CLIP whose picture tower is a small ViT with one token a cell of the world."""
    prepare_torchvision()
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(recipe.seed)
    vocabulary = words()
    shared: dict[str, Any] = {
        "hidden_size": recipe.width,
        "intermediate_size": recipe.mlp_width,
        "num_hidden_layers": recipe.num_layers,
        "num_attention_heads": recipe.num_heads,
    }
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=vocabulary.index("<pad>"),
        bos_token_id=vocabulary.index("<s>"),
        eos_token_id=vocabulary.index("</s>"),
        **shared,
    )
    vision = CLIPVisionConfig(image_size=CANVAS, patch_size=CELL, **shared)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=recipe.width
    )
    model = CLIPModel(config)
    # words and positions start equally strong, or colours swap between objects for long (mini model facts)
    embeddings = model.text_model.embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.3)
    return model


def hard_negative(description: Description, rng: np.random.Generator) -> Description:
    """The same words bound otherwise: an attribute changes owner, or the relation turns round."""
    objects = list(description.objects)
    if len(objects) == 1:
        return Description((replace(objects[0], color="red" if objects[0].color != "red" else "blue"),))
    if description.relation in SPATIAL and rng.random() < 0.5:
        return Description((objects[1], objects[0], *objects[2:]), description.relation)
    name = ("color", "shape", "texture")[int(rng.integers(3))]
    a, b = objects[0], objects[1]
    if getattr(a, name) == getattr(b, name):
        name = "color"
    objects[0] = _with(a, name, getattr(b, name))
    objects[1] = _with(b, name, getattr(a, name))
    return Description(tuple(objects), description.relation)


def _with(thing: ObjectDescription, name: str, value: str | None) -> ObjectDescription:
    return replace(thing, **{name: value})


def clip_loss(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, step: int, recipe: TextRecipe
) -> dict[str, Tensor]:
    """The symmetric contrastive loss of CLIP; pictures also see a wrongly bound caption for each pair."""
    pictures, captions, wrong = [], [], []
    for i in range(recipe.clip_batch_size):
        rng = scene_rng(recipe.seed + 20, step * 4096 + i)
        scene = sample_scene(rng)
        description = describe(scene, rng)
        pictures.append(render(scene))
        captions.append(phrase(description, rng))
        wrong.append(phrase(hard_negative(description, rng), rng))
    tokens = tokenizer(captions + wrong, padding=True, return_tensors="pt")
    pixels = to_unit_range(np.stack(pictures))
    text = model.text_projection(model.text_model(**tokens).pooler_output)
    image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    logits = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T * model.logit_scale.exp().clamp(max=100)
    answer = torch.arange(len(pixels))
    square = logits[:, : len(pixels)]
    loss = 0.5 * (F.cross_entropy(logits, answer) + F.cross_entropy(square.T, answer))
    right = logits.diagonal() > logits.diagonal(len(pixels))
    return {
        "loss": loss,
        "top1": (logits.argmax(1) == answer).float().mean(),
        "binding": right.float().mean(),
    }


# ---- the command -------------------------------------------------------------------------------------------


def _fit(
    model: nn.Module, step_loss: Callable[[int], dict[str, Tensor]], out: Path, steps: int, rate: float,
    batch_size: int, recipe: TextRecipe, title: str, resume: bool,
) -> None:  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.98))
    state = StepState(out, model, optimizer, config=asdict(recipe), resume=resume)
    model.train()
    for step in training_steps(
        state, total_steps=steps, warmup_steps=recipe.warmup_steps, learning_rate=rate, title=title
    ):
        state.update(step_loss(step), batch_size=batch_size)


def train(out: Path, *, recipe: TextRecipe | None = None, resume: bool = True) -> Path:
    """Train both and write `out/t5` (encoder) and `out/clip` (text tower) in transformers' format."""
    recipe = recipe or TextRecipe()
    start_run(out, asdict(recipe), resume=resume)
    train_t5(out, recipe, resume)
    train_clip(out, recipe, resume)
    return out


def _export(encoder: Any, out: Path, *, begin: bool) -> None:
    """The tokenizer is a fresh one: a used one would be stored with the padding of its last call."""
    tokenizer = build_tokenizer(begin=begin, max_length=MAX_LENGTH)
    with atomic_folder(out) as folder, quiet_loading():
        encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train_t5(out: Path, recipe: TextRecipe, resume: bool) -> None:
    model, tokenizer = build_t5(recipe), build_tokenizer(begin=False, max_length=MAX_LENGTH)
    _fit(
        model, lambda step: t5_loss(model, tokenizer, step, recipe), out / "t5_run", recipe.t5_steps,
        recipe.t5_learning_rate, recipe.t5_batch_size, recipe, "t5", resume,
    )  # fmt: skip
    from transformers import T5EncoderModel

    encoder = T5EncoderModel(model.config)
    encoder.load_state_dict(model.state_dict(), strict=False)
    _export(encoder, out / "t5", begin=False)


def train_clip(out: Path, recipe: TextRecipe, resume: bool) -> None:
    model, tokenizer = build_clip(recipe), build_tokenizer(begin=True, max_length=MAX_LENGTH)
    _fit(
        model, lambda step: clip_loss(model, tokenizer, step, recipe), out / "clip_run", recipe.clip_steps,
        recipe.clip_learning_rate, recipe.clip_batch_size, recipe, "clip", resume,
    )  # fmt: skip
    from transformers import CLIPTextModel

    text_config: Any = model.config.text_config
    tower = CLIPTextModel(text_config)
    tower.load_state_dict(model.text_model.state_dict(), strict=False)
    _export(tower, out / "clip", begin=True)
