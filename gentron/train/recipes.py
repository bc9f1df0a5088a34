"""Training recipes: the mini model, and the paper's two stages for XL/2 and G/2.

"P" marks what the paper states (arXiv 2312.04557), "ours" what it leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gentron import presets
from gentron.shapes.scene import SceneMixture
from gentron.train.recipe import TrainRecipe

SAMPLE_PROMPTS = (
    "a red circle",
    "a blue square and a yellow star",
    "a green heart to the left of a purple ring",
    "a pink cross above an orange diamond",
    "a striped cyan square",
    "a dotted red triangle and a blue circle",
    "a yellow star inside a large purple circle",
    "a red square, a green circle and a blue heart",
)


def mini() -> TrainRecipe:
    """The built-in model, on one CPU thread."""
    return TrainRecipe(
        model=presets.mini(),
        image_size=64,
        autoencoder="bundled",
        clip="bundled",
        t5="bundled",
        clip_max_length=40,
        t5_max_length=40,
        # v at equal weight looks at the high noise where the layout is decided; epsilon hardly does
        prediction_type="v_prediction",
        timestep_sampling="logit_normal_mix",
        logit_normal_mean=0.25,
        logit_normal_std=0.8,
        uniform_share=0.2,
        global_batch_size=64,
        total_images=400_000,
        learning_rate=8e-4,
        lr_schedule="cosine",
        warmup_images=12_800,
        ema_decay=0.998,
        precision="fp32",  # on one CPU thread 109 images/s, bf16 autocast 74
        pool_size=40_000,
        validation_size=128,
        log_every=6_400,
        validate_every=32_000,
        sample_every=32_000,
        checkpoint_every=16_000,
        sample_prompts=SAMPLE_PROMPTS,
        guidance_scale=2.0,  # of 1.5, 2 and 3 the best on prompts that are not the benchmark's
    )


def mini_stage2() -> TrainRecipe:
    """The built-in model, from the weights of `mini`: fresh pictures (another seed), half the batch."""
    return replace(
        mini(),
        global_batch_size=32,
        total_images=250_000,
        learning_rate=5e-4,
        warmup_images=6_400,
        ema_decay=0.999,
    )


def mini_stage3() -> TrainRecipe:
    """The built-in model, from the weights of `mini_stage2`: more interactions, whose large objects span
    several tokens and are learned last; bf16, which is the faster one where the processor has it."""
    return replace(
        mini_stage2(),
        precision="bf16",  # on an AMD EPYC with AVX512-BF16 2.4 times the images/s of fp32
        total_images=200_000,
        learning_rate=6e-4,
        pool_size=60_000,
        scenes=SceneMixture(kinds=(0.08, 0.15, 0.20, 0.43, 0.14), interactions=(0.2, 0.4, 0.4)),
    )


def xl2_stage1() -> TrainRecipe:
    """XL/2 at 256 px: 500K steps of 2048 images (P), AdamW at a constant 1e-4 (P)."""
    return TrainRecipe(
        model=presets.xl_2(),
        image_size=256,  # P
        autoencoder="stabilityai/sd-vae-ft-mse",  # ours; the paper names the latent's shape only
        clip="openai/clip-vit-large-patch14",  # P: CLIP-L
        t5="google/flan-t5-xxl",  # P
        global_batch_size=2048,  # P
        micro_batch_size=32,  # ours
        total_images=2048 * 500_000,  # P
        learning_rate=1e-4,  # P
        warmup_images=2048 * 1_000,  # ours
        ema_decay=0.9999,  # ours, as DiT
        caption_dropout=0.1,  # ours; the paper gives no value
        validation_size=1024,  # ours, as everything below
        log_every=2048 * 50,
        validate_every=2048 * 5_000,
        sample_every=2048 * 5_000,
        checkpoint_every=2048 * 5_000,
        sampler="ddim",
        num_inference_steps=50,
        guidance_scale=7.5,
    )


def xl2_stage2() -> TrainRecipe:
    """XL/2 at 512 px, from the weights of stage 1: 300K steps of 784 images (P)."""
    return replace(
        xl2_stage1(),
        image_size=512,  # P
        global_batch_size=784,  # P
        micro_batch_size=8,  # ours
        total_images=784 * 300_000,  # P
        warmup_images=784 * 1_000,  # ours
        log_every=784 * 50,
        validate_every=784 * 5_000,
        sample_every=784 * 5_000,
        checkpoint_every=784 * 5_000,
    )


def g2_stage1() -> TrainRecipe:
    """G/2 at 256 px, as XL/2 (P)."""
    return replace(xl2_stage1(), model=presets.g_2(), micro_batch_size=8)


def g2_stage2() -> TrainRecipe:
    """G/2 at 512 px, as XL/2 (P)."""
    return replace(xl2_stage2(), model=presets.g_2(), micro_batch_size=2)


RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    "mini": mini,
    "mini_stage2": mini_stage2,
    "mini_stage3": mini_stage3,
    "xl2_stage1": xl2_stage1,
    "xl2_stage2": xl2_stage2,
    "g2_stage1": g2_stage1,
    "g2_stage2": g2_stage2,
}
