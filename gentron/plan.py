"""What a training run needs before anything is loaded: parameters, FLOPs, memory by kind, images a second.

Everything is arithmetic on a GenTronConfig; torch is not imported. FLOPs are counted product by product.
Memory follows the tensors that autograd keeps for the backward pass, layer by layer as model.py has them,
and the moments of a step at which the sum is largest. benchmarks/plan_memory.py holds it against the peak of
real steps.
"""

# B micro-batch, F frames, N image tokens of a frame, T = F N, D hidden size, M MLP width, K heads,
# L prompt tokens, E text width, c bytes of an activation that a matrix product reads (2 in bf16)

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from gentron.model import GenTronConfig

Policy = Literal["none", "selective", "full"]
Precision = Literal["bf16", "fp32"]
POLICIES: tuple[Policy, ...] = ("none", "selective", "full")

FLOAT32 = 4
TIMESTEP_FEATURES = 256
GIB = 1 << 30
RESERVED_SHARE = 0.10
"""Of a GPU's memory: CUDA context, cuBLAS and NCCL workspaces, fragmentation. An estimate, not measured."""


# ---- what is planned for -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleShape:
    """One sample of training: a picture, or the frames of a clip, with its prompt."""

    latent_side: int
    num_frames: int = 1
    clip_tokens: int = 77
    t5_tokens: int = 120

    def tokens_of(self, encoder: str) -> int:
        return self.clip_tokens if encoder == "clip" else self.t5_tokens


class GPU(NamedTuple):
    """peak: FLOP/s of dense bf16 matrix products, as the maker's data sheet states. memory: GiB."""

    peak: float
    memory: float


GPUS = {
    "a100": GPU(312e12, 80),
    "a100-40": GPU(312e12, 40),
    "h100": GPU(989e12, 80),
    "h100-pcie": GPU(756e12, 80),
    "h200": GPU(989e12, 141),
    "h800": GPU(989e12, 80),
    "b200": GPU(2250e12, 180),
    "mi300x": GPU(1307e12, 192),
    "l40s": GPU(362e12, 48),
    "rtx4090": GPU(165e12, 24),
}


# ---- parameters --------------------------------------------------------------------------------------------


class Parameters(NamedTuple):
    """blocks: of each block. outside: of all the rest, which is needed from the first product to the last.
    vectors_block, vectors_outside: of these, what only meets one vector a sample (timestep, pooled text,
    adaLN), which autocast leaves in float32."""

    blocks: tuple[int, ...]
    outside: int
    vectors_block: int
    vectors_outside: int

    @property
    def total(self) -> int:
        return sum(self.blocks) + self.outside

    @property
    def largest_block(self) -> int:
        return max(self.blocks)

    @property
    def cast_by_autocast(self) -> int:
        return self.total - len(self.blocks) * self.vectors_block - self.vectors_outside


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def count_parameters(config: GenTronConfig) -> Parameters:
    """The same numbers as `model.parameter_report`, by formula."""
    d, pooled = config.hidden_size, config.pooled_width
    patch = config.patch_size**2 * config.in_channels
    vectors = _linear(TIMESTEP_FEATURES, d) + _linear(d, d) + _linear(pooled, d) + _linear(d, d)
    vectors += _linear(d, 2 * d)
    if config.t5_width is not None:
        vectors += _linear(config.t5_width, pooled)
    outside = vectors + _linear(patch, d) + _linear(d, patch)
    if config.conditioning == "cross_attention":
        outside += sum(_linear(width, width) for width in map(config.width_of, config.encoders))
    blocks = tuple(_of_block(config, index) for index in range(config.depth))
    return Parameters(blocks, outside, _linear(d, 6 * d), vectors)


