"""UniDet, the detector of T2I-CompBench, for inference: "Simple Multi-Dataset Detection" (arXiv 2102.13086).

A residual network, a feature pyramid, proposals, and three stages that each refine the boxes and name what is
in them. Modules carry the names of the published checkpoints, so those load as they are. detectron2 is not
needed: what it computes is computed here in the same order, and in float32 the results are equal to the last
bit (tests/golden/unidet/make.py). [Q] marks a quirk that the official numbers depend on.
"""

# H W the resized picture, C pyramid channels, N boxes as x1, y1, x2, y2 in its pixels, K classes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.scorers.roi_ops import grouped_nms, roi_align

STRIDES = (8, 16, 32, 64, 128)  # of the five pyramid levels, p3 to p7
PADDING = 32  # sides are padded to multiples of it, right and below
NUM_STAGES = 3
BOX_LEVELS = 3  # boxes are pooled from p3, p4, p5
POOLED = 7
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a box of this side belongs to this level
ANCHOR_SIZES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # times four strides
ANCHOR_RATIOS = (0.5, 1.0, 2.0)  # height / width
NUM_ANCHORS = len(ANCHOR_SIZES) * len(ANCHOR_RATIOS)
NUM_PROPOSALS = 1000  # of each level before, and of all after suppression
PROPOSAL_IOU = 0.7
STAGE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
MAX_LOG_SCALE = math.log(1000 / 16)  # a box grows at most by this in a stage
MIN_SCORE = 0.1  # [Q] in the official code; its configured 0.5 is not used
CLASS_IOU = 0.5
MAX_DETECTIONS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Sizes of a network.

    `resnest` has split attention, batch norm in pyramid and heads, and other pixel statistics; `resnet`
    strides in the first convolution of a block.
    """

    backbone: Literal["resnet", "resnest"]
    blocks: tuple[int, int, int, int]
    stem_channels: int
    """Of the first convolution; resnest's stem ends with twice as many."""
    block_channels: int
    """Of the first stage's 3x3 convolutions, doubled at each of the others; a block gives four times it."""
    pyramid_channels: int
    hidden_size: int
    num_classes: int

    @property
    def split(self) -> bool:
        return self.backbone == "resnest"


RS200 = Architecture(
    backbone="resnest",
    blocks=(3, 24, 36, 3),
    stem_channels=64,
    block_channels=64,
    pyramid_channels=256,
    hidden_size=1024,
    num_classes=722,
)
R50 = Architecture(
    backbone="resnet",
    blocks=(3, 4, 6, 3),
    stem_channels=64,
    block_channels=64,
    pyramid_channels=256,
    hidden_size=1024,
    num_classes=722,
)

# mean and standard deviation of the channels in the order they are fed, which is BGR. [Q] resnest's are those
# of RGB, as it was trained; the official evaluation feeds it BGR all the same.
PIXELS = {
    "resnest": ((123.68, 116.779, 103.939), (58.393, 57.12, 57.375)),
    "resnet": ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
}


