"""Which seed an image is drawn from."""

from __future__ import annotations

import hashlib
import json


def image_seed(run_seed: int, prompt_id: str, sample: int) -> int:
    """The seed of an image, in [0, 2^63): a function of these three and nothing else."""
    key = json.dumps([run_seed, prompt_id, sample]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
