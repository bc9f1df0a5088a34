"""Optical flow between two frames by name: RAFT (a network) or DIS (OpenCV's, without weights).

RAFT (2003.12039) is torchvision's raft_large with the weights C_T_V1: the authors' raft-things.pth, the one
that VBench uses, with 20 updates as there. Frames in -1 to 1, padded by repeating the border to multiples of
8, half on either side, as the authors' InputPadder does. The network takes 128 pixels a side at least;
smaller frames are enlarged by a whole factor, and the flow is averaged back and divided by it.

DIS (Kroeger et al. 2016) is OpenCV's on luma, preset MEDIUM, whose settings are recorded. One thread: its
search runs through stripes of the picture, as many as there are threads, and their borders show.
"""

# H W size of a frame, K enlargement

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bench.scorers import Context
from bench.weights import Located, MissingWeights, locate
from gentron.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RAFT = "raft-large"
NUM_UPDATES = 20  # VBench's; torchvision's default of 12 is for training
LEAST_SIDE = 128  # below it RAFT's coarsest correlations would have no extent
STRIDE = 8
DIS_LEAST_SIDE = 12  # of OpenCV


class OpticalFlow(Protocol):
    """Where each pixel of a frame is in the next one."""

    settings: dict[str, Any]
    """All that shapes a flow, besides weights."""
    weights: dict[str, str]
    random_weights: bool

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a, b: (H, W, 3) uint8.   Returns (H, W, 2) float32, x before y, in pixels: a[y, x] is found in b at
        (y + v, x + u)."""
        ...


# ---- RAFT ------------------------------------------------------------------------------------------------


def raft_network() -> torch.nn.Module:
    """torchvision's, initialised at random."""
    from gentron.torchvision_ops import prepare_torchvision

    prepare_torchvision()
    from torchvision.models.optical_flow import raft_large

    return raft_large(weights=None).eval().requires_grad_(False)


class RaftFlow:
    """RAFT on one pair at a time, in float32."""

    def __init__(self, network: torch.nn.Module, located: Located, *, device: str = "cpu") -> None:
        self._network: Any = network.to(device)
        self._device = device
        self.weights = {located.id: located.sha256}
        self.random_weights = located.random
        self.settings: dict[str, Any] = {
            "flow": "RAFT large (torchvision)",
            "updates": NUM_UPDATES,
            "padding": f"border repeated to multiples of {STRIDE}, half on either side",
            "small frames": f"enlarged by a whole factor to {LEAST_SIDE}, bilinear; flow averaged back",
        }

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        import torch
        import torch.nn.functional as F

        height, width = a.shape[:2]
        factor = -(-LEAST_SIDE // min(height, width)) if min(height, width) < LEAST_SIDE else 1
        first, second = (self._prepare(frame, factor) for frame in (a, b))
        # on a GPU cuDNN's convolutions would default to TF32
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            found = self._network(first, second, num_flow_updates=NUM_UPDATES)[-1]
            left, _, top, _ = padding(height * factor, width * factor)
            found = found[:, :, top : top + height * factor, left : left + width * factor]
            found = F.avg_pool2d(found, factor) / factor if factor > 1 else found
        return found[0].permute(1, 2, 0).cpu().numpy()

    def _prepare(self, frame: np.ndarray, factor: int) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, KH + padding, KW + padding), -1 to 1."""
        import torch
        import torch.nn.functional as F

        image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None].to(self._device)
        image = (image.float() / 255 - 0.5) / 0.5
        if factor > 1:
            image = F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
        height, width = image.shape[2:]
        return F.pad(image, padding(height, width), mode="replicate")


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom, to multiples of 8."""
    wide, high = -width % STRIDE, -height % STRIDE
    return wide // 2, wide - wide // 2, high // 2, high - high // 2


def read_raft(path: Path) -> torch.nn.Module:
    """The network of torchvision's weights file; UserError unless names and shapes are all right."""
    import torch

    from bench.scorers.checkpoints import load, read_checkpoint

    with torch.device("meta"):
        network = raft_network()
    load(network, read_checkpoint(path), what="torchvision's RAFT large", is_other=lambda key: False)
    return network.eval().requires_grad_(False)


def build_raft(context: Context) -> RaftFlow:
    """MissingWeights if the network's file is not here."""
    located = locate(RAFT, context.models)
    return RaftFlow(read_raft(located.path), located, device=context.device)


# ---- DIS -------------------------------------------------------------------------------------------------


class DisFlow:
    """OpenCV's dense inverse search."""

    weights: dict[str, str] = {}
    random_weights = False

    def __init__(self) -> None:
        cv2 = _opencv()
        cv2.setNumThreads(1)
        self._cv2 = cv2
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.settings: dict[str, Any] = {
            "flow": "DIS (OpenCV), preset medium",
            "opencv": cv2.__version__,
            "luma": "OpenCV's RGB to grey",
            "finest scale": self._dis.getFinestScale(),
            "patch": [self._dis.getPatchSize(), self._dis.getPatchStride()],
            "iterations": [
                self._dis.getGradientDescentIterations(),
                self._dis.getVariationalRefinementIterations(),
            ],
        }

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if min(a.shape[:2]) < DIS_LEAST_SIDE:
            raise UserError(
                f"DIS flow needs frames of at least {DIS_LEAST_SIDE} pixels a side, got"
                f" {a.shape[1]} x {a.shape[0]}"
            )
        first, second = (
            self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2GRAY) for frame in (a, b)
        )
        return np.asarray(self._dis.calc(first, second, None), np.float32)


@lru_cache(maxsize=1)
def _opencv() -> Any:
    """MissingWeights, so that what needs it is skipped, where OpenCV is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise MissingWeights(
            "missing OpenCV, which finds DIS flow; get it with 'pip install gentron[video]'"
        ) from error
    return cv2


FLOWS = ("raft", "dis")


def build_flow(name: str, context: Context) -> OpticalFlow:
    """The optical flow of this name; MissingWeights if its network or library is not here."""
    if name not in FLOWS:
        raise ValueError(f"unknown optical flow '{name}'; known: {', '.join(FLOWS)}")
    return build_raft(context) if name == "raft" else DisFlow()


# ---- weights ---------------------------------------------------------------------------------------------


def check_keys(id: str, path: Path) -> None:
    """UserError unless the file holds torchvision's RAFT large."""
    read_raft(path)


def random_state_dict(*, seed: int) -> dict[str, Tensor]:
    """Weights under which a signal keeps its size through the layers, from numpy's frozen RandomState."""
    import torch

    rng = np.random.RandomState(seed)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in raft_network().state_dict().items()}
    return {name: _random_tensor(name, shape, rng) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...], rng: np.random.RandomState) -> Tensor:
    import torch

    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith("running_var"):
        return torch.ones(shape)
    draw = rng.standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return torch.from_numpy(draw / np.float32(np.sqrt(np.prod(shape[1:]))))
    is_norm_weight = name.endswith(".1.weight")  # Conv2dNormActivation: 0 convolution, 1 norm
    return torch.from_numpy(draw * np.float32(0.1) + np.float32(is_norm_weight))


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """The network at its full size, 21 MB, in torchvision's format."""
    import torch

    torch.save(random_state_dict(seed=seed), path)
