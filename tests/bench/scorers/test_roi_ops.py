# N boxes as x1, y1, x2, y2; C H W features, S side of the pooled grid

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.scorers import roi_ops
from tests.golden.unidet.case import SUPPRESSIONS, boxes, roi_features, suppression
from tests.parity import Compare

# by torchvision 0.28's compiled code
COMPILED = "detectron2's compiled operations (stored)"
GOLDEN = Path(__file__).parents[2] / "golden" / "unidet" / "operations.npz"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The torch forms, also where the compiled operations work."""
    monkeypatch.setattr(roi_ops, "compiled_ops", lambda device: None)
    yield


def iou(a: Tensor, b: Tensor) -> float:
    width = min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0]))
    height = min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1]))
    shared = max(width, 0) * max(height, 0)
    whole = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)) - shared
    return shared / whole if whole else 0.0


@pytest.mark.parametrize("name", SUPPRESSIONS)
def test_grouped_nms_keeps_what_the_compiled_code_keeps(name: str, plain: None, parity: Compare) -> None:
    box, score, group, threshold = suppression(name)
    kept = roi_ops.grouped_nms(torch.tensor(box), torch.tensor(score), torch.tensor(group), threshold)
    with np.load(GOLDEN) as golden:
        parity("UniDet operations", f"class-wise NMS, {name}", kept, golden[f"nms/{name}"], against=COMPILED)


def test_roi_align_equals_the_compiled_code_to_the_last_bit(plain: None, parity: Compare) -> None:
    pooled = roi_ops.roi_align(torch.tensor(roi_features(7)), torch.tensor(boxes(80, 200, 7)), 7, 1 / 8)
    with np.load(GOLDEN) as golden:
        parity("UniDet operations", "RoIAlign", pooled, golden["roi_align"], against=COMPILED)


@pytest.mark.skipif(roi_ops.compiled_ops("cpu") is None, reason="torchvision's operations do not work here")
def test_compiled_and_plain_operations_are_equal() -> None:
    box, score = torch.tensor(boxes(500, 200, 3)), torch.rand(500, generator=torch.Generator().manual_seed(0))
    features = torch.randn(1, 5, 40, 17, generator=torch.Generator().manual_seed(0))
    assert roi_ops.nms(box, score, 0.6).equal(roi_ops.plain_nms(box, score, 0.6))
    pooled = roi_ops.roi_align(features, box, 7, 1 / 16)
    assert pooled.equal(roi_ops.plain_roi_align(features[0], box, 7, 1 / 16))


def test_nms_leaves_no_two_that_overlap_and_drops_none_without_cause() -> None:
    box = torch.tensor(boxes(60, 100, 1))
    score = torch.rand(60, generator=torch.Generator().manual_seed(1))
    kept = roi_ops.plain_nms(box, score, 0.4).tolist()
    assert score[kept].tolist() == sorted(score[kept].tolist(), reverse=True)
    for place, i in enumerate(kept):
        assert all(iou(box[i], box[j]) <= 0.4 for j in kept[:place])
    dropped = set(range(60)) - set(kept)
    assert dropped
    for i in dropped:
        assert any(iou(box[i], box[j]) > 0.4 and score[j] > score[i] for j in kept)


def test_nms_keeps_the_first_of_equal_scores() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    assert roi_ops.plain_nms(box, torch.ones(3), 0.5).tolist() == [0]


@pytest.mark.parametrize("count", [400, 1200])  # shifted groups, groups one by one
def test_groups_do_not_touch_each_other(count: int, plain: None) -> None:
    random = np.random.RandomState(count)
    box = torch.tensor(np.tile(boxes(100, 60, 1), (count // 100, 1)))
    score = torch.tensor(random.permutation(count) / count, dtype=torch.float32)
    group = torch.tensor(random.randint(0, 3, count))
    together = set(roi_ops.grouped_nms(box, score, group, 0.5).tolist())
    for g in range(3):
        members = torch.where(group == g)[0]
        alone = members[roi_ops.plain_nms(box[members], score[members], 0.5)]
        assert together & set(members.tolist()) == set(alone.tolist())


def test_no_boxes_give_no_boxes(plain: None) -> None:
    none, scores = torch.zeros(0, 4), torch.zeros(0)
    assert roi_ops.nms(none, scores, 0.5).tolist() == []
    assert roi_ops.grouped_nms(none, scores, scores.long(), 0.5).tolist() == []
    assert roi_ops.roi_align(torch.ones(1, 2, 4, 4), none, 7, 1.0).shape == (0, 2, 7, 7)


def test_roi_align_of_a_ramp_is_the_ramp_at_the_bins(plain: None) -> None:
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    ramp = (2 * x + 3 * y)[None, None]
    box = torch.tensor([[16.0, 24.0, 72.0, 52.0]])  # at scale 1/2: x 8 to 36, y 12 to 26, cells are at + 1/2
    pooled = roi_ops.roi_align(ramp, box, 7, 0.5)[0, 0]
    columns, rows = 8 + 4 * (torch.arange(7) + 0.5) - 0.5, 12 + 2 * (torch.arange(7) + 0.5) - 0.5
    torch.testing.assert_close(pooled, 2 * columns + 3 * rows[:, None], atol=1e-4, rtol=0)


def test_roi_align_of_a_flat_box_is_zero_and_outside_counts_as_zero(plain: None) -> None:
    ones = torch.ones(1, 1, 8, 8)
    flat, away = [3.0, 3.0, 3.0, 6.0], [20.0, 20.0, 27.0, 27.0]
    assert roi_ops.roi_align(ones, torch.tensor([flat, away]), 7, 1.0).count_nonzero() == 0
    half = roi_ops.roi_align(ones, torch.tensor([[4.0, 0.0, 18.0, 7.0]]), 7, 1.0)[0, 0]
    assert half[:, :2].tolist() == [[1.0, 1.0]] * 7 and half[:, 3:].count_nonzero() == 0
