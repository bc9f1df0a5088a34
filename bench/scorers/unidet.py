"""The detector as the scorers use it: picture in, named boxes out, equal to T2I-CompBench's official
evaluation (docs/t2i-compbench.md 3.1, 3.2; [Q] marks a quirk that equal numbers need).

Weights are the published checkpoints as they are; labels are derived from UniDet's own label space.
"""

# H W a picture; h w the same resized for the network

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.scorers import Context, ScorerRecord
from bench.scorers.checkpoints import Checkpoint, load, read_checkpoint
from bench.scorers.detection import CachedDetector, Detection, Detections
from bench.scorers.unidet_network import R50, RS200, Architecture, Found, UniDet
from bench.weights import Located, locate
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.hashing import sha256

VERSION = 1  # a change of any box or score is a new version
LABELS_ID = "unidet-labels"
OFFICIAL = {"rs200": RS200, "r50": R50}

SHORT_SIDE, LONG_SIDE = 479, 480


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A protocol's `detector`.

    precision: fp16 is the official evaluation's, which needs CUDA (autocast); its scores step by 0.0005.
    """

    network: Literal["rs200", "r50"]
    precision: Literal["fp32", "fp16"]


# ---- pictures --------------------------------------------------------------------------------------------


def resized_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at the network: the short side 479, or the long one 480 if it came out longer.

    A square becomes 479 x 479. A picture 480 times as long as wide would be left no pixel, at which the
    official code stops; here one is left.
    """
    short, long = sorted((width, height))
    new_short, new_long = SHORT_SIDE, int(SHORT_SIDE * long / short)
    if new_long > LONG_SIDE:
        new_short, new_long = max(1, int(LONG_SIDE * new_short / new_long)), LONG_SIDE
    return (new_short, new_long) if width <= height else (new_long, new_short)


def network_input(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, h, w) float32 BGR in [0, 255]. [Q] Both networks get BGR."""
    height, width = image.shape[:2]
    resized = Image.fromarray(image).resize(resized_size(width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)[:, :, ::-1].astype(np.float32).transpose(2, 0, 1))


# ---- labels ----------------------------------------------------------------------------------------------

LABELS_SHA256 = "8840546c24c3df8df852bb4d6b36032e77f3882311798fe786f33ea6db4caf40"  # of the 722, one a line
CHOSEN_LABELS = {
    11: "picture, frame",
    13: "street light",
    36: "whiteboard, blackboard",
    138: "bench",
    203: "trash bin, can",
    207: "towel, napkin",
    209: "barrel, bucket",
    224: "pot, pan",
    234: "shampoo, shower gel",
    282: "router, modem",
    320: "tape measure, ruler",
    701: "crosswalk",
    718: "traffic sign back",
}  # where the evaluation's list says other words than its source


def label(name: str) -> str:
    """A category of the label space in the evaluation's words.

    Names are OpenImages_Objects365_COCO, some parts empty ("Cattle_cow_cow": "cattle, cow"), or Mapillary's
    ("object--traffic-light": "traffic light"). COCO's word counts only where the other two have none.
    """
    if "--" in name:
        return name.split("--")[-1].replace("-", " ").lower()
    words = [*name.lower().split("_"), "", ""]
    distinct = dict.fromkeys(word for word in words[:2] if word)
    return ", ".join(distinct) or words[2]


def read_labels(located: Located) -> tuple[str, ...]:
    """The labels by class index; UserError unless they are the evaluation's, or known as random."""
    try:
        categories = json.loads(located.path.read_text("utf-8"))["categories"]
        names = {int(category["id"]): str(category["name"]) for category in categories}
        labels = tuple(CHOSEN_LABELS.get(i) or label(names[i]) for i in range(len(names)))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{located.path}' is not a label space of UniDet: {error!r}") from error
    digest = sha256("\n".join(labels))
    if not located.random and digest != LABELS_SHA256:
        raise UserError(
            f"'{located.path}' does not give the evaluation's labels: expected sha256 {LABELS_SHA256},"
            f" got {digest}; get UniDet's learned_mAP+M.json"
        )
    return labels


# ---- weights ---------------------------------------------------------------------------------------------


def load_network(located: Located) -> UniDet:
    """The network of a checkpoint, ready to run on the CPU; UserError if the file is not one."""
    network = located.id.removeprefix("unidet-")
    return _fill(read_checkpoint(located.path), network, is_random=located.random)