def _of_block(config: GenTronConfig, index: int) -> int:
    d, encoder = config.hidden_size, config.encoder_of_block(index)
    head_norms = 2 * (d // config.num_heads) if config.qk_norm else 0
    count = _linear(d, 6 * d) + _linear(d, 3 * d) + _linear(d, d) + head_norms
    count += _linear(d, config.mlp_size) + _linear(config.mlp_size, d)
    if encoder is not None:
        count += 2 * _linear(d, d) + _linear(config.width_of(encoder), 2 * d) + head_norms
    if config.temporal is not None:
        count += 4 * _linear(d, d) + head_norms
    return count


# ---- FLOPs -------------------------------------------------------------------------------------------------


class Product(NamedTuple):
    """FLOPs of a sample in one kind of matrix product; 2 for a multiplication and the addition after it."""

    part: str
    forward: float
    backward: float
    in_block: bool


def products(config: GenTronConfig, shape: SampleShape) -> list[Product]:
    """Every matrix product of a forward and backward pass.

    A product's backward pass is two of its size, or one where nothing behind its input is trained.
    """
    d, patch = config.hidden_size, config.patch_size**2 * config.in_channels
    tokens = tokens_of_frame(config, shape)
    rows = tokens * shape.num_frames
    found: list[Product] = []

    def linear(part: str, rows: int, size: int, *, in_block: bool = True, leaf: bool = False) -> None:
        flops = 2.0 * rows * size
        found.append(Product(part, flops, flops if leaf else 2 * flops, in_block))

    def attention(part: str, queries: int, keys: int) -> None:
        flops = 4.0 * queries * keys * d
        found.append(Product(part, flops, 2 * flops, in_block=True))

    def outside(part: str, rows: int, size: int, *, leaf: bool = False) -> None:
        linear(part, rows, size, in_block=False, leaf=leaf)

    outside("patch embed", rows, patch * d, leaf=True)
    outside("conditioning", 1, TIMESTEP_FEATURES * d, leaf=True)
    outside("conditioning", 1, d * d)
    if config.t5_width is not None:
        outside("conditioning", 1, config.t5_width * config.pooled_width, leaf=True)
    outside("conditioning", 1, config.pooled_width * d, leaf=config.t5_width is None)
    outside("conditioning", 1, d * d)
    if config.conditioning == "cross_attention":
        for encoder in config.encoders:
            outside("token adapters", shape.tokens_of(encoder), config.width_of(encoder) ** 2, leaf=True)
    for index in range(config.depth):
        encoder = config.encoder_of_block(index)
        linear("adaLN", 1, 6 * d * d)
        linear("self-attention", rows, 4 * d * d)
        attention("self-attention", rows, tokens)
        if encoder is not None:
            linear("cross-attention", rows, 2 * d * d)
            linear("text keys and values", shape.tokens_of(encoder), 2 * config.width_of(encoder) * d)
            attention("cross-attention", rows, shape.tokens_of(encoder))
        if config.temporal is not None:
            linear("temporal attention", rows, 4 * d * d)
            attention("temporal attention", rows, shape.num_frames)
        linear("MLP", rows, 2 * d * config.mlp_size)
    outside("final layer", 1, 2 * d * d)
    outside("final layer", rows, patch * d)
    return found


def tokens_of_frame(config: GenTronConfig, shape: SampleShape) -> int:
    return (shape.latent_side // config.patch_size) ** 2


class Flops(NamedTuple):
    """Of one sample. recomputed: what the checkpointing policy computes a second time."""

    forward: float
    backward: float
    recomputed: float

    @property
    def model(self) -> float:
        """What MFU counts: the work that the result needs."""
        return self.forward + self.backward

    @property
    def total(self) -> float:
        return self.model + self.recomputed


def count_flops(config: GenTronConfig, shape: SampleShape, policy: Policy = "none") -> Flops:
    every = products(config, shape)
    recomputed = sum(product.forward for product in every if product.in_block) if policy == "full" else 0.0
    return Flops(
        sum(product.forward for product in every), sum(product.backward for product in every), recomputed
    )


# ---- activations -------------------------------------------------------------------------------------------


class Activations(NamedTuple):
    """Bytes of one sample.

    blocks: kept from the forward to the backward pass by all blocks, with the policy.
    text: the prompt, as it comes, as its adapters read it, and what they give.
    tail: of the final layer and the loss, gone when the backward pass reaches the blocks.
    again: what computing the largest block once more adds.
    working: gradients on their way through one block.
    text_gradient: the sum of what the blocks give back to the prompt.
    """

    blocks: float
    text: float
    tail: float
    again: float
    working: float
    text_gradient: float

    @property
    def kept(self) -> float:
        return self.blocks + self.text + self.tail


def count_activations(
    config: GenTronConfig, shape: SampleShape, policy: Policy, precision: Precision
) -> Activations:
    """What autograd saves, tensor by tensor, for one sample."""
    c = 2 if precision == "bf16" else FLOAT32
    d, rows = config.hidden_size, tokens_of_frame(config, shape) * shape.num_frames
    blocks = [_kept_by_block(config, shape, index, policy, c) for index in range(config.depth)]
    everything = [_kept_by_block(config, shape, index, "none", c) for index in range(config.depth)]
    again = max(full - kept for full, kept in zip(everything, blocks, strict=True))
    cross = config.encoders if config.conditioning == "cross_attention" else ()
    text = sum(c * shape.tokens_of(name) * config.width_of(name) for name in cross)
    patches = config.patch_size**2 * config.in_channels
    final = _layer_norm(rows, d) + FLOAT32 * rows * d + c * rows * d
    return Activations(
        blocks=sum(blocks),
        text=3 * text,
        tail=c * rows * patches + 3 * FLOAT32 * rows * patches + final,
        again=again,
        working=FLOAT32 * rows * d + c * rows * config.mlp_size,
        text_gradient=text,
    )


def _kept_by_block(config: GenTronConfig, shape: SampleShape, index: int, policy: Policy, c: int) -> float:
    d, heads, mlp = config.hidden_size, config.num_heads, config.mlp_size
    tokens, encoder = tokens_of_frame(config, shape), config.encoder_of_block(index)
    rows = tokens * shape.num_frames
    stream, read = FLOAT32 * rows * d, c * rows * d  # the residual stream; what a product reads or gives
    logsumexp = FLOAT32 * heads * rows
    vectors = FLOAT32 * d
    if policy == "full":
        return stream
    if policy == "selective":
        kept = stream + 6 * vectors + (3 + 1 + 1) * read + logsumexp + c * rows * mlp + read
        if encoder is not None:
            kept += 3 * read + logsumexp + 2 * c * shape.tokens_of(encoder) * d
        if config.temporal is not None:
            kept += (2 + 1 + 1) * read
        return kept
    kept = (6 + 2 + 2) * vectors
    kept += _layer_norm(rows, d) + stream + read  # its input, its result for the scale, what qkv reads
    kept += (3 + 1) * read + logsumexp + stream  # q, k, v, attended; the gate's update
    if encoder is not None:
        kept += _layer_norm(rows, d) + 3 * read + logsumexp + 2 * c * shape.tokens_of(encoder) * d
    if config.temporal is not None:
        weights = tokens * heads * shape.num_frames**2
        kept += _layer_norm(rows, d) + (2 + 3 + 1) * read
        kept += FLOAT32 * weights + (c * weights if c != FLOAT32 else 0)
    kept += _layer_norm(rows, d) + stream + read + 2 * c * rows * mlp + stream
    return kept


def _layer_norm(rows: int, d: int) -> int:
    """Input, mean and deviation in float32."""
    return FLOAT32 * rows * d + 2 * FLOAT32 * rows


# ---- the frozen networks -----------------------------------------------------------------------------------


class TextEncoderSize(NamedTuple):
    """A transformer that encodes prompts while training runs. matrices: of its MLP; a gated one has 3."""

    name: str
    width: int
    depth: int
    attention_width: int
    mlp_width: int
    matrices: int
    vocabulary: int

    @property
    def layer(self) -> int:
        """Parameters that each token of a prompt meets in a layer."""
        return 4 * self.width * self.attention_width + self.matrices * self.width * self.mlp_width

    @property
    def parameters(self) -> int:
        """Without norms, biases and positions: a thousandth."""
        return self.vocabulary * self.width + self.depth * self.layer

    def flops(self, tokens: int) -> float:
        attention = 4.0 * tokens * tokens * self.attention_width
        return self.depth * (2.0 * tokens * self.layer + attention)

    def working_bytes(self, tokens: int, element: int) -> float:
        """What a layer holds at once for one prompt, nothing being kept."""
        return element * tokens * (4 * self.width + self.matrices * self.mlp_width)


CLIP_L = TextEncoderSize("CLIP-L", 768, 12, 768, 3072, 2, 49408)
T5_XXL = TextEncoderSize("Flan-T5-XXL", 4096, 24, 4096, 10240, 3, 32128)
TEXT_ENCODERS = {("clip", 768): CLIP_L, ("t5", 4096): T5_XXL}
"""By encoder and the width of its tokens; others are small and not counted."""

AUTOENCODER_PARAMETERS = 83_653_863
AUTOENCODER_CHANNELS = (128, 256, 512, 512)
AUTOENCODER_DOWNSCALE = 8


def text_encoders(config: GenTronConfig) -> list[tuple[str, TextEncoderSize]]:
    found = [(name, TEXT_ENCODERS.get((name, config.width_of(name)))) for name in config.encoders]
    return [(name, size) for name, size in found if size is not None]


def autoencoder_flops(side: int) -> float:
    """Of encoding one picture of side x side pixels with Stable Diffusion's autoencoder."""
    channels, flops, previous = AUTOENCODER_CHANNELS, 0.0, AUTOENCODER_CHANNELS[0]

    def convolution(side: float, inputs: int, outputs: int, kernel: int = 3) -> float:
        return 2.0 * side * side * kernel * kernel * inputs * outputs

    flops += convolution(side, 3, previous)
    for level, size in enumerate(channels):
        here = side / 2**level
        flops += convolution(here, previous, size) + 3 * convolution(here, size, size)
        flops += convolution(here, previous, size, 1) if previous != size else 0.0
        flops += convolution(here / 2, size, size) if level < len(channels) - 1 else 0.0
        previous = size
    deep = side / AUTOENCODER_DOWNSCALE
    flops += 4 * convolution(deep, previous, previous)  # the two blocks around the attention
    flops += 4 * convolution(deep, previous, previous, 1) + 4.0 * deep**4 * previous
    return flops + convolution(deep, previous, 8) + convolution(deep, 8, 8, 1)


def autoencoder_working_bytes(side: int) -> float:
    """Of encoding one picture: input, norm, activation and result of a first-level block, float32."""
    return 4.0 * FLOAT32 * AUTOENCODER_CHANNELS[0] * side * side


# ---- memory ------------------------------------------------------------------------------------------------

KINDS = (
    "weights",
    "gradients",
    "optimizer",
    "EMA",
    "weights in use",
    "activations",
    "text encoders",
    "autoencoder",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How a model is trained, as far as one GPU's memory depends on it."""

    shape: SampleShape
    policy: Policy
    precision: Precision = "bf16"
    gpus: int = 1
    accumulates: bool = False
    """Gradients of earlier micro-batches are there while the next one runs."""
    encodes: bool = True
    """Text encoders and autoencoder run beside the model; not with precomputed latents and embeddings."""


def peak_memory(config: GenTronConfig, setting: Setting, *, micro_batch: int) -> dict[str, float]:
    """Bytes by kind on one GPU at the moment of a step when the sum is largest.

    float32 master weights, AdamW's two moments and the average are shared out among the GPUs, and so are the
    gradients (FSDP2). In use are, on one GPU under autocast, the bf16 copies of the weights that products
    with tokens read; on several, what is gathered: all outside the blocks, two blocks at a time, and the
    gradients of one on their way to their owners.
    """
    moments = list(_moments(config, setting, micro_batch))
    return max(moments, key=lambda moment: sum(moment.values()))


def _moments(config: GenTronConfig, setting: Setting, batch: int) -> Iterable[dict[str, float]]:
    count = count_parameters(config)
    shard = FLOAT32 * count.total / setting.gpus
    per_sample = count_activations(config, setting.shape, setting.policy, setting.precision)
    sizes = Activations(*(batch * size for size in per_sample))
    all_in_use, block_in_use = _weights_in_use(count, setting)
    held = dict.fromkeys(KINDS, 0.0) | frozen_memory(config, setting, micro_batch=batch)
    held |= {"weights": shard, "optimizer": 2 * shard, "EMA": shard}
    earlier = shard if setting.accumulates else 0.0
    # the forward pass is done: autocast forgets its copies of weights just after
    yield held | {"gradients": earlier, "weights in use": all_in_use, "activations": sizes.kept}
    # the backward pass is in a block, `done` of them behind it; both encoders have had a gradient after two
    for done in sorted({0, min(2, config.depth - 1), config.depth - 1}):
        share_left = (config.depth - done) / config.depth
        left = sizes.text + sizes.blocks * share_left
        in_use = max(block_in_use, all_in_use * share_left if setting.policy == "none" else 0.0)
        yield held | {
            "gradients": max(earlier, shard * (done + 1) / config.depth),
            "weights in use": in_use,
            "activations": left + sizes.again + sizes.working + (sizes.text_gradient if done else 0.0),
        }


def _weights_in_use(count: Parameters, setting: Setting) -> tuple[float, float]:
    """Bytes at the end of the forward pass, and while one block runs."""
    c = 2 if setting.precision == "bf16" else FLOAT32
    if setting.gpus == 1:
        if setting.precision == "fp32":
            return 0.0, 0.0
        cast = count.cast_by_autocast
        outside = count.outside - count.vectors_outside
        return c * cast, c * (outside + count.largest_block - count.vectors_block)
    gathered = c * (count.outside + 2 * count.largest_block)
    return gathered, gathered + (c + FLOAT32) * count.largest_block


def frozen_memory(config: GenTronConfig, setting: Setting, *, micro_batch: int) -> dict[str, float]:
    """Of text encoders (bf16, or float32 with it) and autoencoder (float32), whole on every GPU."""
    if not setting.encodes:
        return {"text encoders": 0.0, "autoencoder": 0.0}
    c = 2 if setting.precision == "bf16" else FLOAT32
    sizes = text_encoders(config)
    working = [size.working_bytes(setting.shape.tokens_of(name), c) for name, size in sizes]
    pixels = setting.shape.latent_side * AUTOENCODER_DOWNSCALE
    return {
        "text encoders": c * sum(size.parameters for _, size in sizes)
        + micro_batch * max(working, default=0.0),
        "autoencoder": FLOAT32 * AUTOENCODER_PARAMETERS
        + micro_batch * setting.shape.num_frames * autoencoder_working_bytes(pixels),
    }


def largest_micro_batch(config: GenTronConfig, setting: Setting, *, budget: float, most: int) -> int:
    """Samples of one pass that fit into `budget` bytes, up to `most`; 0 if not one does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        share = replace(setting, accumulates=middle < most)
        fits = sum(peak_memory(config, share, micro_batch=middle).values()) <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


# ---- the plan ----------------------------------------------------------------------------------------------

ENOUGH_ROWS = 4096
"""Image tokens of a pass from which on a GPU's matrix units are busy; fewer leave them waiting."""


class Stage(NamedTuple):
    """A stage of training as the paper has it. steps: None where it gives no number."""

    batch: int
    steps: int | None


PAPER_STAGES = {256: Stage(2048, 500_000), 512: Stage(784, 300_000)}
PAPER_VIDEO_STAGE = Stage(128, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """What one checkpointing policy makes of the machine. micro_batch 0: not one sample fits."""

    policy: Policy
    micro_batch: int
    passes: int
    """Micro-batches that a GPU accumulates for one step."""
    memory: dict[str, float]
    """Bytes by kind, of the largest micro-batch, or of a single sample where that does not fit."""
    activations_per_sample: float
    """Bytes kept from the forward to the backward pass."""
    samples_per_second: float
    mfu: float
    """Useful FLOPs, without recomputation and encoding, over the peak of all GPUs."""
    days: float | None
    gpu_hours: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    parameters: int
    flops: Flops
    """Of one sample under no checkpointing."""
    encoding_flops: float
    """Of one sample: text encoders and autoencoder; 0 with precomputed latents and embeddings."""
    batch: int
    steps: int | None
    budget: float
    """Bytes of a GPU that may be used."""
    options: tuple[Option, ...]
    advice: Policy | None

    @property
    def flops_per_step(self) -> float:
        return self.batch * (self.flops.model + self.encoding_flops)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """gpus of one kind. memory: GiB of one. utilization: FLOPs that are done, recomputation and encoding
    included, over `peak`."""

    gpus: int
    memory: float
    peak: float
    utilization: float

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ValueError(f"gpus must be >= 1, got {self.gpus}")
        for name in ("memory", "peak"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be a positive number, got {getattr(self, name)}")
        if not 0 < self.utilization <= 1:
            raise ValueError(f"utilization must be in (0, 1], got {self.utilization}")


def make_plan(
    config: GenTronConfig,
    shape: SampleShape,
    machine: Machine,
    *,
    stage: Stage,
    precision: Precision = "bf16",
    encodes: bool = True,
) -> Plan:
    """Every checkpointing policy on this machine, and the one to take.

    precision: fp32 is planned at the same peak, which is that of bf16; state another with the machine.
    """
    if stage.batch < 1 or (stage.steps is not None and stage.steps < 1):
        raise ValueError(f"batch and steps must be >= 1, got {stage.batch} and {stage.steps}")
    budget = machine.memory * GIB * (1 - RESERVED_SHARE)
    encoding = encoding_flops(config, shape) if encodes else 0.0
    options = tuple(
        _option(
            config,
            Setting(shape=shape, policy=policy, precision=precision, gpus=machine.gpus, encodes=encodes),
            machine,
            stage=stage,
            budget=budget,
            encoding=encoding,
        )
        for policy in POLICIES
    )
    return Plan(
        parameters=count_parameters(config).total,
        flops=count_flops(config, shape),
        encoding_flops=encoding,
        batch=stage.batch,
        steps=stage.steps,
        budget=budget,
        options=options,
        advice=_advice(options, rows=tokens_of_frame(config, shape) * shape.num_frames),
    )


def encoding_flops(config: GenTronConfig, shape: SampleShape) -> float:
    text = sum(size.flops(shape.tokens_of(name)) for name, size in text_encoders(config))
    return text + shape.num_frames * autoencoder_flops(shape.latent_side * AUTOENCODER_DOWNSCALE)


def _option(
    config: GenTronConfig,
    setting: Setting,
    machine: Machine,
    *,
    stage: Stage,
    budget: float,
    encoding: float,
) -> Option:
    share = -(-stage.batch // machine.gpus)
    micro_batch = largest_micro_batch(config, setting, budget=budget, most=share)
    passes = -(-share // micro_batch) if micro_batch else 0
    micro_batch = -(-share // passes) if passes else 0  # of equal size: no pass is nearly empty
    flops = count_flops(config, setting.shape, setting.policy)
    seconds = share * (flops.total + encoding) / (machine.peak * machine.utilization)
    rate = stage.batch / seconds if micro_batch else 0.0
    days = stage.steps * seconds / 86_400 if micro_batch and stage.steps is not None else None
    return Option(
        policy=setting.policy,
        micro_batch=micro_batch,
        passes=passes,
        memory=peak_memory(config, replace(setting, accumulates=passes > 1), micro_batch=max(1, micro_batch)),
        activations_per_sample=count_activations(
            config, setting.shape, setting.policy, setting.precision
        ).kept,
        samples_per_second=rate,
        mfu=rate * flops.model / (machine.gpus * machine.peak),
        days=days,
        gpu_hours=None if days is None else days * 24 * machine.gpus,
    )


def _advice(options: Iterable[Option], *, rows: int) -> Policy | None:
    """The policy that recomputes least and still fills the GPU, or else has the largest pass."""
    fitting = [option for option in options if option.micro_batch]
    for option in fitting:
        if option.micro_batch * rows >= ENOUGH_ROWS or option.passes == 1:
            return option.policy
    return max(fitting, key=lambda option: option.micro_batch).policy if fitting else None
