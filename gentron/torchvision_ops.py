"""Keep torchvision importable beside a CPU torch.

PyPI's torchvision has C++ ops that need CUDA libraries. Where those are absent the ops do not load, and
importing torchvision fails with "operator torchvision::nms does not exist"; with it fails every transformers
model, since transformers imports torchvision where it is installed. Defining the two ops that torchvision
describes without asking whether they exist is enough. Without torchvision nothing is done.
"""

# N boxes

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def prepare_torchvision() -> torch.library.Library | None:
    """Call before the first import of torchvision or transformers.

    Returns the definitions, which live as long as the result is kept (the cache keeps it), or None where
    torchvision is absent, imported already or able to load its own ops.
    """
    spec = None if "torchvision" in sys.modules else find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return None
    if _loads_its_ops(Path(next(iter(spec.submodule_search_locations)))):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    library.impl("nms", nms, "CompositeExplicitAutograd")
    return library


def _loads_its_ops(folder: Path) -> bool:
    """Load the extension as torchvision is about to; a second load of the same file changes nothing."""
    for path in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
        try:
            torch.ops.load_library(path)
        except (ImportError, OSError):
            continue
        return True
    return False


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: indices of the boxes kept, by falling score.

    dets: (N, 4) as x1, y1, x2, y2.   scores: (N,).
    A box goes if its IoU with a kept one is over the threshold.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    is_kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if is_kept[i]:
            low = torch.maximum(boxes[i, :2], boxes[i + 1 :, :2])
            high = torch.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
            overlap = (high - low).clamp(min=0).prod(dim=1)
            is_kept[i + 1 :] &= overlap <= iou_threshold * (area[i] + area[i + 1 :] - overlap)
    return order[is_kept]
