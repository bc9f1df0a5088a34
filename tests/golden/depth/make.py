"""Run DPT's official code and ours on the same weights and pictures; store what the official code says.

    python tests/golden/depth/make.py DPT TIMM [--full]

DPT: isl-org/DPT at cd3fe90bb4c48577535cc4d51b602acca688a2ee (MIT).   TIMM: a folder with timm 0.4.12, as by
`pip install --target TIMM --no-deps timm==0.4.12`. GenTron imports neither.

Without --full: the network at small sizes, its maps stored in small.npz beside this file. The official code
has no small sizes: its own functions are called with others. With --full: the real sizes on two pictures,
nothing stored. Both print the largest differences to ours.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.scorers import ScorerRecord  # noqa: E402
from bench.scorers.checkpoints import Checkpoint, load  # noqa: E402
from bench.scorers.depth import (  # noqa: E402
    Architecture,
    DepthEstimator,
    empty_network,
    renamed,
    stored_map,
)
from gentron.torchvision_ops import prepare_torchvision  # noqa: E402
from tests.golden.depth.case import CASES, PICTURES, STEP, state_dict  # noqa: E402
from tests.golden.unidet.case import picture  # noqa: E402

HERE = Path(__file__).parent
SEED = 1


def official(sizes: Architecture) -> nn.Module:
    """The official DPTDepthModel("vitb_rn50_384"), whose sizes are written in its code."""
    from dpt import blocks, models, vit  # pyright: ignore[reportMissingImports]

    if sizes != Architecture():
        width = sizes.hidden_size
        channels = [*sizes.stage_channels[:2], width, width]

        def backbone(use_pretrained: bool, **settings: Any) -> nn.Module:
            return vit._make_vit_b_rn50_backbone(
                small_transformer(sizes), features=channels, vit_features=width, **settings
            )

        make_scratch = blocks._make_scratch
        blocks._make_pretrained_vitb_rn50_384 = backbone
        blocks._make_scratch = lambda _, *rest, **settings: make_scratch(channels, *rest, **settings)
    return models.DPTDepthModel(
        backbone="vitb_rn50_384",
        non_negative=True,
        enable_attention_hooks=False,
        features=sizes.fusion_channels,
    )


def small_transformer(sizes: Architecture) -> nn.Module:
    """timm's vit_base_resnet50_384 with other sizes."""
    from timm.models.layers import StdConv2dSame  # pyright: ignore
    from timm.models.resnetv2 import ResNetV2  # pyright: ignore
    from timm.models.vision_transformer import VisionTransformer  # pyright: ignore
    from timm.models.vision_transformer_hybrid import HybridEmbed  # pyright: ignore

    backbone = ResNetV2(
        layers=[3, 4, 9],
        channels=sizes.stage_channels,
        stem_chs=sizes.stem_channels,
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-8),
    )
    return VisionTransformer(
        img_size=384,
        patch_size=1,  # cells of the backbone
        embed_dim=sizes.hidden_size,
        depth=12,
        num_heads=sizes.num_heads,
        mlp_ratio=sizes.mlp_size / sizes.hidden_size,
        embed_layer=partial(HybridEmbed, backbone=backbone),
    )


def official_input(image: np.ndarray) -> Tensor:
    """Through torchvision's transforms, as the evaluation does."""
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    steps: Any = Compose([Resize([480, 480]), ToTensor(), Normalize(mean=0.5, std=0.5)])
    return steps(Image.fromarray(image))[None]


def official_map(depth: Tensor, width: int, height: int) -> np.ndarray:
    """The evaluation's steps after the network: spread, resize, Pillow's conversion of floats to bytes."""
    resized = torch.nn.functional.interpolate(
        spread(depth)[None, None], size=(height, width), mode="bilinear", align_corners=True
    )
    return np.asarray(Image.fromarray(255 * resized[0, 0].numpy()).convert("L"))


def spread(depth: Tensor) -> Tensor:
    return (depth - depth.min()) / (depth.max() - depth.min())


def compare(sizes: Architecture, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    state = state_dict(sizes, SEED)
    theirs = official(sizes).eval()
    absent = theirs.load_state_dict(state, strict=False)
    unused = {"pretrained.model.head.weight", "pretrained.model.head.bias"}
    assert not absent.unexpected_keys and set(absent.missing_keys) == unused, absent
    network = empty_network(sizes)
    load(network, Checkpoint(HERE, renamed(state), None), what="DPT", is_other=lambda key: False)
    ours = DepthEstimator(ScorerRecord(name="depth", version=1), network.eval(), "cpu", "fp32", None)
    stored = {}
    for name in names:
        image = picture(name)
        height, width = image.shape[:2]
        start = time.perf_counter()
        with torch.no_grad():
            depth = theirs(official_input(image))[0]
        middle = time.perf_counter()
        found = ours.inverse_depth(image)
        end = time.perf_counter()
        reference = official_map(depth, width, height)
        stored[f"{name}/depth"] = depth[::STEP, ::STEP].numpy()
        stored[f"{name}/range"] = np.array([float(depth.min()), float(depth.max())], np.float32)
        stored[f"{name}/map"] = reference[::STEP, ::STEP]
        wrong = stored_map(found, width, height) != reference
        ours_of_theirs = stored_map(depth, width, height) != reference
        print(
            f"{name} {width}x{height}:"
            f" largest difference of the spread depth {float((spread(found) - spread(depth)).abs().max()):g};"
            f" {int(wrong.sum())} of {wrong.size} bytes of the stored map differ,"
            f" {int(ours_of_theirs.sum())} from the official network's depth;"
            f" {middle - start:.2f} s official, {end - middle:.2f} s ours",
            flush=True,
        )
    return stored


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dpt", type=Path)
    parser.add_argument("timm", type=Path)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    prepare_torchvision()
    sys.path[:0] = [str(arguments.timm), str(arguments.dpt)]
    warnings.simplefilter("ignore")
    if arguments.full:
        compare(CASES["full"], PICTURES[:2])
    else:
        np.savez_compressed(HERE / "small.npz", **compare(CASES["small"], PICTURES))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
