"""DINOv2 ViT-L/14's class token for FD-DINOv2 (2306.04675): 224 by PIL's bicubic, ImageNet's mean and std.

The network is written out here rather than taken from transformers, whose Dinov2Model scales the position
embeddings from 37 x 37 to 16 x 16 without the offset of 0.1 that the original has, and gets other features;
the names in the original's file then need no table either.
"""

# B batch, L tokens (256 patches and the class token), D features (1024)

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.scorers.checkpoints import load, read_checkpoint
from bench.set_metrics.features import ExtractorRecord
from bench.set_metrics.features.resize import pil_bicubic, to_tensor
from bench.weights import Located, locate
from gentron.atomic import atomic_file
from gentron.config import from_dict, to_dict
from gentron.errors import UserError

NAME = "dinov2-vit-l-14"
VERSION = 1
IMAGE_SIZE, PATCH_SIZE = 224, 14
TRAINED_GRID = 37  # patches along a side at 518 pixels, for which the position embeddings are
GRID = IMAGE_SIZE // PATCH_SIZE
GRID_OFFSET = 0.1  # added to the number of patches before scaling, in the original code
NORM_EPS = 1e-6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")


OFFICIAL = Architecture(width=1024, depth=24, heads=16)
REHEARSAL = Architecture(width=64, depth=2, heads=2)


# ---- the network; attribute names are those of the file ---------------------------------------------------


class PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH_SIZE, stride=PATCH_SIZE)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        )


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(2))
        self.ls1, self.ls2 = (LayerScale(width) for _ in range(2))
        self.attn, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DinoV2(nn.Module):
    """(B, 3, 224, 224), normalised -> (B, D), the class token after the last norm."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        width = sizes.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, TRAINED_GRID**2 + 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of training; part of the file
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(Block(width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def positions(self) -> Tensor:
        """(1, 257, D): the trained 37 x 37 embeddings scaled to 16 x 16 as the original does."""
        patches = self.pos_embed[:, 1:].unflatten(1, (TRAINED_GRID, TRAINED_GRID)).permute(0, 3, 1, 2)
        scale = (GRID + GRID_OFFSET) / TRAINED_GRID
        scaled = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
        assert scaled.shape[2:] == (GRID, GRID), scaled.shape
        return torch.cat([self.pos_embed[:, :1], scaled.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)  # (B, 256, D)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.positions()  # (B, L, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


# ---- loading ---------------------------------------------------------------------------------------------


def read_network(path: Path, *, may_be_small: bool) -> DinoV2:
    """The network of a weights file, in eval mode; UserError unless names and shapes are all right.

    may_be_small: take the architecture that a file made for rehearsals carries.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.architecture is not None and not may_be_small:
        raise UserError(f"'{path}' holds random weights for rehearsals, not the published ones of '{NAME}'")
    try:
        sizes = from_dict(Architecture, checkpoint.architecture) if checkpoint.architecture else OFFICIAL
    except ValueError as error:
        raise UserError(f"'{path}': {error}") from error
    with torch.device("meta"):
        network = DinoV2(sizes)
    load(network, checkpoint, what="DINOv2 ViT-L/14", is_other=lambda key: False)
    return network.eval().requires_grad_(False)


def check_keys(path: Path) -> None:
    """UserError unless the file holds the published network."""
    read_network(path, may_be_small=False)


def prepare(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, 224, 224), normalised. The aspect is not kept: nor is it there."""
    pixels = to_tensor(pil_bicubic(image, IMAGE_SIZE)) / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class DinoV2Extractor:
    """The class token of one image."""

    def __init__(self, network: DinoV2, located: Located, *, device: str = "cpu") -> None:
        self.network, self.device = network.to(device), device
        self.record = ExtractorRecord(
            name=NAME,
            version=VERSION,
            resize="PIL bicubic, antialiased, to 224 x 224; ImageNet mean and deviation",
            layer="class token",
            num_features=network.norm.normalized_shape[0],
            weights={located.id: located.sha256},
            random_weights=located.random,
        )

    def features(self, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.network(prepare(image).to(self.device))[0].cpu().numpy()


def build(name: str, mode: str | None, *, device: str, models: Path | None) -> DinoV2Extractor:
    if mode is not None:
        raise ValueError(f"{name} has no modes, got '{mode}'")
    located = locate(NAME, models)
    return DinoV2Extractor(read_network(located.path, may_be_small=located.random), located, device=device)


# ---- rehearsal -------------------------------------------------------------------------------------------


def random_state_dict(sizes: Architecture, *, seed: int) -> dict[str, Tensor]:
    """Weights that keep a signal's size, from numpy's frozen RandomState."""
    rng = np.random.RandomState(seed)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in DinoV2(sizes).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        draw = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
            state[name] = 1 + 0.1 * draw
        elif name.endswith("weight"):
            state[name] = draw / math.sqrt(math.prod(shape[1:]))
        else:
            state[name] = 0.1 * draw
    return state


def random_weights(path: Path, *, seed: int) -> None:
    """Two blocks of width 64; the sizes lie beside the weights in the file."""
    state = random_state_dict(REHEARSAL, seed=seed)
    # an open file: given a path, torch puts its name into the archive, and the bytes differ
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save({"model": state, "architecture": to_dict(REHEARSAL)}, file)
