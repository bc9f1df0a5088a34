"""Run UniDet's official code and ours on the same weights and pictures; store what the official code finds.

    python tests/golden/unidet/make.py DETECTRON2 UNIDET [--full]

DETECTRON2: facebookresearch/detectron2 at 5aeb252b194b93dc2879b4ac34bc51a31b5aee13, built in its folder with
`FORCE_CUDA=0 python setup.py build_ext --inplace`; beside torch it needs fvcore 0.1.5, iopath 0.1.9, yacs,
omegaconf, hydra-core, pycocotools, cloudpickle, tabulate and termcolor, and a torchvision whose compiled
operations work. UNIDET: xingyizhou/UniDet at 94cd0e8612e558c1dff64d2928bc969856c9a802. Both are Apache-2.0;
GenTron imports neither. T2I-CompBench's copy of UniDet differs in one line, the threshold 0.1, set here.

Without --full: the small networks on all pictures, stored in small.npz beside this file, and torchvision's
compiled operations on a few boxes, in operations.npz. With --full: the networks at their real size on four
pictures, nothing stored. Both print the largest differences to ours.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.scorers import roi_ops  # noqa: E402
from bench.scorers.checkpoints import Checkpoint, load  # noqa: E402
from bench.scorers.unidet import network_input  # noqa: E402
from bench.scorers.unidet_network import Architecture, UniDet  # noqa: E402
from tests.golden.unidet.case import (  # noqa: E402
    FULL,
    PICTURES,
    SMALL,
    SUPPRESSIONS,
    Case,
    boxes,
    picture,
    roi_features,
    state_dict,
    suppression,
)

HERE = Path(__file__).parent
CONFIGS = {
    "r50": "Unified_learned_OCIM_R50_6x+2x.yaml",
    "rs200": "Unified_learned_OCIM_RS200_6x+2x.yaml",
}
SEED = 1


def prepare_imports(detectron2: Path, unidet: Path) -> None:
    """Make code of 2022 importable beside today's Pillow and without fairscale."""
    sys.path[:0] = [str(detectron2), str(unidet)]
    if not hasattr(Image, "LINEAR"):
        setattr(Image, "LINEAR", Image.Resampling.BILINEAR)  # noqa: B010
    for name in ("fairscale", "fairscale.nn", "fairscale.nn.checkpoint"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module)["checkpoint_wrapper"] = lambda wrapped, *args, **kwargs: wrapped
        sys.modules[name] = module
    warnings.simplefilter("ignore")


def official(network: str, sizes: Architecture, unidet: Path) -> Any:
    """The official model with sizes other than its config's."""
    from detectron2.config import get_cfg  # pyright: ignore[reportMissingImports]
    from detectron2.modeling import build_model  # pyright: ignore[reportMissingImports]
    from unidet.config import add_unidet_config  # pyright: ignore[reportMissingImports]

    cfg = get_cfg()
    add_unidet_config(cfg)
    cfg.merge_from_file(str(unidet / "configs" / CONFIGS[network]), allow_unsafe=True)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.1
    cfg.MULTI_DATASET.UNIFIED_LABEL_FILE = str(unidet / "datasets/label_spaces/learned_mAP+M.json")
    resnets = cfg.MODEL.RESNETS
    if sum(sizes.blocks) == 16:
        resnets.DEPTH = 50
    resnets.STEM_OUT_CHANNELS = sizes.stem_channels
    resnets.RES2_OUT_CHANNELS = 4 * sizes.block_channels
    resnets.WIDTH_PER_GROUP = sizes.block_channels
    cfg.MODEL.FPN.OUT_CHANNELS = sizes.pyramid_channels
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = sizes.hidden_size
    cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = sizes.pyramid_channels
    return build_model(cfg).eval()


