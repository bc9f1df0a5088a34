"""Training recipes: the mini model, and the paper's stages for XL/2 and G/2.

"P" marks what the paper states (arXiv 2312.04557), "ours" what it leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gentron import presets
from gentron.shapes.scene import SceneMixture
from gentron.train.recipe import TrainRecipe, VideoRecipe

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


MOTION_PROMPTS = (
    "a red circle moving left",
    "a blue square moving right",
    "a green star moving up",
    "a purple heart moving down",
    "a yellow triangle moving left next to a blue ring",
    "a pink cross and a green square moving right",
    "an orange diamond moving up beside a red circle",
    "a cyan circle standing still",
)


def mini_t2v() -> TrainRecipe:
    """The built-in model's clips, from the weights of mini: on one CPU thread, all weights trained.

    A cleaner first frame in a share of the clips is what makes it work: without it the direction of motion
    stayed at chance in trials, as direction and frame number say nothing of a noisy frame apart.
    """
    return replace(
        mini(),
        model=presets.mini_t2v(),
        precision="bf16",
        global_batch_size=16,
        total_images=132_000,
        learning_rate=3e-4,
        lr_schedule="late_decay",
        warmup_images=3_200,
        ema_decay=0.999,
        pool_size=20_000,
        scenes=mini_stage3().scenes,
        video=VideoRecipe(
            p_motion_free=0.3,
            joint_batch_size=64,
            joint_off_grid=0.3,
            # 55 % as the image model but noisier, 45 % uniform: low noise draws the frames between the cells
            logit_normal_mean=0.8,
            logit_normal_std=0.9,
            uniform_share=0.45,
            first_frame_share=0.5,
            first_frame_share_end=0.25,
            clean_first_frame=0.4,
            short_clips_until=24_000,
            temporal_learning_rate=1e-3,
            pool_size=4_000,
        ),
        validation_size=64,
        log_every=800,
        validate_every=8_000,
        sample_every=8_000,
        checkpoint_every=4_000,
        sample_prompts=MOTION_PROMPTS,
    )


def xl2_256() -> TrainRecipe:
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


def xl2_512() -> TrainRecipe:
    """XL/2 at 512 px, from the weights of stage 1: 300K steps of 784 images (P)."""
    return replace(
        xl2_256(),
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


def xl2_t2v() -> TrainRecipe:
    """XL/2's clips, from the weights of xl2_512: 128 clips of 8 frames at 4 fps, joint with pictures (P)."""
    return replace(
        xl2_512(),  # short side 512 (P), AdamW at a constant 1e-4 (P)
        model=presets.xl2_t2v(),  # P
        global_batch_size=128,  # P
        micro_batch_size=1,  # ours
        total_images=128 * 100_000,  # ours, as all below; the paper gives no length
        warmup_images=128 * 1_000,
        video=VideoRecipe(
            p_motion_free=0.1,  # ours; "a certain probability" in the paper
            joint_batch_size=128,
            joint_repeats=8,  # P: a picture is repeated as all frames of a clip
            temporal_learning_rate=1e-4,  # P: one rate
            motion_guidance_scale=1.1,  # P: 1.0 to 1.3
        ),
        log_every=128 * 50,
        validate_every=128 * 5_000,
        sample_every=128 * 5_000,
        checkpoint_every=128 * 2_500,
    )


def g2_256() -> TrainRecipe:
    """G/2 at 256 px, as XL/2 (P)."""
    return replace(xl2_256(), model=presets.g_2(), micro_batch_size=8)


def g2_512() -> TrainRecipe:
    """G/2 at 512 px, as XL/2 (P)."""
    return replace(xl2_512(), model=presets.g_2(), micro_batch_size=2)


def g2_t2v() -> TrainRecipe:
    """G/2's clips, as XL/2 (P)."""
    return replace(xl2_t2v(), model=presets.g2_t2v())


RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    "mini": mini,
    "mini_stage2": mini_stage2,
    "mini_stage3": mini_stage3,
    "mini_t2v": mini_t2v,
    "xl2_256": xl2_256,
    "xl2_512": xl2_512,
    "xl2_t2v": xl2_t2v,
    "g2_256": g2_256,
    "g2_512": g2_512,
    "g2_t2v": g2_t2v,
}

ALIASES = {"xl2_stage1": "xl2_256", "xl2_stage2": "xl2_512", "g2_stage1": "g2_256", "g2_stage2": "g2_512"}
"""Older names, still understood."""
