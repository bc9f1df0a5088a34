"""Prompts and seeds -> pictures or clips: here text, guidance, sampler and autoencoder are put together.

Sample k is the same to the last bit whatever else is in the call. Matrix products of another number of rows
may round differently, so every forward pass holds the same number of samples: a short one is filled up.
"""

# B samples of one pass, F frames of a clip, C latent channels, H W latent size, N image tokens,
# K branches of guidance, S num_inference_steps

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gentron.autoencoder import Autoencoder, random_autoencoder
from gentron.bundled import BUNDLED_MODELS
from gentron.checkpoint import (
    CheckpointConfig,
    DiffusionConfig,
    SamplingConfig,
    TextConfig,
    find_checkpoint,
    load_model,
    read_config,
    resolve_part,
)
from gentron.device import usable_device
from gentron.diffusion import Denoiser, check_num_inference_steps, inference_timesteps
from gentron.errors import UserError
from gentron.guidance import (
    MakeMotionDenoiser,
    classifier_free,
    classifier_free_branches,
    motion_free_branches,
    motion_free_guidance,
)
from gentron.media import Sample
from gentron.model import GenTron, GenTronConfig
from gentron.pixels import to_uint8, to_unit_range
from gentron.presets import PRESETS
from gentron.request import (
    Request,
    check_count,
    check_prompts,
    check_scales,
    check_seeds,
    resolve_motion,
)
from gentron.samplers import SAMPLERS
from gentron.text import PromptEmbeds, TextEncoders, random_clip, random_t5

logger = logging.getLogger(__name__)

MAX_SIDE = 4096
"""Pixels; 65536 tokens at f = 8 and patch 2. A larger number is a slip that would take all memory."""
CPU_ROWS_PER_PASS = 128
"""Tokens in a CPU pass, and at least one picture or clip. Larger passes were no faster for mini (14.2 ms an
image at 64, 13.9 ms at 8 images), smaller ones were slower (36 ms at 1)."""
GPU_SAMPLES_PER_PASS = 16
GPU_PROMPTS_PER_PASS = 32
LARGE_T5_WIDTH = 2048
"""From here on (T5-XL, XXL: 2.4 GB and 9.5 GB in bf16) text encoders and denoiser are not held together."""

MINI_DOWNSCALE = 4

Progress = Callable[[float], None]
"""Samples done so far, those under way as fractions -> None."""


P = ParamSpec("P")
T = TypeVar("T")


def _listed(stream: Callable[P, Iterator[T]]) -> Callable[P, list[T]]:
    """The whole of a stream as a list: the same arguments, stated once."""

    @wraps(stream)
    def listed(*args: P.args, **kwargs: P.kwargs) -> list[T]:
        return list(stream(*args, **kwargs))

    return listed


