"""TrainRecipe: everything that decides what a training run computes (where it runs is a matter of flags)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gentron.model import GenTronConfig
from gentron.samplers import SAMPLERS
from gentron.shapes.motion import DEFAULT_MOTION_MIXTURE, MotionMixture
from gentron.shapes.scene import DEFAULT_MIXTURE, SceneMixture


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoRecipe:
    """What a text-to-video run has beside a text-to-image one.

    A step takes clips, or with probability p_motion_free, keyed on its number, pictures in motion-free mode.
    """

    p_motion_free: float
    joint: bool = True
    """Motion-free steps take pictures with captions; without, clips under the identity mask."""
    joint_batch_size: int
    """Pictures of a motion-free step."""
    joint_repeats: int = 1
    """Times a picture is repeated as frames of its own noise. The paper repeats it num_frames times; frames
    in motion-free mode are independent, so 1 and more pictures have the same expected gradient and cost."""
    joint_off_grid: float = 0.0
    """Share of the built-in world's pictures that are shifted off the latent grid, as frames of clips are."""

    logit_normal_mean: float = 0.0
    logit_normal_std: float = 0.7
    uniform_share: float = 0.25
    """Timesteps of clips under timestep_sampling logit_normal_mix; those of pictures are the recipe's own."""
    first_frame_share: float = 0.0
    """Share of the clips whose first frame is clean or cleaner than the rest, and its value at the end of
    training (linear between; None: the same)."""
    first_frame_share_end: float | None = None
    clean_first_frame: float = 0.4
    """Of these, the share whose first frame has timestep 0 and no loss; the rest have u * t, u uniform."""

    short_clips_until: int = 0
    """Steps that begin before this sample take the first `short_clip_frames` frames of their clips, and every
    first frame of `first_frame_share` is clean: with less to work out, the text reaches the motion sooner."""
    short_clip_frames: int = 4

    temporal_learning_rate: float
    """Of the temporal weights; the recipe's learning_rate is that of all others."""
    temporal_only: bool = False
    """Train the temporal weights alone."""

    pool_size: int = 2_500
    """Clips of the built-in world that are drawn and encoded once; a folder has its own size."""
    mixture: MotionMixture = DEFAULT_MOTION_MIXTURE
    """Which kinds of clips the built-in world draws."""
    motion_guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("joint_batch_size", "joint_repeats", "pool_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in (
            "p_motion_free", "joint_off_grid", "uniform_share", "first_frame_share",
            "first_frame_share_end", "clean_first_frame",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if not self.temporal_learning_rate > 0:
            raise ValueError(f"temporal_learning_rate must be > 0, got {self.temporal_learning_rate}")
        if self.short_clips_until < 0 or self.short_clip_frames < 2:
            raise ValueError(
                "short_clips_until must be >= 0 and short_clip_frames >= 2, "
                f"got {self.short_clips_until} and {self.short_clip_frames}"
            )
        if not (math.isfinite(self.motion_guidance_scale) and self.motion_guidance_scale >= 0):
            raise ValueError(
                f"motion_guidance_scale must be a finite number >= 0, got {self.motion_guidance_scale}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecipe:
    """Lengths and intervals are counted in samples seen, so they survive a change of batch size.

    A sample is an image. In a text-to-video run (`video` is set) it is a clip, or the pictures that a
    motion-free step takes in its place.
    """

    model: GenTronConfig
    image_size: int
    autoencoder: str
    """Hub id or folder; "bundled" is the one inside the built-in mini checkpoint."""
    clip: str | None
    t5: str | None
    clip_max_length: int = 77
    t5_max_length: int = 120

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    zero_terminal_snr: bool = False
    timestep_sampling: Literal["uniform", "logit_normal_mix"] = "uniform"
    """logit_normal_mix: sigmoid(mean + std * N(0, 1)), and uniform for a share of the samples."""
    logit_normal_mean: float = 0.0
    logit_normal_std: float = 0.7
    uniform_share: float = 0.25
    loss_weighting: Literal["none", "min_snr"] = "none"
    min_snr_gamma: float = 5.0
    inverse_alpha_bar_cap: float | None = None
    """Epsilon only: weight times min(1 / alpha_bar, cap), the emphasis on high noise of the mini model."""

    global_batch_size: int
    micro_batch_size: int | None = None
    """Samples per forward pass; None is the whole batch. It changes rounding, not the data."""
    total_images: int
    learning_rate: float = 1e-4
    lr_schedule: Literal["constant", "cosine", "late_decay"] = "constant"
    """late_decay: constant, then down to zero in a straight line over the last third."""
    warmup_images: int = 0
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float | None = 0.9999
    """Per step. None: use ema_halflife_images."""
    ema_halflife_images: int | None = None
    caption_dropout: float = 0.1
    precision: Literal["bf16", "fp32"] = "bf16"

    pool_size: int = 100_000
    """Scenes of the built-in world that are drawn and encoded once; a folder has its own size."""
    scenes: SceneMixture = DEFAULT_MIXTURE
    """Which kinds of scenes the built-in world draws."""
    video: VideoRecipe | None = None
    validation_size: int = 128

    log_every: int
    validate_every: int
    sample_every: int
    checkpoint_every: int
    sample_prompts: tuple[str, ...] = ()
    sampler: str = "dpmpp_2m"
    num_inference_steps: int = 20
    guidance_scale: float = 4.0

    def __post_init__(self) -> None:
        for name in (
            "global_batch_size", "total_images", "image_size", "pool_size", "validation_size",
            "log_every", "validate_every", "sample_every", "checkpoint_every",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        micro = self.micro_batch_size
        if micro is not None and (micro < 1 or self.global_batch_size % micro):
            raise ValueError(
                f"micro_batch_size must divide global_batch_size {self.global_batch_size}, got {micro}"
            )
        if not self.learning_rate > 0 or not self.grad_clip > 0:
            raise ValueError(
                f"learning_rate and grad_clip must be > 0, got {self.learning_rate} and {self.grad_clip}"
            )
        for name in ("caption_dropout", "uniform_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}; known: {', '.join(SAMPLERS)}")
        if self.warmup_images < 0 or self.weight_decay < 0:
            raise ValueError("warmup_images and weight_decay must be >= 0")
        if (self.ema_decay is None) == (self.ema_halflife_images is None):
            raise ValueError("give exactly one of ema_decay and ema_halflife_images")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.video is not None:
            self._check_video(self.video)
        if self.inverse_alpha_bar_cap is not None and self.prediction_type != "epsilon":
            raise ValueError("inverse_alpha_bar_cap is a weight of the epsilon loss")
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError("zero_terminal_snr needs prediction_type v_prediction")

    def _check_video(self, video: VideoRecipe) -> None:
        if self.model.temporal is None:
            raise ValueError("video needs a model with temporal attention: model.temporal is None")
        if video.joint_batch_size % self.global_batch_size:
            raise ValueError(
                f"video.joint_batch_size must be a multiple of global_batch_size {self.global_batch_size}, "
                f"got {video.joint_batch_size}"
            )

    @property
    def micro_batch(self) -> int:
        return self.micro_batch_size or self.global_batch_size

    @property
    def ema_decay_per_step(self) -> float:
        if self.ema_decay is not None:
            return self.ema_decay
        assert self.ema_halflife_images is not None
        return 0.5 ** (self.global_batch_size / self.ema_halflife_images)