def official_input(image: np.ndarray) -> torch.Tensor:
    """Through torchvision's transform, as the evaluation does; it cannot shrink the line to no width."""
    from torchvision.transforms import Resize

    if min(image.shape[:2]) * 480 < max(image.shape[:2]):
        return network_input(image)
    resized = Resize(size=479, max_size=480)(Image.fromarray(image))
    return torch.as_tensor(np.array(resized)[:, :, ::-1].astype("float32").transpose(2, 0, 1))


def compare(network: str, case: Case, unidet: Path, names: list[str]) -> dict[str, np.ndarray]:
    state = state_dict(case, SEED)
    theirs = official(network, case.sizes, unidet)
    absent = theirs.load_state_dict(state, strict=False)
    assert not absent.unexpected_keys and all("num_batches" in key for key in absent.missing_keys), absent
    with torch.device("meta"):
        ours = UniDet(case.sizes)
    load(ours, Checkpoint(Path(network), state, None), what=network, is_other=lambda key: False)
    ours.eval()
    stored = {}
    for name in names:
        given = official_input(picture(name))
        with torch.no_grad():
            start = time.perf_counter()
            out = theirs([{"image": given, "height": given.shape[1], "width": given.shape[2]}])[0][
                "instances"
            ]
            middle = time.perf_counter()
            assert torch.equal(given, network_input(picture(name)))
            found = ours.find(ours.features(given), *given.shape[1:])
            end = time.perf_counter()
        reference = (out.pred_boxes.tensor, out.scores, out.pred_classes)
        for part, value in zip(found._fields, reference, strict=True):
            stored[f"{network}/{name}/{part}"] = value.numpy()
        print(
            f"{network} {name} {given.shape[2]}x{given.shape[1]}:"
            f" {len(out)} official, {len(found.boxes)} ours, {_difference(found, reference)};"
            f" {middle - start:.2f} s official, {end - middle:.2f} s ours",
            flush=True,
        )
    return stored


def _difference(found: tuple[torch.Tensor, ...], reference: tuple[torch.Tensor, ...]) -> str:
    if len(found[0]) != len(reference[0]):
        return "DIFFERENT NUMBERS"
    boxes, scores, classes = (
        float((a.double() - b.double()).abs().max()) if len(a) else 0.0
        for a, b in zip(found, reference, strict=True)
    )
    return f"largest differences: boxes {boxes:g} px, scores {scores:g}, classes {classes:g}"


def operations() -> dict[str, np.ndarray]:
    """What torchvision's compiled operations give."""
    from torchvision.ops import batched_nms, roi_align

    stored = {}
    for name in SUPPRESSIONS:
        box, score, group, threshold = suppression(name)
        kept = batched_nms(torch.tensor(box), torch.tensor(score), torch.tensor(group), threshold)
        stored[f"nms/{name}"] = kept.numpy()
    rois = torch.tensor(boxes(80, 200, 7))
    pooled = roi_align(torch.tensor(roi_features(7)), [rois], (7, 7), 1 / 8, 0, True)
    stored["roi_align"] = pooled.numpy()
    return stored


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detectron2", type=Path)
    parser.add_argument("unidet", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--plain", action="store_true", help="ours with the torch forms of NMS and RoIAlign")
    arguments = parser.parse_args()
    compiled = roi_ops.compiled_ops("cpu")
    assert compiled is not None, "the official code needs torchvision's compiled operations"
    if arguments.plain:
        roi_ops.compiled_ops = lambda device: None  # type: ignore[assignment]
    prepare_imports(arguments.detectron2, arguments.unidet)
    importlib.import_module("unidet")  # registers the official modules

    names = ["square", "landscape", "wide", "tall"] if arguments.full else list(PICTURES)
    stored: dict[str, np.ndarray] = {}
    for network, case in (FULL if arguments.full else SMALL).items():
        stored |= compare(network, case, arguments.unidet, names)
    if not arguments.full:
        np.savez_compressed(HERE / "small.npz", **stored)  # type: ignore[arg-type]
        np.savez_compressed(HERE / "operations.npz", **operations())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