def check_keys(id: str, path: Path) -> None:
    """UserError if the file at `path` is not the weights or labels of this id."""
    if id == LABELS_ID:
        read_labels(Located(id, path, "", False))
    else:
        load_network(Located(id, path, "", False))


def _fill(checkpoint: Checkpoint, network: str, *, is_random: bool) -> UniDet:
    sizes = OFFICIAL[network]
    if checkpoint.architecture is not None:
        if not is_random:
            raise UserError(f"'{checkpoint.path}' holds small random weights, not UniDet's ({network})")
        sizes = from_dict(Architecture, checkpoint.architecture, path="architecture")
    with torch.device("meta"):
        unidet = UniDet(sizes)
    load(unidet, checkpoint, what=f"UniDet {network}", is_other=_is_no_layer)
    return unidet.eval()


def _is_no_layer(key: str) -> bool:
    """Constants that checkpoints of older versions carry beside the layers."""
    return key in ("pixel_mean", "pixel_std") or "anchor_generator" in key


def random_weights(id: str, path: Path, *, seed: int) -> None:
    """A small network or another list of labels in the official format, for rehearsals."""
    from bench.scorers.unidet_random import SMALL, random_label_space, random_network

    if id == LABELS_ID:
        path.write_text(json.dumps(random_label_space(seed)), "utf-8")
        return
    sizes = SMALL[id.removeprefix("unidet-")]
    torch.save({"model": random_network(sizes, seed).state_dict(), "architecture": asdict(sizes)}, path)


# ---- the detector ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """Runs the network on one picture."""

    network: UniDet
    labels: tuple[str, ...]
    device: str
    precision: str

    def __call__(self, image: np.ndarray) -> Detections:
        """image: (H, W, 3) uint8 RGB. UserError if the weights give no finite features."""
        picture = network_input(image).to(self.device)
        found, precision, note = None, self.precision, ""
        if precision == "fp16":
            with torch.autocast("cuda", torch.float16):
                found = self._find(picture)
            if found is None:
                precision, note = "fp32", "fp16 features were not finite"
        if found is None:
            found = self._find(picture)
        if found is None:
            raise UserError("UniDet gives features that are not finite: its weights are damaged")
        height, width = picture.shape[1:]
        return Detections(found=self._named(found), size=(width, height), precision=precision, note=note)

    @torch.inference_mode()
    def _find(self, picture: Tensor) -> Found | None:
        features = self.network.features(picture)
        if not all(bool(torch.isfinite(level).all()) for level in features):
            return None
        return self.network.find(features, picture.shape[1], picture.shape[2])

    def _named(self, found: Found) -> tuple[Detection, ...]:
        boxes, scores, classes = (part.tolist() for part in found)
        return tuple(
            Detection(self.labels[k], score, (box[0], box[1], box[2], box[3]))
            for box, score, k in zip(boxes, scores, classes, strict=True)
        )


def build_detector(settings: dict[str, Any], context: Context) -> CachedDetector:
    """The detector for a protocol's `detector` settings, its detections kept under context.cache.

    MissingWeights if a file is not there; UserError if one is not what it should be or fp16 cannot run.
    """
    read = from_dict(Settings, settings, path="detector")
    if read.precision == "fp16" and not context.device.startswith("cuda"):
        raise UserError(
            f"detector.precision fp16 needs CUDA, the device is {context.device}; fp32 runs anywhere"
        )
    weights = locate(f"unidet-{read.network}", context.models)
    names = locate(LABELS_ID, context.models)
    network, labels = _network(weights, context.device), read_labels(names)
    if len(labels) != network.sizes.num_classes:
        raise UserError(
            f"'{weights.path}' knows {network.sizes.num_classes} classes, '{names.path}' {len(labels)}"
        )
    record = ScorerRecord(
        name=weights.id,
        version=VERSION,
        weights={located.id: located.sha256 for located in (weights, names)},
        random_weights=weights.random or names.random,
        settings=asdict(read),
    )
    folder = None if context.cache is None else context.cache / "detections"
    return CachedDetector(record, Look(network, labels, context.device, read.precision), folder)


@lru_cache(maxsize=2)
def _network(weights: Located, device: str) -> UniDet:
    """Categories share their networks: two of 120 M parameters at most."""
    return load_network(weights).to(device)
