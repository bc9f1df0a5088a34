"""Run OpenAI's CLIP on the cases with random weights and store what it gives (official.npz, tokens.json).

    python tests/golden/clip/make.py CLIP_FOLDER PROMPTS_FOLDER

The first folder is a checkout of openai/CLIP (d05afc436d78f1c48dc0dbf8e5980a9d471f35f6), whose package is
imported from there; the second holds T2I-CompBench's prompt lists. Needs ftfy and torchvision.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3]))
from gentron.torchvision_ops import prepare_torchvision  # noqa: E402

prepare_torchvision()
from bench.scorers.clip import ARCHITECTURES, B_32, L_14_336, Architecture, random_state, small  # noqa: E402
from tests.golden.clip import cases  # noqa: E402


def main(repository: Path, prompts: Path) -> None:
    sys.path.insert(0, str(repository))
    clip: Any = import_module("clip")
    build_model = import_module("clip.model").build_model
    results: dict[str, np.ndarray] = {}

    def embed(name: str, sizes: Architecture) -> None:
        state = {key: value.float() for key, value in random_state(sizes, seed=cases.SEED).items()}
        model: Any = build_model(state).float()
        transform = clip.clip._transform(sizes.image_size)
        pixels = [transform(Image.fromarray(image)) for image in cases.images()]
        with torch.no_grad():
            seen = model.encode_image(torch.stack(pixels))
            read = model.encode_text(clip.tokenize(list(cases.TEXTS), truncate=True))
        results[f"{name}_pixels"] = np.stack([cases.sampled(one.numpy()) for one in pixels])
        results[f"{name}_images"], results[f"{name}_texts"] = seen.numpy(), read.numpy()
        unit = [features / features.norm(dim=-1, keepdim=True) for features in (seen, read)]
        results[f"{name}_cosines"] = (unit[0] @ unit[1].T).numpy()

    embed("small", small(ARCHITECTURES[B_32]))
    embed("small_336", small(ARCHITECTURES[L_14_336]))
    embed("full", ARCHITECTURES[B_32])
    for name in ("full_images", "full_texts", "full_pixels"):
        del results[name]
    results["tokens"] = clip.tokenize(list(cases.TEXTS), truncate=True).numpy().astype(np.int32)
    np.savez_compressed(Path(__file__).with_name("official.npz"), **results)  # type: ignore[arg-type]
    digests = {}
    for path in sorted(prompts.glob("*_val*.txt")):
        ids = clip.tokenize(path.read_text("utf-8").splitlines()).numpy().astype("<i4")
        digests[path.name] = hashlib.sha256(ids.tobytes()).hexdigest()
    Path(__file__).with_name("tokens.json").write_text(json.dumps(digests, indent=1) + "\n")
    for name, values in results.items():
        print(name, values.shape, float(np.abs(values).max()))
    print(np.round(results["full_cosines"], 4))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
