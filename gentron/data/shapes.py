"""The built-in world as a data source: scenes encoded once, captions phrased anew on each visit."""

# B batch, C latent channels, H W latent size

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gentron.data.keyed import Stream, keyed_rng
from gentron.data.latents import latent_cache
from gentron.data.source import Batch, item_of_index
from gentron.pixels import to_unit_range
from gentron.shapes import Scene, caption, render, sample_scene
from gentron.shapes.scene import CANVAS, DEFAULT_MIXTURE, WORLD_VERSION, SceneMixture

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [-1, 1] -> latents (B, C, H, W) at unit variance."""


def _pictures(scenes: Sequence[Scene]) -> Tensor:
    """(B, 3, 64, 64) float32 in [-1, 1]."""
    return to_unit_range(np.stack([render(scene) for scene in scenes]))


def world_fingerprint(pool_seed: int, mixture: SceneMixture = DEFAULT_MIXTURE) -> str:
    """Changes when the world's scenes or pictures change, whoever forgot to raise WORLD_VERSION."""
    digest = hashlib.sha256(f"world {WORLD_VERSION} seed {pool_seed}".encode())
    for index in range(64):
        scene = sample_scene(keyed_rng(pool_seed, index, Stream.SCENE), mixture)
        digest.update(repr(scene).encode() + render(scene).tobytes())
    return digest.hexdigest()[:16]


class ShapesSource:
    """`pool_size` scenes in a keyed order, and a held-back set from a stream of its own."""

    def __init__(
        self,
        *,
        encode: Encode,
        autoencoder_hash: str,
        cache_dir: Path,
        seed: int,
        pool_size: int,
        validation_size: int,
        mixture: SceneMixture = DEFAULT_MIXTURE,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        if pool_size < 1 or validation_size < 1:
            raise ValueError(
                f"pool_size and validation_size must be >= 1, got {pool_size} and {validation_size}"
            )
        self.seed, self.pool_size, self._mixture = seed, pool_size, mixture
        self._scenes: dict[int, Scene] = {}
        held_back = [
            sample_scene(keyed_rng(seed, i, Stream.HELD_BACK_SCENE), mixture) for i in range(validation_size)
        ]
        captions = [caption(s, keyed_rng(seed, i, Stream.HELD_BACK_CAPTION)) for i, s in enumerate(held_back)]
        with torch.no_grad():
            parts = [encode(_pictures(held_back[i : i + 64])).cpu() for i in range(0, validation_size, 64)]
        self._held_back = Batch(torch.cat(parts).float(), captions)

        def encode_items(items: range) -> np.ndarray:
            with torch.no_grad():
                return encode(_pictures([self._scene(i, keep=False) for i in items])).cpu().half().numpy()

        self._latents = latent_cache(
            cache_dir / f"shapes-{world_fingerprint(seed, mixture)}-{autoencoder_hash}.f16",
            num_items=pool_size,
            shape=tuple(self._held_back.latents.shape[1:]),
            encode_items=encode_items,
            on_progress=on_progress,
        )

    @property
    def name(self) -> str:
        return (
            f"shapes (world {WORLD_VERSION}, {CANVAS} px, pool of {self.pool_size} scenes, seed {self.seed})"
        )

    def _scene(self, item: int, *, keep: bool = True) -> Scene:
        if item in self._scenes:
            return self._scenes[item]
        scene = sample_scene(keyed_rng(self.seed, item, Stream.SCENE), self._mixture)
        if keep:
            self._scenes[item] = scene  # about 1 KB each; drawing it again costs 0.1-0.3 ms
        return scene

    def batch(self, global_indices: Sequence[int]) -> Batch:
        items = [item_of_index(self.seed, i, self.pool_size) for i in global_indices]
        captions = [
            caption(self._scene(item), keyed_rng(self.seed, i, Stream.CAPTION))
            for item, i in zip(items, global_indices, strict=True)
        ]
        return Batch(torch.from_numpy(self._latents[items].astype(np.float32)), captions)

    def held_back(self) -> Batch:
        return self._held_back