class Found(NamedTuple):
    """boxes: (N, 4) float32.   scores: (N,), descending.   classes: (N,) int64 in [0, K)."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


# ---- backbone --------------------------------------------------------------------------------------------


class Conv(nn.Conv2d):
    """A convolution that keeps the size but for its stride, then a batch norm `norm`; without one, a bias."""

    def __init__(
        self, channels_in: int, channels: int, side: int, *, stride: int = 1, norm: bool = True
    ) -> None:
        super().__init__(channels_in, channels, side, stride, side // 2, bias=not norm)
        self.norm = nn.BatchNorm2d(channels) if norm else None

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        return x if self.norm is None else self.norm(x)


class SplitAttention(nn.Module):
    """ResNeSt's 3x3 convolution: two halves, mixed by weights that their channel means give."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 32)
        self.conv = nn.Conv2d(channels, 2 * channels, 3, 1, 1, groups=2, bias=False)
        self.bn0 = nn.BatchNorm2d(2 * channels)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.fc2 = nn.Conv2d(inner, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.relu(self.bn0(self.conv(x))).chunk(2, 1)
        mean = F.adaptive_avg_pool2d(first + second, 1)
        logits = self.fc2(F.relu(self.bn1(self.fc1(mean))))
        share = logits.view(len(x), 2, -1).softmax(1)
        return share[:, 0, :, None, None] * first + share[:, 1, :, None, None] * second


class Block(nn.Module):
    """A bottleneck: 1x1, 3x3, 1x1 and a shortcut."""

    def __init__(self, channels_in: int, inner: int, stride: int, *, split: bool) -> None:
        super().__init__()
        channels = 4 * inner
        self.pool_stride = stride if split else 1  # resnest halves by pooling, not in a convolution
        conv_stride = 1 if split else stride
        has_shortcut = channels_in != channels
        self.shortcut = Conv(channels_in, channels, 1, stride=conv_stride) if has_shortcut else None
        self.conv1 = Conv(channels_in, inner, 1, stride=conv_stride)
        self.conv2 = SplitAttention(inner) if split else Conv(inner, inner, 3)
        self.conv3 = Conv(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if isinstance(self.conv2, Conv):
            y = F.relu(y)
        if self.pool_stride > 1:
            y = F.avg_pool2d(y, 3, self.pool_stride, padding=1)
            x = F.avg_pool2d(x, self.pool_stride, ceil_mode=True, count_include_pad=False)
        y = self.conv3(y)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class BottomUp(nn.Module):
    """Picture -> features of strides 8, 16 and 32."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        channels = sizes.stem_channels
        if sizes.split:
            stem = {
                "conv1_1": Conv(3, channels, 3, stride=2),
                "conv1_2": Conv(channels, channels, 3),
                "conv1_3": Conv(channels, 2 * channels, 3),
            }
            channels *= 2
        else:
            stem = {"conv1": Conv(3, channels, 7, stride=2)}
        self.stem = nn.ModuleDict(stem)
        inner = sizes.block_channels
        self.stages: list[str] = []
        for number, count in enumerate(sizes.blocks):
            blocks = []
            for place in range(count):
                stride = 2 if number > 0 and place == 0 else 1
                blocks.append(Block(channels, inner, stride, split=sizes.split))
                channels = 4 * inner
            self.stages.append(f"res{number + 2}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
            inner *= 2

    def forward(self, x: Tensor) -> list[Tensor]:
        for conv in self.stem.values():
            x = F.relu(conv(x))
        x = F.max_pool2d(x, 3, 2, padding=1)
        features = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features[1:]


class Pyramid(nn.Module):
    """Picture (1, 3, H, W), sides multiples of 32 -> p3 to p7, (1, C, H / stride, W / stride) each."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.bottom_up = BottomUp(sizes)
        channels = sizes.pyramid_channels
        for level in (3, 4, 5):
            below = 4 * sizes.block_channels << (level - 2)
            self.add_module(f"fpn_lateral{level}", Conv(below, channels, 1, norm=sizes.split))
            self.add_module(f"fpn_output{level}", Conv(channels, channels, 3, norm=sizes.split))
        self.top_block = nn.ModuleDict(
            {name: Conv(channels, channels, 3, stride=2, norm=False) for name in ("p6", "p7")}
        )

    def forward(self, picture: Tensor) -> list[Tensor]:
        lateral = [
            self.get_submodule(f"fpn_lateral{level}")(c)
            for level, c in zip((3, 4, 5), self.bottom_up(picture), strict=True)
        ]
        for finer in (1, 0):
            lateral[finer] = lateral[finer] + F.interpolate(lateral[finer + 1], scale_factor=2.0)
        p3, p4, p5 = (
            self.get_submodule(f"fpn_output{level}")(top)
            for level, top in zip((3, 4, 5), lateral, strict=True)
        )
        p6 = self.top_block["p6"](p5)
        return [p3, p4, p5, p6, self.top_block["p7"](F.relu(p6))]


# ---- boxes -----------------------------------------------------------------------------------------------


def anchors(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """(height * width * 9, 4): boxes around the corners of a level's cells, sizes before ratios."""
    cell = []
    for size in ANCHOR_SIZES:
        area = (4 * stride * size) ** 2.0
        for ratio in ANCHOR_RATIOS:
            w = math.sqrt(area / ratio)
            h = ratio * w
            cell.append((-w / 2, -h / 2, w / 2, h / 2))
    y = torch.arange(height, dtype=torch.float32, device=device) * stride
    x = torch.arange(width, dtype=torch.float32, device=device) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    corners = torch.stack([x, y, x, y], -1).view(-1, 1, 4)
    return (corners + torch.tensor(cell, device=device)).view(-1, 4)


def apply_deltas(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Move boxes (N, 4) by what a layer says: centre in units of their size, size as a logarithm."""
    move = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = move[:, :2] * sides + (boxes[:, :2] + 0.5 * sides)
    sides = move[:, 2:].clamp(max=MAX_LOG_SCALE).exp() * sides
    return torch.cat([centers - 0.5 * sides, centers + 0.5 * sides], 1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def has_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


class ProposalHead(nn.Module):
    """One level's features (1, C, H, W) -> objectness (A,) and deltas (A, 4) of its A anchors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.objectness_logits = nn.Conv2d(channels, NUM_ANCHORS, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * NUM_ANCHORS, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.conv(features))
        logits = self.objectness_logits(x)[0].permute(1, 2, 0).flatten()
        deltas = self.anchor_deltas(x)[0].permute(1, 2, 0).reshape(-1, 4)
        return logits, deltas


class BoxHead(nn.Module):
    """Pooled features (N, C, 7, 7) -> (N, D)."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        channels, hidden = sizes.pyramid_channels, sizes.hidden_size
        for number in range(4 if sizes.split else 0):
            self.add_module(f"conv{number + 1}", Conv(channels, channels, 3))
        self.fc1 = nn.Linear(channels * POOLED**2, hidden)
        if not sizes.split:
            self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = F.relu(layer(x.flatten(1) if isinstance(layer, nn.Linear) else x))
        return x


class BoxPredictor(nn.Module):
    """(N, D) -> class logits (N, K + 1), the last one background, and deltas (N, 4) for all classes."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.cls_score = nn.Linear(sizes.hidden_size, sizes.num_classes + 1)
        self.bbox_pred = nn.Linear(sizes.hidden_size, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class Proposals(nn.Module):
    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.rpn_head = ProposalHead(sizes.pyramid_channels)


class Heads(nn.Module):
    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.box_head = nn.ModuleList(BoxHead(sizes) for _ in range(NUM_STAGES))
        self.box_predictor = nn.ModuleList(BoxPredictor(sizes) for _ in range(NUM_STAGES))

    def stage(self, k: int) -> tuple[BoxHead, BoxPredictor]:
        return cast(BoxHead, self.box_head[k]), cast(BoxPredictor, self.box_predictor[k])


def pool(features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """(N, C, 7, 7): each box from the level that suits its area."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(CANONICAL_LEVEL + torch.log2(area.sqrt() / CANONICAL_SIDE + 1e-8))
    place = level.clamp(3, 5).long() - 3
    pooled = features[0].new_zeros(len(boxes), features[0].shape[1], POOLED, POOLED)
    for k in range(BOX_LEVELS):
        members = torch.where(place == k)[0]
        pooled[members] = roi_align(features[k], boxes[members], POOLED, 1 / STRIDES[k])
    return pooled


# ---- the network -----------------------------------------------------------------------------------------


class UniDet(nn.Module):
    """One picture at a time: `features`, then `find` in them."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes = sizes
        self.backbone = Pyramid(sizes)
        self.proposal_generator = Proposals(sizes)
        self.roi_heads = Heads(sizes)

    def features(self, picture: Tensor) -> list[Tensor]:
        """picture: (3, H, W) float32 BGR in [0, 255] -> the five levels of the pyramid."""
        height, width = picture.shape[1:]
        padded = F.pad(self.normalized(picture), (0, -width % PADDING, 0, -height % PADDING))
        return self.backbone(padded[None])

    def normalized(self, pictures: Tensor) -> Tensor:
        """(..., 3, H, W) with the channels' statistics taken away; black is not 0, but padding is."""
        mean, std = pictures.new_tensor(PIXELS[self.sizes.backbone])[:, :, None, None]
        return (pictures - mean) / std

    def find(self, features: Sequence[Tensor], height: int, width: int) -> Found:
        """height, width: of the picture before padding."""
        boxes = self.propose(features, height, width)
        total = torch.zeros((), device=boxes.device)
        for k in range(NUM_STAGES):
            logits, deltas = self.judge(k, features, clip(boxes, height, width))
            total = total + logits.sigmoid()
            boxes = apply_deltas(deltas, clip(boxes, height, width), STAGE_WEIGHTS[k])
        return select(boxes, total * (1.0 / NUM_STAGES), height, width)

    def propose(self, features: Sequence[Tensor], height: int, width: int) -> Tensor:
        """The boxes (N, 4), at most 1000, in which something may be."""
        boxes, logits, levels = [], [], []
        for number, level in enumerate(features):
            logit, deltas = self.proposal_generator.rpn_head(level)
            around = anchors(level.shape[2], level.shape[3], STRIDES[number], level.device)
            best, index = logit.topk(min(NUM_PROPOSALS, len(logit)))
            boxes.append(apply_deltas(deltas, around, (1.0, 1.0, 1.0, 1.0))[index])
            logits.append(best)
            levels.append(torch.full_like(index, number))
        box, logit, level = torch.cat(boxes), torch.cat(logits), torch.cat(levels)
        is_finite = torch.isfinite(box).all(1) & torch.isfinite(logit)
        box = clip(box, height, width)
        keep = is_finite & has_area(box)
        box, logit, level = box[keep], logit[keep], level[keep]
        return box[grouped_nms(box, logit.float(), level, PROPOSAL_IOU)[:NUM_PROPOSALS]]

    def judge(self, stage: int, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and deltas of boxes at a stage of the cascade."""
        head, predictor = self.roi_heads.stage(stage)
        return predictor(head(pool(features, boxes)))


def select(boxes: Tensor, scores: Tensor, height: int, width: int) -> Found:
    """Every (box, class) over the threshold, without its worse copies, the best 300 in descending score.

    boxes: (N, 4).   scores: (N, K + 1); the last column, background, is not used. A box may keep several.
    """
    is_finite = torch.isfinite(boxes).all(1) & torch.isfinite(scores).all(1)
    boxes, scores = clip(boxes[is_finite], height, width), scores[is_finite, :-1]
    index, classes = torch.where(scores > MIN_SCORE)
    boxes, scores = boxes[index], scores[index, classes]
    keep = grouped_nms(boxes, scores.float(), classes, CLASS_IOU)[:MAX_DETECTIONS]
    keep = keep[has_area(boxes[keep])]
    return Found(boxes[keep], scores[keep], classes[keep])
