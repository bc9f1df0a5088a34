"""Prompts and seeds -> pictures: the one place that composes text, guidance, sampler and autoencoder.

Image k is the same to the last bit whatever else is in the call. Matrix products of another number of rows
may round differently, so every forward pass holds the same number of images: a short one is filled up.
"""

# B images of one pass, C latent channels, H W latent size, N image tokens, S num_inference_steps

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
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
from gentron.guidance import check_guidance, classifier_free
from gentron.model import GenTron, GenTronConfig
from gentron.pixels import to_uint8
from gentron.presets import PRESETS
from gentron.samplers import SAMPLERS
from gentron.text import PromptEmbeds, TextEncoders, random_clip, random_t5

logger = logging.getLogger(__name__)

MAX_PROMPT_CHARACTERS = 1000
MAX_SIDE = 4096
"""Pixels; 65536 tokens at f = 8 and patch 2. A larger number is a slip that would take all memory."""
CPU_ROWS_PER_PASS = 128
"""Tokens in a CPU pass. Larger passes were no faster for mini (14.2 ms an image at 64, 13.9 ms at 8 images),
smaller ones were slower (36 ms at 1)."""
GPU_IMAGES_PER_PASS = 16
GPU_PROMPTS_PER_PASS = 32
LARGE_T5_WIDTH = 2048
"""From here on (T5-XL, XXL: 2.4 GB and 9.5 GB in bf16) text encoders and denoiser are not held together."""

MINI_DOWNSCALE = 4

Progress = Callable[[float], None]
"""Images done so far, those under way as fractions -> None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A checked call of the pipeline: what to draw and how."""

    prompts: list[str]
    negative_prompts: list[str]
    seeds: list[int]
    guidance_scale: float
    guidance_interval: tuple[float, float] | None
    num_inference_steps: int
    sampler: str
    eta: float
    latent_size: tuple[int, int]
    """H, W."""
    images_per_pass: int
    accelerate: bool


