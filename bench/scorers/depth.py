"""Depth of a picture as T2I-CompBench++'s 3-D spatial score reads it: DPT-Hybrid (MiDaS), by transformers.

"Vision Transformers for Dense Prediction" (arXiv 2103.13413). Weights are the published .pt file, its tensors
renamed; pictures and maps are treated as in the official evaluation (docs/t2i-compbench.md 3.6).
"""

# H W a picture; the network works at 480 x 480. Larger depth is nearer.

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.scorers import Context, ScorerRecord
from bench.scorers.checkpoints import Checkpoint, load, read_checkpoint
from bench.scorers.detection import cache_path
from bench.systems.images import write_atomic
from bench.weights import Located, locate
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.torchvision_ops import prepare_torchvision

if TYPE_CHECKING:
    from transformers import DPTForDepthEstimation

VERSION = 1  # a change of any pixel is a new version
WEIGHTS_ID = "dpt-hybrid"
SIDE = 480
TRAINED_SIDE = 384  # of the position table, which the network interpolates bilinearly
MEAN = STD = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A protocol's `depth`.

    precision: fp16 is the official evaluation's, which needs CUDA (autocast).
    """

    precision: Literal["fp32", "fp16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Sizes of a DPT-Hybrid of twelve transformer layers on a residual network of 3, 4 and 9 blocks."""

    hidden_size: int = 768
    num_heads: int = 12
    mlp_size: int = 3072
    stem_channels: int = 64
    stage_channels: tuple[int, int, int] = (256, 512, 1024)
    fusion_channels: int = 256


# ---- weights ---------------------------------------------------------------------------------------------

BLOCKS = (3, 4, 9)  # of the residual network's stages
NUM_LAYERS = 12
BIT = "dpt.embeddings.backbone.bit"
LAYER = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}


def new_names() -> dict[str, str]:
    """Beginnings of the published tensors' names -> those of transformers' DPTForDepthEstimation."""
    vit = "pretrained.model."
    names = {
        f"{vit}cls_token": "dpt.embeddings.cls_token",
        f"{vit}pos_embed": "dpt.embeddings.position_embeddings",
        f"{vit}patch_embed.proj.": "dpt.embeddings.projection.",
        f"{vit}patch_embed.backbone.stem.conv.": f"{BIT}.embedder.convolution.",
        f"{vit}patch_embed.backbone.stem.norm.": f"{BIT}.embedder.norm.",
        f"{vit}norm.": "dpt.layernorm.",
        "pretrained.act_postprocess4.4.": "neck.reassemble_stage.layers.3.resize.",
        "scratch.output_conv.": "head.head.",
    }
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            old = f"{vit}patch_embed.backbone.stages.{stage}.blocks.{block}."
            names[old] = f"{BIT}.encoder.stages.{stage}.layers.{block}."
    for layer in range(NUM_LAYERS):
        for old, new in LAYER.items():
            names[f"{vit}blocks.{layer}.{old}"] = f"dpt.encoder.layer.{layer}.{new}"
    for k in (3, 4):
        reassemble = "neck.reassemble_stage."
        names[f"pretrained.act_postprocess{k}.0.project."] = f"{reassemble}readout_projects.{k - 1}."
        names[f"pretrained.act_postprocess{k}.3."] = f"{reassemble}layers.{k - 1}.projection."
    for k in (1, 2, 3, 4):  # fusion goes from the coarsest, 4, to the finest
        fusion = f"neck.fusion_stage.layers.{4 - k}."
        names[f"scratch.layer{k}_rn."] = f"neck.convs.{k - 1}."
        names[f"scratch.refinenet{k}.out_conv."] = f"{fusion}projection."
        for unit in (1, 2):
            old = f"scratch.refinenet{k}.resConfUnit{unit}.conv"
            names[old] = f"{fusion}residual_layer{unit}.convolution"
    return names


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under transformers' names; what has none keeps its own."""
    names, given = new_names(), {}
    for key, value in state.items():
        layer, is_joint, kind = key.partition(".attn.qkv.")
        if is_joint:  # one matrix for all three there
            attention = (
                layer.replace("pretrained.model.blocks.", "dpt.encoder.layer.") + ".attention.attention"
            )
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                given[f"{attention}.{name}.{kind}"] = part.contiguous()
            continue
        old = next((old for old in names if key.startswith(old)), None)
        given[key if old is None else names[old] + key.removeprefix(old)] = value
    return given


