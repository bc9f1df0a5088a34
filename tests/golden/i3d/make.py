"""Run piergiaj's pytorch-i3d on our random weights and clips; store its logits in logits.npz beside us.

    python tests/golden/i3d/make.py FOLDER

FOLDER holds pytorch_i3d.py of piergiaj/pytorch-i3d at 05783d11f9632b25fe3d50395a9c9bb51f848d6d (Apache-2.0).
Prints the largest difference to ours.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.set_metrics.features.i3d import I3D  # noqa: E402
from tests.golden.i3d import case  # noqa: E402


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    state = case.state_dict()
    original: Any = import_module("pytorch_i3d").InceptionI3d(400).eval()
    original.load_state_dict(state)
    ours = I3D().eval()
    ours.load_state_dict(state)
    logits = {}
    for num_frames in case.FRAMES:
        with torch.inference_mode():
            theirs = original(case.clip(num_frames)).mean(dim=2)[0].numpy()
            found = ours(case.clip(num_frames))[0].numpy()
        logits[f"frames_{num_frames}"] = theirs
        print(f"{num_frames} frames: {np.abs(found - theirs).max():.1e} of {np.abs(theirs).max():.1f}")
    np.savez_compressed(Path(__file__).with_name("logits.npz"), **logits)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
