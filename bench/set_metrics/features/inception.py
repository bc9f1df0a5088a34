"""The Inception of TensorFlow 2015 that FID is defined on: 1008 classes, features after the last pooling.

Its weights are torchvision's Inception-v3 by name and shape but not by value, and three of its blocks pool
differently: averages leave the padding out, and the very last block takes a maximum (TensorFlow's graph).
`load_state_dict` with the 566 tensors of weights-inception-2015-12-05-6726825d.pth is strict.
"""

# B batch, D features (2048)

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
from bench.set_metrics.features import resize as resizes
from bench.weights import Located, locate
from gentron.atomic import atomic_file

NAME = "inception"
VERSION = 1
NUM_CLASSES = 1008
BATCH_NORM_EPS = 1e-3
REHEARSAL_DIVISOR = 8


class Mode(NamedTuple):
    """A convention: what it is in words, and (H, W, 3) uint8 -> (1, 3, 299, 299) float32 for the network."""

    words: str
    prepare: Callable[[np.ndarray], Tensor]


MODES = {
    "clean": Mode(
        "PIL bicubic on float channels, antialiased, to 299; clipped to 0..255; (x - 128) / 128",
        resizes.clean,
    ),
    "tf": Mode(
        "TensorFlow 1 bilinear, no antialias, no half-pixel centres, to 299; (x - 128) / 128", resizes.tf
    ),
    "pytorch-fid": Mode("torch bilinear, no antialias, to 299; 2 x / 255 - 1", resizes.pytorch_fid),
    "torchmetrics": Mode("torch bilinear, antialias, to 299; (x - 128) / 128", resizes.torchmetrics),
}


# ---- the network -----------------------------------------------------------------------------------------


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU. Padding keeps the size unless `valid`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        valid: bool = False,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid or stride > 1 else (height // 2, width // 2)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """3 x 3, the padding not counted."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class U(NamedTuple):
    """A unit of a branch, by its name in the weights file."""

    name: str
    outputs: int
    kernel: int | tuple[int, int]


class Fork(NamedTuple):
    """Two units over the same input, concatenated."""

    left: U
    right: U


Branch = list[U | Fork]  # one after the other


class Block(nn.Module):
    """Branches over the same input, concatenated.

    branches: units by name, whose names are those of the checkpoint.   pool: of the last branch, which a unit
    `branch_pool` of `pooled` channels follows, if any.   halves: the last unit of each branch has stride 2.
    """

    def __init__(
        self,
        inputs: int,
        branches: list[Branch],
        pool: Callable[[Tensor], Tensor],
        pooled: int = 0,
        *,
        halves: bool = False,
    ) -> None:
        super().__init__()
        self._branches, self._pool = branches, pool
        self.num_outputs = pooled or inputs
        for branch in branches:
            channels = inputs
            for step in branch:
                units = [step] if isinstance(step, U) else [step.left, step.right]
                stride = 2 if halves and step is branch[-1] else 1
                for unit in units:
                    self.add_module(unit.name, ConvUnit(channels, unit.outputs, unit.kernel, stride=stride))
                channels = sum(unit.outputs for unit in units)
            self.num_outputs += channels
        if pooled:
            self.branch_pool = ConvUnit(inputs, pooled, 1)
        self._has_pool_unit = bool(pooled)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._run(branch, x) for branch in self._branches]
        pooled = self._pool(x)
        outputs.append(self.branch_pool(pooled) if self._has_pool_unit else pooled)
        return torch.cat(outputs, dim=1)

    def _run(self, branch: Branch, x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, U):
                x = self.get_submodule(step.name)(x)
            else:
                x = torch.cat([self.get_submodule(unit.name)(x) for unit in step], dim=1)
        return x


TALL, WIDE = (7, 1), (1, 7)


def _block_5(inputs: int, pooled: int, c: Callable[[int], int]) -> Block:
    """35 x 35."""
    branches: list[Branch] = [
        [U("branch1x1", c(64), 1)],
        [U("branch5x5_1", c(48), 1), U("branch5x5_2", c(64), 5)],
        [U("branch3x3dbl_1", c(64), 1), U("branch3x3dbl_2", c(96), 3), U("branch3x3dbl_3", c(96), 3)],
    ]
    return Block(inputs, branches, average, c(pooled))


def _block_6a(inputs: int, c: Callable[[int], int]) -> Block:
    """35 x 35 -> 17 x 17."""
    branches: list[Branch] = [
        [U("branch3x3", c(384), 3)],
        [U("branch3x3dbl_1", c(64), 1), U("branch3x3dbl_2", c(96), 3), U("branch3x3dbl_3", c(96), 3)],
    ]
    return Block(inputs, branches, halve, halves=True)


def _block_6(inputs: int, inner: int, c: Callable[[int], int]) -> Block:
    """17 x 17."""
    n = c(inner)
    branches: list[Branch] = [
        [U("branch1x1", c(192), 1)],
        [U("branch7x7_1", n, 1), U("branch7x7_2", n, WIDE), U("branch7x7_3", c(192), TALL)],
        [
            *(U("branch7x7dbl_1", n, 1), U("branch7x7dbl_2", n, TALL), U("branch7x7dbl_3", n, WIDE)),
            *(U("branch7x7dbl_4", n, TALL), U("branch7x7dbl_5", c(192), WIDE)),
        ],
    ]
    return Block(inputs, branches, average, c(192))


def _block_7a(inputs: int, c: Callable[[int], int]) -> Block:
    """17 x 17 -> 8 x 8."""
    branches: list[Branch] = [
        [U("branch3x3_1", c(192), 1), U("branch3x3_2", c(320), 3)],
        [
            *(U("branch7x7x3_1", c(192), 1), U("branch7x7x3_2", c(192), WIDE)),
            *(U("branch7x7x3_3", c(192), TALL), U("branch7x7x3_4", c(192), 3)),
        ],
    ]
    return Block(inputs, branches, halve, halves=True)


def _block_7(inputs: int, pool: Callable[[Tensor], Tensor], c: Callable[[int], int]) -> Block:
    """8 x 8."""
    n = c(384)
    branches: list[Branch] = [
        [U("branch1x1", c(320), 1)],
        [U("branch3x3_1", n, 1), Fork(U("branch3x3_2a", n, (1, 3)), U("branch3x3_2b", n, (3, 1)))],
        [
            *(U("branch3x3dbl_1", c(448), 1), U("branch3x3dbl_2", n, 3)),
            Fork(U("branch3x3dbl_3a", n, (1, 3)), U("branch3x3dbl_3b", n, (3, 1))),
        ],
    ]
    return Block(inputs, branches, pool, c(192))


class Inception(nn.Module):
    """(B, 3, 299, 299), about -1 to 1 -> (B, D), D = 2048 / divisor.

    divisor: of all channel counts; 1 is the published network.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()

        def c(channels: int) -> int:
            return channels // divisor

        self.Conv2d_1a_3x3 = ConvUnit(3, c(32), 3, stride=2)
        self.Conv2d_2a_3x3 = ConvUnit(c(32), c(32), 3, valid=True)
        self.Conv2d_2b_3x3 = ConvUnit(c(32), c(64), 3)
        self.Conv2d_3b_1x1 = ConvUnit(c(64), c(80), 1)
        self.Conv2d_4a_3x3 = ConvUnit(c(80), c(192), 3, valid=True)
        self.Mixed_5b = _block_5(c(192), 32, c)
        self.Mixed_5c = _block_5(self.Mixed_5b.num_outputs, 64, c)
        self.Mixed_5d = _block_5(self.Mixed_5c.num_outputs, 64, c)
        self.Mixed_6a = _block_6a(self.Mixed_5d.num_outputs, c)
        self.Mixed_6b = _block_6(self.Mixed_6a.num_outputs, 128, c)
        self.Mixed_6c = _block_6(self.Mixed_6b.num_outputs, 160, c)
        self.Mixed_6d = _block_6(self.Mixed_6c.num_outputs, 160, c)
        self.Mixed_6e = _block_6(self.Mixed_6d.num_outputs, 192, c)
        self.Mixed_7a = _block_7a(self.Mixed_6e.num_outputs, c)
        self.Mixed_7b = _block_7(self.Mixed_7a.num_outputs, average, c)
        self.Mixed_7c = _block_7(self.Mixed_7b.num_outputs, maximum, c)
        self.num_features = self.Mixed_7c.num_outputs
        self.fc = nn.Linear(self.num_features, NUM_CLASSES)  # part of the file; FID stops before it

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))  # (B, 32, 147, 147)
        x = halve(self.Conv2d_2b_3x3(x))  # (B, 64, 73, 73)
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6a(x)  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)  # (B, 2048)


# ---- loading ---------------------------------------------------------------------------------------------


def read_network(path: Path, *, may_be_small: bool) -> Inception:
    """The network of a weights file, in eval mode; UserError unless names and shapes are all right.

    may_be_small: take the architecture that a file made for rehearsals carries.
    """
    return read_divided(path, Inception, name=NAME, what="the Inception of FID", may_be_small=may_be_small)


def check_keys(path: Path) -> None:
    """UserError unless the file holds the published network."""
    read_network(path, may_be_small=False)


class InceptionExtractor:
    """The pool features of one image under one convention."""

    def __init__(self, network: Inception, mode: str, located: Located, *, device: str = "cpu") -> None:
        if mode not in MODES:
            raise ValueError(f"unknown mode '{mode}'; known: {', '.join(MODES)}")
        self.network, self.located, self.device = network.to(device), located, device
        self._prepare = MODES[mode].prepare
        self.record = ExtractorRecord(
            name=NAME,
            version=VERSION,
            mode=mode,
            resize=MODES[mode].words,
            layer="pool",
            num_features=network.num_features,
            weights={located.id: located.sha256},
            random_weights=located.random,
        )

    def under(self, mode: str) -> InceptionExtractor:
        """The same network under another convention."""
        return InceptionExtractor(self.network, mode, self.located, device=self.device)

    def features(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.network(self._prepare(image).to(self.device))[0].cpu().numpy()


def build(name: str, mode: str | None, *, device: str, models: Path | None) -> InceptionExtractor:
    """MissingWeights if the network's file is not here. mode: clean unless another is named."""
    located = locate(NAME, models)
    network = read_network(located.path, may_be_small=located.random)
    return InceptionExtractor(network, mode or "clean", located, device=device)


# ---- rehearsal -------------------------------------------------------------------------------------------


def random_state_dict(*, divisor: int, seed: int) -> dict[str, Tensor]:
    """Weights under which a signal keeps its size through the layers, from numpy's frozen RandomState."""
    rng = np.random.RandomState(seed)
    with torch.device("meta"):
        shapes: dict[str, Any] = {k: v.shape for k, v in Inception(divisor=divisor).state_dict().items()}
    return {name: _random_tensor(name, tuple(shape), rng) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...], rng: np.random.RandomState) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith(("bn.weight", "running_var")):
        return torch.ones(shape)
    draw = rng.standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        return torch.from_numpy(draw * 0.1)
    return torch.from_numpy(draw * np.float32(np.sqrt(2 / np.prod(shape[1:]))))


def random_weights(path: Path, *, seed: int) -> None:
    """The network with an eighth of the channels; its divisor lies beside the weights in the file."""
    state = random_state_dict(divisor=REHEARSAL_DIVISOR, seed=seed)
    # an open file: given a path, torch puts its name into the archive, and the bytes differ
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save({"model": state, "architecture": {"divisor": REHEARSAL_DIVISOR}}, file)