def empty_network(sizes: Architecture) -> DPTForDepthEstimation:
    """The network without weights, on the meta device."""
    prepare_torchvision()
    from transformers import DPTConfig, DPTForDepthEstimation

    width = sizes.hidden_size
    config = DPTConfig(
        is_hybrid=True,
        hidden_size=width,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=sizes.num_heads,
        intermediate_size=sizes.mlp_size,
        layer_norm_eps=1e-6,  # the published network's; transformers' default is 1e-12
        image_size=TRAINED_SIDE,
        neck_hidden_sizes=[*sizes.stage_channels[:2], width, width],
        reassemble_factors=[1, 1, 1, 0.5],
        fusion_hidden_size=sizes.fusion_channels,
        backbone_featmap_shape=[1, sizes.stage_channels[2], TRAINED_SIDE // 16, TRAINED_SIDE // 16],
        backbone_config={
            "model_type": "bit",
            "global_padding": "same",
            "layer_type": "bottleneck",
            "depths": list(BLOCKS),
            "embedding_size": sizes.stem_channels,
            "hidden_sizes": list(sizes.stage_channels),
            "out_features": ["stage1", "stage2", "stage3"],
            "embedding_dynamic_padding": True,
        },
    )
    with torch.device("meta"):
        network = DPTForDepthEstimation(config)
    embeddings: Any = network.dpt.embeddings
    embeddings.image_size = (SIDE, SIDE)  # else it refuses all but the trained side
    return network


def load_network(located: Located) -> DPTForDepthEstimation:
    """The network of a published file, ready to run on the CPU; UserError if the file is not one."""
    checkpoint = read_checkpoint(located.path)
    sizes = Architecture()
    if checkpoint.architecture is not None:
        if not located.random:
            raise UserError(f"'{located.path}' holds small random weights, not DPT-Hybrid's")
        sizes = from_dict(Architecture, checkpoint.architecture, path="architecture")
    network = empty_network(sizes)
    given = Checkpoint(checkpoint.path, renamed(checkpoint.state), None)
    load(network, given, what="DPT-Hybrid", is_other=_is_classifier)
    return network.eval()


def _is_classifier(key: str) -> bool:
    """The transformer's own head, which depth does not use."""
    return key.startswith("pretrained.model.head")


def check_keys(id: str, path: Path) -> None:
    """UserError if the file at `path` is not the published network's."""
    load_network(Located(id, path, "", False))


SMALL = Architecture(
    hidden_size=32,
    num_heads=2,
    mlp_size=64,
    stem_channels=32,
    stage_channels=(128, 128, 128),  # a quarter of it in 32 groups is the least
    fusion_channels=16,
)


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """A small network in the published format, for rehearsals; its maps are soft and mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {key: tuple(value.shape) for key, value in empty_network(SMALL).state_dict().items()}
    state = {old: _draw(old, shape, generator) for old, shape in published_shapes(shapes).items()}
    torch.save({"model": state, "architecture": asdict(SMALL)}, path)


def published_shapes(ours: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published tensors that `renamed` turns into those of a network."""
    old_names = {new: old for old, new in new_names().items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for key, shape in ours.items():
        layer, is_split, rest = key.partition(".attention.attention.")
        if is_split:
            name, kind = rest.split(".")
            joint = layer.replace("dpt.encoder.layer.", "pretrained.model.blocks.") + f".attn.qkv.{kind}"
            shapes |= {joint: (3 * shape[0], *shape[1:])} if name == "query" else {}
            continue
        new = next(new for new in old_names if key.startswith(new))
        shapes[old_names[new] + key.removeprefix(new)] = shape
    return shapes


def _draw(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        fan_in = 1 if "pos_embed" in key or "cls_token" in key else int(np.prod(shape[1:]))
        drawn = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        return drawn.abs() if key == "scratch.output_conv.4.weight" else drawn  # or half the map would be 0
    return torch.ones(shape) if "norm" in key and key.endswith("weight") else torch.zeros(shape)


# ---- maps ------------------------------------------------------------------------------------------------


def network_input(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, 480, 480) float32 in [-1, 1], whatever the picture's proportions."""
    resized = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    return ((pixels - MEAN) / STD)[None]


def stored_map(depth: Tensor, width: int, height: int) -> np.ndarray:
    """(480, 480) inverse depth in the network's unit -> (height, width) uint8, nearest 255 and farthest 0.

    Fractions are cut off, not rounded, as the official code's PNG files are written. A map that is the same
    everywhere, which is divided by zero there, is 0.
    """
    low, high = depth.min(), depth.max()
    if not bool(high > low):
        return np.zeros((height, width), np.uint8)
    share = ((depth - low) / (high - low))[None, None]
    resized = F.interpolate(share, size=(height, width), mode="bilinear", align_corners=True)[0, 0]
    return (255 * resized.cpu().numpy()).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class DepthEstimator:
    """Estimates the depth of one picture at a time, once.

    folder: where maps are kept, None to keep none; its subfolders are named by `record`.
    """

    record: ScorerRecord
    network: DPTForDepthEstimation
    device: str
    precision: str
    folder: Path | None

    def path(self, digest: str) -> Path | None:
        """The file that holds the map of the picture with this sha256."""
        return None if self.folder is None else cache_path(self.folder, self.record, digest, "png")

    def depth(self, image: np.ndarray, digest: str) -> np.ndarray:
        """(H, W) uint8: the map as the official evaluation stores it, at the picture's own size.

        image: (H, W, 3) uint8 RGB.   digest: sha256 of its file. UserError if the map is not finite.
        """
        height, width = image.shape[:2]
        path = self.path(digest)
        known = None if path is None else _read_map(path, width, height)
        if known is not None:
            return known
        found = stored_map(self.inverse_depth(image), width, height)
        if path is not None:
            buffer = io.BytesIO()
            Image.fromarray(found).save(buffer, format="PNG")
            write_atomic(path, buffer.getvalue())
        return found

    @torch.inference_mode()
    def inverse_depth(self, image: np.ndarray) -> Tensor:
        """(480, 480) float32, what the network says of the picture."""
        half = torch.autocast("cuda", torch.float16) if self.precision == "fp16" else nullcontext()
        with half:
            depth = self.network(network_input(image).to(self.device)).predicted_depth[0].float()
        if not bool(torch.isfinite(depth).all()):
            way_on = "run it in fp32" if self.precision == "fp16" else "its weights are damaged"
            raise UserError(f"DPT-Hybrid gives depth that is not finite in {self.precision}: {way_on}")
        return depth


def _read_map(path: Path, width: int, height: int) -> np.ndarray | None:
    """A kept map; None if nothing is there or it is damaged: then estimate again."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as file:
            found = np.asarray(file) if (file.mode, file.size) == ("L", (width, height)) else None
    except (FileNotFoundError, UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None
    return found


def build_depth(settings: dict[str, Any], context: Context) -> DepthEstimator:
    """The estimator for a protocol's `depth` settings, its maps kept under context.cache.

    MissingWeights if the file is not there; UserError if it is not what it should be or fp16 cannot run.
    """
    read = from_dict(Settings, settings, path="depth")
    if read.precision == "fp16" and not context.device.startswith("cuda"):
        raise UserError(
            f"depth.precision fp16 needs CUDA, the device is {context.device}; fp32 runs anywhere"
        )
    weights = locate(WEIGHTS_ID, context.models)
    network: Any = load_network(weights)
    record = ScorerRecord(
        name=WEIGHTS_ID,
        version=VERSION,
        weights={weights.id: weights.sha256},
        random_weights=weights.random,
        settings=asdict(read),
    )
    folder = None if context.cache is None else context.cache / "depth"
    return DepthEstimator(record, network.to(context.device), context.device, read.precision, folder)
