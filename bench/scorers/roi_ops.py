"""Non-maximum suppression and RoIAlign: torchvision's compiled operations where they work, else plain torch.

PyPI's torchvision has no compiled operations beside a CPU torch (gentron.torchvision_ops). The plain forms do
the same float32 arithmetic in the same order, so that their results are equal to the last bit, not close: one
box more or less after a suppression changes all that comes after it.
"""

# N boxes as x1, y1, x2, y2 in pixels; C H W features, S side of the pooled grid

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from gentron.torchvision_ops import prepare_torchvision

OFFSET_LIMIT = {
    "cpu": 1000,
    "cuda": 5000,
}  # most boxes that groups are kept apart by shifting (torchvision 0.15)
ROWS = 2048  # pooled pixels at a time: what a core's cache holds


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that no better kept one covers by an IoU over `threshold`, in descending score.

    boxes: (N, 4) float32.   scores: (N,) float32; equal ones keep their order.
    """
    compiled = compiled_ops(boxes.device.type)
    return compiled.nms(boxes, scores, threshold) if compiled else plain_nms(boxes, scores, threshold)


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """`nms` within each group (a level or a class), all kept indices in descending score.

    groups: (N,) int64, from 0. The official environment's torchvision keeps groups apart by shifting them as
    long as there are few boxes, which rounds the coordinates of high groups by up to 1/32 pixel [Q], and goes
    through them one by one beyond. Later versions moved that limit; here it stays.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if len(boxes) <= OFFSET_LIMIT.get(boxes.device.type, OFFSET_LIMIT["cuda"]):
        shift = groups.to(boxes) * (boxes.max() + 1)
        return nms(boxes + shift[:, None], scores, threshold)
    is_kept = torch.zeros_like(scores, dtype=torch.bool)
    for group in groups.unique():
        members = torch.where(groups == group)[0]
        is_kept[members[nms(boxes[members], scores[members], threshold)]] = True
    kept = torch.where(is_kept)[0]
    return kept[scores[kept].sort(descending=True)[1]]


def roi_align(features: Tensor, boxes: Tensor, side: int, scale: float) -> Tensor:
    """Mean of each box's features on a grid, sampled bilinearly: (N, C, S, S).

    features: (1, C, H, W).   boxes: (N, 4), pixels of the picture.   scale: features per pixel. Aligned by
    half a cell; each bin is sampled in both directions every cell or denser ("sampling ratio 0").
    """
    boxes = boxes.to(features.dtype)  # [Q] in half precision corners step by up to a quarter of a pixel
    compiled = compiled_ops(features.device.type)
    if compiled is None:
        return plain_roi_align(features[0], boxes, side, scale)
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    return compiled.roi_align(features, rois, (side, side), scale, 0, True)


@cache
def compiled_ops(device: str) -> ModuleType | None:
    """torchvision.ops if its operations work on this kind of device: they are tried on one box."""
    prepare_torchvision()
    try:
        from torchvision import ops

        box = torch.tensor([[0.0, 0.0, 2.0, 2.0]], device=device)
        ops.nms(box, box[:, 2], 0.5)
        ops.roi_align(box[None, None], [box], 1)
    except (ImportError, AttributeError, RuntimeError):  # absent; without operations; not for this device
        return None
    return ops


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """`nms` in torch; takes N^2 numbers of memory."""
    order = scores.sort(descending=True, stable=True)[1]
    x1, y1, x2, y2 = boxes[order].unbind(1)
    area = (x2 - x1) * (y2 - y1)
    width = (torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1)).clamp(min=0)
    height = (torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1)).clamp(min=0)
    shared = width.mul_(height)
    iou = shared / (area[:, None] + area - shared)
    covers = (iou.double() > threshold).cpu().numpy()  # double: the threshold is not rounded to float32
    is_kept = np.ones(len(covers), bool)
    for i in range(len(covers)):
        if is_kept[i]:
            is_kept[i + 1 :] &= ~covers[i, i + 1 :]
    return order[torch.from_numpy(is_kept).to(order.device)]


def plain_roi_align(features: Tensor, boxes: Tensor, side: int, scale: float) -> Tensor:
    """`roi_align` of one picture's features (C, H, W) in torch, computed in float32."""
    channels, height, width = features.shape
    pixels = features.float().permute(1, 2, 0).reshape(height * width, channels).contiguous()
    start_x, start_y, end_x, end_y = (boxes.float() * scale - 0.5).unbind(1)
    bin_x, bin_y = (end_x - start_x) / side, (end_y - start_y) / side
    grids = torch.stack([bin_y, bin_x], 1).ceil().long()
    out = pixels.new_zeros(len(boxes), side * side, channels)
    for grid in grids.unique(dim=0):
        samples_y, samples_x = grid.tolist()
        if samples_y < 1 or samples_x < 1:  # a box without area: zeros
            continue
        members = torch.where((grids == grid).all(1))[0]
        for some in members.split(max(1, ROWS // side**2)):
            rows = _samples(start_y[some], bin_y[some], samples_y, side, height)
            columns = _samples(start_x[some], bin_x[some], samples_x, side, width)
            out[some] = _mean_of_samples(pixels, rows, columns, width)
    return out.transpose(1, 2).reshape(len(boxes), channels, side, side).to(features.dtype)


Sample = tuple[Tensor, Tensor, Tensor, Tensor]  # per box and bin: cell below, cell above, weight of each


def _samples(start: Tensor, size: Tensor, count: int, side: int, limit: int) -> list[Sample]:
    """The `count` sampling points along one axis in each bin of each box, as (N, S) each.

    limit: cells along this axis. A point more than one cell outside counts as zero, one nearer as the border.
    """
    bins = start[:, None] + torch.arange(side, device=start.device) * size[:, None]
    samples = []
    for k in range(count):
        point = bins + (k + 0.5) * size[:, None] / count
        is_near = (point >= -1) & (point <= limit)
        point = point.clamp(0, limit - 1)
        below = point.long()
        share = point - below
        samples.append((below, (below + 1).clamp(max=limit - 1), (1 - share) * is_near, share * is_near))
    return samples


def _mean_of_samples(pixels: Tensor, rows: list[Sample], columns: list[Sample], width: int) -> Tensor:
    """pixels: (H * W, C) -> (N, S * S, C), added up in the compiled operation's order."""
    num_boxes, side = rows[0][0].shape
    total = pixels.new_zeros(num_boxes * side**2, pixels.shape[1])
    for top, bottom, weight_top, weight_bottom in rows:
        for left, right, weight_left, weight_right in columns:
            value = _weighted(pixels, top * width, left, weight_top, weight_left)
            value += _weighted(pixels, top * width, right, weight_top, weight_right)
            value += _weighted(pixels, bottom * width, left, weight_bottom, weight_left)
            value += _weighted(pixels, bottom * width, right, weight_bottom, weight_right)
            total += value
    total /= len(rows) * len(columns)
    return total.view(num_boxes, side**2, -1)


def _weighted(pixels: Tensor, row: Tensor, column: Tensor, weight_y: Tensor, weight_x: Tensor) -> Tensor:
    place = (row[:, :, None] + column[:, None]).flatten()
    weight = (weight_y[:, :, None] * weight_x[:, None]).flatten()
    return pixels[place].mul_(weight[:, None])