class GenTronPipeline:
    """A text-to-image or text-to-video system: text encoders, GenTron, sampler settings and autoencoder.

    sequential: the text encoders are loaded for the prompts of a call and freed before the denoiser is
    loaded; `prepare` encodes the prompts of many calls at once.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        autoencoder: Autoencoder,
        *,
        load_text_encoders: Callable[[], TextEncoders],
        load_model: Callable[[], GenTron],
        device: torch.device,
        sequential: bool,
    ) -> None:
        if autoencoder.latent_channels != config.model.in_channels:
            raise UserError(
                f"the autoencoder does not fit the model: its latents must have {config.model.in_channels}"
                f" channels, got {autoencoder.latent_channels}"
            )
        self.config = config
        self.device = device
        self.sequential = sequential
        self.autoencoder = autoencoder
        self._load_text_encoders, self._load_model = load_text_encoders, load_model
        self._text_encoders = None if sequential else self._load_fitting_text_encoders()
        self._model = None if sequential else load_model()
        self._prepared: dict[str, PromptEmbeds] = {}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        sequential: bool | None = None,
    ) -> GenTronPipeline:
        """Load a checkpoint folder.

        dtype: of the denoiser; None is float32 for a small model on a CPU and bfloat16 otherwise. The text
        encoders never run in float16, the autoencoder always in float32.
        sequential: None decides by the width of T5. Raises UserError for a damaged or incomplete folder.
        """
        folder, device = Path(folder), usable_device(device)
        config = read_config(folder)
        dtype, sequential = _defaults(config.model, device, dtype, sequential)
        text, text_dtype = config.text, _text_dtype(dtype)

        def load_text_encoders() -> TextEncoders:
            return TextEncoders.from_pretrained(
                resolve_part(folder, text.clip) if text.clip is not None else None,
                resolve_part(folder, text.t5) if text.t5 is not None else None,
                clip_max_length=text.clip_max_length,
                t5_max_length=text.t5_max_length,
                device=device,
                dtype=text_dtype,
            )

        return cls(
            config,
            Autoencoder.from_pretrained(resolve_part(folder, config.autoencoder), device=device),
            load_text_encoders=load_text_encoders,
            load_model=lambda: load_model(folder, config.model, device=device, dtype=dtype),
            device=device,
            sequential=sequential,
        )

    @classmethod
    def random_init(
        cls,
        model: GenTronConfig,
        *,
        downscale: int = 8,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        sequential: bool | None = None,
        seed: int = 0,
    ) -> GenTronPipeline:
        """An untrained system of the right sizes, for smoke tests and speed; `is_untrained` says so.

        The text encoders are CLIP-L and Flan-T5-XXL where the widths are theirs, with a HashTokenizer. The
        denoiser starts as training starts it: its output is zero.
        """
        device = usable_device(device)
        dtype, sequential = _defaults(model, device, dtype, sequential)

        def load_text_encoders() -> TextEncoders:
            options = {"device": device, "dtype": _text_dtype(dtype)}
            with _seeded(seed, device):
                clip = random_clip(model.clip_width, **options) if model.clip_width else None
                t5 = random_t5(model.t5_width, **options) if model.t5_width else None
            return TextEncoders(clip, t5)

        def load_random_model() -> GenTron:
            with _seeded(seed, device):
                return random_model(model, device=device, dtype=dtype)

        with _seeded(seed, device):
            autoencoder = random_autoencoder(
                latent_channels=model.in_channels, downscale=downscale, device=device
            )
        return cls(
            untrained_config(model, image_size=model.sample_size * downscale),
            autoencoder,
            load_text_encoders=load_text_encoders,
            load_model=load_random_model,
            device=device,
            sequential=sequential,
        )

    @property
    def is_untrained(self) -> bool:
        """True for random weights: every result made with them must say so."""
        return self.config.training.get("untrained") is True

    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode prompts once for many calls ("" included); replaces what an earlier `prepare` kept."""
        check_prompts(prompts)
        self._prepared = {}
        self._prepared = self._encode(["", *prompts])

    def stream(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: Sequence[str] | None = None,
        guidance_scale: float | None = None,
        motion_guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        num_inference_steps: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        first_frames: Sequence[Image.Image] | None = None,
        batch_size: int | None = None,
        accelerate: bool = True,
        callback: Progress | None = None,
    ) -> Iterator[Sample]:
        """A picture or clip per prompt, in order, each as soon as its pass is done.

        None takes the checkpoint's own setting. The arguments are checked here, before any is asked for.
        seeds: one per prompt, the only source of its noise.   negative_prompts: default "", the unconditional
        branch.   guidance_interval: fractions of num_train_timesteps.   eta: ddim only.
        height, width: pixels, multiples of the autoencoder's downscale times the patch size.
        num_frames: 1 is a picture, also from a video model; up to 4 times the frames of its training.
        fps: how fast a clip is shown; the model was trained at its own rate.
        motion_guidance_scale: of a clip, lambda_M of `guidance.motion_free_guidance`.
        first_frames: pictures, one per prompt, that the clips begin with, cut to the size; a model can do
        this whose training had clips with a clean first frame (at timestep 0).
        batch_size: samples per forward pass on a GPU; a CPU has a fixed number, larger ones being no faster.
        With another batch_size the last bits may differ on a GPU; the companions of a sample never matter.
        Raises ValueError for bad settings and UserError for a prompt over 1000 characters.
        """
        defaults = self.config.sampling
        check_prompts(prompts)
        negatives = [""] * len(prompts) if negative_prompts is None else list(negative_prompts)
        check_count("negative_prompts", negatives, len(prompts))
        check_prompts(negatives)
        check_count("seeds", seeds, len(prompts))
        check_seeds(seeds)
        if first_frames is not None:
            check_count("first_frames", first_frames, len(prompts))
        latent_size = self._latent_size(height, width)
        motion = resolve_motion(
            self.config.model.temporal,
            defaults,
            num_frames=num_frames,
            fps=fps,
            motion_guidance_scale=motion_guidance_scale,
            first_frames=first_frames,
        )
        num_tokens = self._num_tokens(latent_size) * (motion.num_frames if motion else 1)
        request = Request(
            prompts=list(prompts),
            negative_prompts=negatives,
            seeds=list(seeds),
            guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
            guidance_interval=guidance_interval,
            num_inference_steps=(
                defaults.num_inference_steps if num_inference_steps is None else num_inference_steps
            ),
            sampler=defaults.sampler if sampler is None else sampler,
            eta=eta,
            latent_size=latent_size,
            motion=motion,
            samples_per_pass=samples_per_pass(self.device, num_tokens, batch_size),
            accelerate=accelerate,
        )
        check_scales(request.guidance_scale, motion, guidance_interval)
        check_num_inference_steps(self.config.diffusion.schedule, request.num_inference_steps)
        if request.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler '{request.sampler}'; known: {', '.join(SAMPLERS)}")
        return self._draw(request, callback)

    __call__ = _listed(stream)

    def _latent_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        downscale, multiple = self.autoencoder.downscale, self.autoencoder.downscale * self._patch_size
        default = self.config.sampling.image_size
        sizes = {
            "height": default if height is None else height,
            "width": default if width is None else width,
        }
        for name, size in sizes.items():
            if size < 1 or size % multiple or size > MAX_SIDE:
                raise ValueError(
                    f"{name} must be a positive multiple of {multiple} up to {MAX_SIDE}, got {size}"
                )
        return sizes["height"] // downscale, sizes["width"] // downscale

    @property
    def _patch_size(self) -> int:
        return self.config.model.patch_size

    def _num_tokens(self, latent_size: tuple[int, int]) -> int:
        return latent_size[0] * latent_size[1] // self._patch_size**2

    def _draw(self, request: Request, callback: Progress | None) -> Iterator[Sample]:
        negatives = request.negative_prompts if _reads_negatives(request) else []
        embeds = self._encode([*request.prompts, *negatives])
        model = self._denoiser_model()
        total, size = len(request.prompts), request.samples_per_pass
        for start in range(0, total, size):
            indices = [min(start + i, total - 1) for i in range(size)]  # the last one fills up a short pass
            count = min(size, total - start)
            step_done = _step_progress(callback, start, count, request.num_inference_steps)
            latents = self._sample(model, request, indices, embeds, step_done)
            yield from self._decode(latents, request, start, count)

    @torch.no_grad()
    def _sample(
        self,
        model: GenTron,
        request: Request,
        indices: list[int],
        embeds: dict[str, PromptEmbeds],
        step_done: Callable[[int, Tensor], None],
    ) -> Tensor:
        """Latents (B, C, H, W) of the pictures, or (B, F, C, H, W) of the clips, `indices`."""
        diffusion, motion = self.config.diffusion, request.motion
        shape = (self.config.model.in_channels, *request.latent_size)
        noise = KeyedNoise(
            [request.seeds[k] for k in indices], shape if motion is None else (motion.num_frames, *shape)
        )
        clean = None
        if motion is not None and motion.first_frames is not None:
            clean = self._encode_pictures([motion.first_frames[k] for k in indices], request.latent_size)
        latents = SAMPLERS[request.sampler](
            self._denoiser(model, request, indices, embeds, clean),
            noise.draw().to(self.device),
            diffusion.schedule,
            request.num_inference_steps,
            prediction_type=diffusion.prediction_type,
            eta=request.eta,
            step_noise=lambda step_index: noise.draw(),
            callback=step_done,
        )
        if clean is not None:
            latents[:, 0] = clean
        return latents

    def _denoiser(
        self,
        model: GenTron,
        request: Request,
        indices: list[int],
        embeds: dict[str, PromptEmbeds],
        clean: Tensor | None,
    ) -> Denoiser:
        """The guided denoiser of a pass. clean: latents (B, C, H, W) of first frames."""
        prompt_embeds = self._gather(embeds, [request.prompts[k] for k in indices])
        negative_prompt_embeds = prompt_embeds
        if _reads_negatives(request):
            negative_prompt_embeds = self._gather(embeds, [request.negative_prompts[k] for k in indices])
        make_denoiser = self._make_denoiser(model, request, clean)
        num_train_timesteps = self.config.diffusion.num_train_timesteps
        if request.motion is None:
            return classifier_free(
                make_denoiser,
                prompt_embeds,
                negative_prompt_embeds,
                guidance_scale=request.guidance_scale,
                guidance_interval=request.guidance_interval,
                num_train_timesteps=num_train_timesteps,
            )
        return motion_free_guidance(
            make_denoiser,
            prompt_embeds,
            negative_prompt_embeds,
            guidance_scale=request.guidance_scale,
            motion_guidance_scale=request.motion.motion_guidance_scale,
            guidance_interval=request.guidance_interval,
            num_train_timesteps=num_train_timesteps,
        )

    def _make_denoiser(self, model: GenTron, request: Request, clean: Tensor | None) -> MakeMotionDenoiser:
        steps = inference_timesteps(self.config.diffusion.schedule, request.num_inference_steps)
        if clean is not None:
            steps = torch.cat([steps, steps.new_zeros(1)])

        def make(
            prompt_embeds: PromptEmbeds,
            *,
            motion_free: Tensor | bool | None = None,
            rows: Sequence[int] | None = None,
        ) -> Denoiser:
            if request.accelerate:
                denoiser = model.conditioned(
                    prompt_embeds, timesteps=steps, motion_free=motion_free, rows=rows
                )
            else:
                denoiser = _unaccelerated(
                    model, prompt_embeds if rows is None else prompt_embeds[rows], motion_free
                )
            return denoiser if clean is None else hold_first_frame(denoiser, clean)

        return make

    @torch.no_grad()
    def _encode_pictures(self, pictures: Sequence[Image.Image], latent_size: tuple[int, int]) -> Tensor:
        """Latents (B, C, H, W) of pictures, cut and scaled to the size; one at a time, as in decoding."""
        height, width = (side * self.autoencoder.downscale for side in latent_size)
        latents = []
        for picture in pictures:
            fitted = ImageOps.fit(picture.convert("RGB"), (width, height), method=Image.Resampling.BICUBIC)
            pixels = to_unit_range(np.array(fitted)[None]).to(self.device)
            latents.append(self.autoencoder.encode(pixels))
        return torch.cat(latents).float()

    def _gather(self, embeds: dict[str, PromptEmbeds], prompts: list[str]) -> PromptEmbeds:
        return PromptEmbeds.cat([embeds[prompt] for prompt in prompts]).to(self.device)

    @torch.no_grad()
    def _decode(self, latents: Tensor, request: Request, start: int, count: int) -> Iterator[Sample]:
        """The first `count` samples of a pass; a frame at a time, which bounds the memory of large ones."""
        finite = latents.isfinite().flatten(1).all(dim=1)
        noun, fps = ("image", None) if request.motion is None else ("clip", request.motion.fps)
        for i in range(count):
            if not finite[i]:
                raise UserError(
                    f"{noun} {start + i} is not finite: the denoiser overflowed; use another dtype"
                )
            frames = latents[i : i + 1] if request.motion is None else latents[i]  # (F, C, H, W)
            yield Sample(tuple(to_pil(self.autoencoder.decode(frame[None])[0]) for frame in frames), fps)

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> dict[str, PromptEmbeds]:
        """Every distinct prompt, encoded alone in a row of a pass of fixed size."""
        wanted = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prepared]
        if not wanted:
            return self._prepared
        if self.sequential:
            self._model = None
            _free_memory(self.device)
        text_encoders = self._text_encoders or self._load_fitting_text_encoders()
        for line in text_encoders.remarks(wanted):
            logger.warning(line)
        size = prompts_per_pass(self.device, text_encoders.max_length)
        filled = wanted + [""] * (-len(wanted) % size)
        encoded = text_encoders.encode(filled, batch_size=size).to("cpu")
        del text_encoders
        if self.sequential:
            _free_memory(self.device)
        rows = {prompt: encoded[index : index + 1] for index, prompt in enumerate(wanted)}
        return self._prepared | rows

    def _load_fitting_text_encoders(self) -> TextEncoders:
        text_encoders = self._load_text_encoders()
        model = self.config.model
        if text_encoders.clip is not None and model.clip_width is not None:
            text_encoders.clip.check_fit(clip_width=model.clip_width, pooled_width=model.pooled_width)
        if text_encoders.t5 is not None and model.t5_width is not None:
            text_encoders.t5.check_fit(t5_width=model.t5_width)
        return text_encoders

    def _denoiser_model(self) -> GenTron:
        if self._model is None:
            self._model = self._load_model()
        return self._model


