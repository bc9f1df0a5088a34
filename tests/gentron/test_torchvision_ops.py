# N boxes

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from gentron.torchvision_ops import nms

# PyPI's torchvision 0.28 beside a CPU torch: the extension is there, does not load, and nms is described.
BROKEN_TORCHVISION = """
import torch
@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold): ...
"""
IMPORT = """
import torch
from gentron.torchvision_ops import prepare_torchvision
if {prepare}:
    assert prepare_torchvision() is not None
import torchvision
print(torch.ops.torchvision.nms(torch.tensor([[0., 0., 1., 1.]]), torch.ones(1), 0.5).tolist())
"""


def import_torchvision(folder: Path, *, prepare: bool) -> subprocess.CompletedProcess[str]:
    (folder / "torchvision").mkdir(exist_ok=True)
    (folder / "torchvision" / "__init__.py").write_text(BROKEN_TORCHVISION)
    (folder / "torchvision" / "_C.so").write_bytes(b"not a library")
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-c", IMPORT.format(prepare=prepare)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )


def test_a_torchvision_without_its_ops_becomes_importable(tmp_path: Path) -> None:
    assert "operator torchvision::nms does not exist" in import_torchvision(tmp_path, prepare=False).stderr
    done = import_torchvision(tmp_path, prepare=True)
    assert (done.returncode, done.stdout) == (0, "[0]\n"), done.stderr


def test_nms_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 5.0]])
    scores = torch.tensor([0.8, 0.9, 0.1, 0.7])
    assert nms(boxes, scores, 0.5).tolist() == [1, 3, 2]  # IoU 0.68 with box 0, 0.32 with box 3
    assert nms(boxes, scores, 0.7).tolist() == [1, 0, 3, 2]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []
