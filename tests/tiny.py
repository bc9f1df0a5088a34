"""A complete GenTron checkpoint of random weights that fits in a test: the real classes at tiny sizes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gentron.checkpoint import CheckpointConfig, DiffusionConfig, SamplingConfig, TextConfig, save_checkpoint
from gentron.model import GenTron, GenTronConfig, TemporalConfig
from gentron.shapes.vocabulary import build_tokenizer, words

WIDTH = 32
MAX_LENGTH = 16
IMAGE_SIZE = 32

TINY_MODEL = GenTronConfig(
    hidden_size=32,
    depth=2,
    num_heads=2,
    patch_size=2,
    sample_size=8,
    in_channels=4,
    clip_width=WIDTH,
    t5_width=WIDTH,
    pooled_width=WIDTH,
)
TINY_VIDEO_MODEL = replace(TINY_MODEL, temporal=TemporalConfig(num_frames=4, fps=4.0, null_key=True))


def _save_quietly(part: Any, folder: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    part.save_pretrained(folder)


def make_text_encoders(folder: Path) -> None:
    """folder/clip and folder/t5: two-layer encoders with the shapes world's own tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    vocabulary = words()
    ids = {name: vocabulary.index(word) for name, word in (("pad", "<pad>"), ("bos", "<s>"), ("eos", "</s>"))}
    clip = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=64,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=ids["pad"],
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
    )
    t5 = T5Config(
        vocab_size=len(vocabulary),
        d_model=WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        pad_token_id=ids["pad"],
        eos_token_id=ids["eos"],
    )
    for name, model in (("clip", CLIPTextModel(clip)), ("t5", T5EncoderModel(t5))):
        _save_quietly(model, folder / name)
        build_tokenizer(begin=name == "clip", max_length=MAX_LENGTH).save_pretrained(folder / name)


def make_autoencoder(folder: Path) -> None:
    """folder/autoencoder: AutoencoderKL, 4 x downscaling, 4 channels, with a scale per channel."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    sizes: dict[str, Any] = {
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "latents_mean": (0.1, -0.2, 0.0, 0.3),
        "latents_std": (1.0, 0.5, 2.0, 1.5),
        "sample_size": IMAGE_SIZE,
    }
    _save_quietly(AutoencoderKL(**sizes), folder / "autoencoder")


def make_model(config: GenTronConfig = TINY_MODEL) -> GenTron:
    """An untrained model without the zeros of its init, so that prompt and latents change its output."""
    model = GenTron(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def make_tiny_checkpoint(folder: Path, model: GenTronConfig = TINY_MODEL) -> Path:
    """A checkpoint folder at `folder`, the same on every call; returns it."""
    clips = {} if model.temporal is None else {"num_frames": 4, "fps": 4.0, "motion_guidance_scale": 1.2}
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(0)
        make_text_encoders(Path(scratch))
        make_autoencoder(Path(scratch))
        config = CheckpointConfig(
            model=model,
            diffusion=DiffusionConfig(),
            autoencoder="autoencoder",
            text=TextConfig(clip="clip", t5="t5", clip_max_length=MAX_LENGTH, t5_max_length=MAX_LENGTH),
            sampling=SamplingConfig(
                image_size=IMAGE_SIZE,
                sampler="dpmpp_2m",
                num_inference_steps=4,
                guidance_scale=3.0,
                **clips,
            ),
            training={"made_by": "tests/tiny.py", "data": "shapes (none of them seen)"},
        )
        parts = {name: Path(scratch) / name for name in ("autoencoder", "clip", "t5")}
        return save_checkpoint(folder, config, make_model(model).state_dict(), parts=parts)