def _reads_negatives(request: Request) -> bool:
    """Whether guidance evaluates a branch with the negative prompt."""
    if request.motion is None:
        branches = classifier_free_branches(request.guidance_scale)
    else:
        branches = motion_free_branches(request.guidance_scale, request.motion.motion_guidance_scale)
    return any(branch.text == "negative" for branch in branches)


def _unaccelerated(
    model: GenTron, prompt_embeds: PromptEmbeds, motion_free: Tensor | bool | None
) -> Denoiser:
    """The model as training calls it: nothing is kept from step to step."""

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        timesteps = timestep.expand(len(latents)) if timestep.ndim == 0 else timestep
        return model(latents, timesteps.to(latents.device), prompt_embeds, motion_free=motion_free)

    return denoiser


def hold_first_frame(denoiser: Denoiser, clean: Tensor) -> Denoiser:
    """The denoiser for clips whose first frame is known: it sees that frame clean, at timestep 0.

    clean: (B, C, H, W), for latents (K B, F, C, H, W) that repeat B clips K times. What the denoiser says of
    the first frame leads nowhere: it is replaced here at the next step, and by the caller at the end.
    """

    def held(latents: Tensor, timestep: Tensor) -> Tensor:
        latents = latents.clone()
        latents[:, 0] = clean.to(latents).repeat(len(latents) // len(clean), 1, 1, 1)
        timesteps = timestep.expand(len(latents))[:, None].repeat(1, latents.shape[1])  # (K B, F)
        timesteps[:, 0] = 0
        return denoiser(latents, timesteps)

    return held


class KeyedNoise:
    """Unit-variance noise whose row k depends on seeds[k] alone, drawn on the CPU for every device."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._shape = shape

    def draw(self) -> Tensor:
        """(B, *shape) float32; each call continues every row's own stream."""
        return torch.stack([torch.randn(self._shape, generator=g) for g in self._generators])


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1], clamped -> an RGB picture of uint8."""
    return Image.fromarray(to_uint8(image))


def samples_per_pass(device: torch.device, num_tokens: int, batch_size: int | None) -> int:
    """B of every forward pass: on a CPU a function of the size of a picture or clip, in tokens, alone."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if device.type == "cpu":
        return max(1, CPU_ROWS_PER_PASS // num_tokens)
    return batch_size or GPU_SAMPLES_PER_PASS


def prompts_per_pass(device: torch.device, max_length: int) -> int:
    """Prompts in every forward pass of the text encoders."""
    return max(1, CPU_ROWS_PER_PASS // max_length) if device.type == "cpu" else GPU_PROMPTS_PER_PASS


def open_pipeline(
    model: str,
    *,
    checkpoint: Path | None = None,
    random_weights: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
) -> GenTronPipeline:
    """The system that a command line names: a preset, or the folder of a checkpoint.

    dtype: a torch dtype or its name.   Raises UserError when there are no weights, with the ways on.
    """
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    assert dtype is None or isinstance(dtype, torch.dtype), f"not a dtype: {dtype}"
    if not random_weights:
        return GenTronPipeline.from_pretrained(
            find_checkpoint(model, checkpoint=checkpoint), device=device, dtype=dtype
        )
    _check_random_weights(model, checkpoint)
    return GenTronPipeline.random_init(
        PRESETS[model](), downscale=_downscale_of(model), device=device, dtype=dtype
    )


def find_config(
    model: str, *, checkpoint: Path | None = None, random_weights: bool = False
) -> CheckpointConfig:
    """The config of what `open_pipeline` opens, without its weights; UserError as there."""
    if not random_weights:
        return read_config(find_checkpoint(model, checkpoint=checkpoint))
    _check_random_weights(model, checkpoint)
    config = PRESETS[model]()
    return untrained_config(config, image_size=config.sample_size * _downscale_of(model))


def _check_random_weights(model: str, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        raise UserError("--checkpoint has no effect with --random-weights: give one of the two")
    if model not in PRESETS:
        raise UserError(f"--random-weights needs a preset's name ({', '.join(PRESETS)}), got '{model}'")


def _downscale_of(preset: str) -> int:
    return MINI_DOWNSCALE if preset in BUNDLED_MODELS else 8


def random_model(config: GenTronConfig, *, device: torch.device, dtype: torch.dtype) -> GenTron:
    """An untrained model that never takes more memory than its weights in `dtype`."""
    with torch.device("meta"):
        model = GenTron(config)
    assert not list(model.buffers()), "a buffer would be left unset by to_empty"
    model = model.to(dtype).to_empty(device=device)
    model.init_weights()
    return model.eval().requires_grad_(False)


def untrained_config(model: GenTronConfig, *, image_size: int) -> CheckpointConfig:
    """The config of `random_init`: the paper's sampling settings, provenance "untrained"."""
    return CheckpointConfig(
        model=model,
        diffusion=DiffusionConfig(),
        autoencoder="untrained",
        text=TextConfig(
            clip="untrained" if model.clip_width else None, t5="untrained" if model.t5_width else None
        ),
        sampling=_untrained_sampling(model, image_size),
        training={"untrained": True},
    )


def _untrained_sampling(model: GenTronConfig, image_size: int) -> SamplingConfig:
    """The paper's settings; of its motion guidance scales, 1.0 to 1.3, the second smallest."""
    if model.temporal is None:
        return SamplingConfig(image_size=image_size)
    return SamplingConfig(
        image_size=image_size,
        num_frames=model.temporal.num_frames,
        fps=model.temporal.fps,
        motion_guidance_scale=1.1,
    )


def _defaults(
    model: GenTronConfig, device: torch.device, dtype: torch.dtype | None, sequential: bool | None
) -> tuple[torch.dtype, bool]:
    large = (model.t5_width or 0) >= LARGE_T5_WIDTH
    small_dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    return dtype or (torch.bfloat16 if large else small_dtype), large if sequential is None else sequential


def _text_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float16 else dtype


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator for a block and put its state back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _step_progress(
    callback: Progress | None, start: int, count: int, num_steps: int
) -> Callable[[int, Tensor], None]:
    def step_done(step_index: int, latents: Tensor) -> None:
        if callback is not None:
            callback(start + count * (step_index + 1) / num_steps)

    return step_done