class GenTronPipeline:
    """A text-to-image system: text encoders, GenTron, sampler settings and autoencoder.

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

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: Sequence[str] | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        num_inference_steps: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        height: int | None = None,
        width: int | None = None,
        batch_size: int | None = None,
        accelerate: bool = True,
        callback: Progress | None = None,
    ) -> list[Image.Image]:
        """Draw one picture per prompt; None takes the checkpoint's own setting.

        seeds: one per prompt, the only source of its noise.   negative_prompts: default "", the unconditional
        branch.   guidance_interval: fractions of num_train_timesteps.   eta: ddim only.
        height, width: pixels, multiples of the autoencoder's downscale times the patch size.
        batch_size: images per forward pass on a GPU; a CPU has a fixed number, larger ones being no faster.
        With another batch_size the last bits may differ on a GPU; the companions of an image never matter.
        Raises ValueError for bad settings and UserError for a prompt over 1000 characters.
        """
        images = self.stream(
            prompts,
            seeds=seeds,
            negative_prompts=negative_prompts,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps,
            sampler=sampler,
            eta=eta,
            height=height,
            width=width,
            batch_size=batch_size,
            accelerate=accelerate,
            callback=callback,
        )
        return list(images)

    def stream(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: Sequence[str] | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        num_inference_steps: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        height: int | None = None,
        width: int | None = None,
        batch_size: int | None = None,
        accelerate: bool = True,
        callback: Progress | None = None,
    ) -> Iterator[Image.Image]:
        """The pictures of a call in order, each as soon as its pass is done; arguments as in a call.

        The arguments are checked here, before the first picture is asked for.
        """
        defaults = self.config.sampling
        check_prompts(prompts)
        negatives = [""] * len(prompts) if negative_prompts is None else list(negative_prompts)
        _check_count("negative_prompts", negatives, len(prompts))
        check_prompts(negatives)
        _check_count("seeds", seeds, len(prompts))
        check_seeds(seeds)
        latent_size = self._latent_size(height, width)
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
            images_per_pass=images_per_pass(self.device, self._num_tokens(latent_size), batch_size),
            accelerate=accelerate,
        )
        check_guidance(request.guidance_scale, guidance_interval)
        check_num_inference_steps(self.config.diffusion.schedule, request.num_inference_steps)
        if request.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler '{request.sampler}'; known: {', '.join(SAMPLERS)}")
        return self._draw(request, callback)

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

    def _draw(self, request: Request, callback: Progress | None) -> Iterator[Image.Image]:
        needs_negatives = request.guidance_scale > 1
        negatives = request.negative_prompts if needs_negatives else []
        embeds = self._encode([*request.prompts, *negatives])
        model = self._denoiser_model()
        total, size = len(request.prompts), request.images_per_pass
        for start in range(0, total, size):
            indices = [min(start + i, total - 1) for i in range(size)]  # the last image fills up a short pass
            count = min(size, total - start)
            step_done = _step_progress(callback, start, count, request.num_inference_steps)
            latents = self._sample(model, request, indices, embeds, step_done)
            yield from self._decode(latents, start, count)

    @torch.no_grad()
    def _sample(
        self,
        model: GenTron,
        request: Request,
        indices: list[int],
        embeds: dict[str, PromptEmbeds],
        step_done: Callable[[int, Tensor], None],
    ) -> Tensor:
        """Latents (B, C, H, W) of the images `indices`."""
        diffusion = self.config.diffusion
        prompt_embeds = self._gather(embeds, [request.prompts[k] for k in indices])
        negative_prompt_embeds = prompt_embeds
        if request.guidance_scale > 1:
            negative_prompt_embeds = self._gather(embeds, [request.negative_prompts[k] for k in indices])
        denoiser = classifier_free(
            self._make_denoiser(model, request),
            prompt_embeds,
            negative_prompt_embeds,
            guidance_scale=request.guidance_scale,
            guidance_interval=request.guidance_interval,
            num_train_timesteps=diffusion.num_train_timesteps,
        )
        noise = KeyedNoise(
            [request.seeds[k] for k in indices], (self.config.model.in_channels, *request.latent_size)
        )
        return SAMPLERS[request.sampler](
            denoiser,
            noise.draw().to(self.device),
            diffusion.schedule,
            request.num_inference_steps,
            prediction_type=diffusion.prediction_type,
            eta=request.eta,
            step_noise=lambda step_index: noise.draw(),
            callback=step_done,
        )

    def _make_denoiser(self, model: GenTron, request: Request) -> Callable[[PromptEmbeds], Denoiser]:
        if request.accelerate:
            steps = inference_timesteps(self.config.diffusion.schedule, request.num_inference_steps)
            return lambda embeds: model.conditioned(embeds, timesteps=steps)
        return lambda embeds: lambda x, t: model(x, t.expand(len(x)).to(x.device), embeds)

    def _gather(self, embeds: dict[str, PromptEmbeds], prompts: list[str]) -> PromptEmbeds:
        return PromptEmbeds.cat([embeds[prompt] for prompt in prompts]).to(self.device)

    @torch.no_grad()
    def _decode(self, latents: Tensor, start: int, count: int) -> list[Image.Image]:
        """The first `count` images of a pass; one at a time, which bounds the memory of large pictures."""
        finite = latents.isfinite().flatten(1).all(dim=1)
        images = []
        for i in range(count):
            if not finite[i]:
                raise UserError(
                    f"image {start + i} is not finite: the denoiser overflowed; use another dtype"
                )
            images.append(to_pil(self.autoencoder.decode(latents[i : i + 1])[0]))
        return images

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


def images_per_pass(device: torch.device, num_tokens: int, batch_size: int | None) -> int:
    """B of every forward pass: on a CPU a function of the picture's size alone."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if device.type == "cpu":
        return max(1, CPU_ROWS_PER_PASS // num_tokens)
    return batch_size or GPU_IMAGES_PER_PASS


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
    if checkpoint is not None:
        raise UserError("--checkpoint has no effect with --random-weights: give one of the two")
    if model not in PRESETS:
        raise UserError(f"--random-weights needs a preset's name ({', '.join(PRESETS)}), got '{model}'")
    downscale = MINI_DOWNSCALE if model in BUNDLED_MODELS else 8
    return GenTronPipeline.random_init(PRESETS[model](), downscale=downscale, device=device, dtype=dtype)


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


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises ValueError or UserError unless this is a list of texts that can be encoded."""
    if isinstance(prompts, str) or not prompts:
        raise ValueError("prompts must be a list with at least one prompt")
    for index, prompt in enumerate(prompts):
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise UserError(
                f"prompt {index} has {len(prompt)} characters, the limit is {MAX_PROMPT_CHARACTERS}"
            )
        if any("\ud800" <= character <= "\udfff" for character in prompt):  # what Python makes of other bytes
            raise UserError(f"prompt {index} is not UTF-8 text: {ascii(prompt[:60])}")


def _check_count(name: str, values: Sequence[object], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name} must be as many as prompts ({count}), got {len(values)}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for one that torch's generators do not take."""
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"a seed must be in [0, 2^63), got {seed}")
