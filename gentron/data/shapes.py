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
from gentron.shapes.scene import CANVAS, DEFAULT_MIXTURE, SIZES, WORLD_VERSION, SceneMixture

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [-1, 1] -> latents (B, C, H, W) at unit variance."""

SHIFT = 4
"""Pixels: what an object of a clip moves in a frame, and a cell of the bundled autoencoder's latents."""


def _pictures(scenes: Sequence[Scene]) -> Tensor:
    """(B, 3, 64, 64) float32 in [-1, 1]."""
    return to_unit_range(np.stack([render(scene) for scene in scenes]))


def draw_scene(rng: np.random.Generator, mixture: SceneMixture, off_grid: float) -> Scene:
    """A training scene, shifted as a whole with probability `off_grid`.

    The grid's own scenes come first and from the same numbers: without shifts they are what they were.
    """
    scene = sample_scene(rng, mixture)
    return shifted(scene, rng) if off_grid and rng.random() < off_grid else scene


def shifted(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene moved as a whole by multiples of SHIFT pixels, any place where it fits being as likely.

    Relations hold wherever a scene stands, so its captions stay true.
    """
    move = []
    for axis in ("x", "y"):
        low = min(getattr(thing, axis) - SIZES[thing.size] // 2 for thing in scene.objects)
        high = max(getattr(thing, axis) + SIZES[thing.size] // 2 for thing in scene.objects)
        move.append(SHIFT * int(rng.integers(-(low // SHIFT), (CANVAS - high) // SHIFT + 1)))
    return Scene(tuple(o.at(o.x + move[0], o.y + move[1]) for o in scene.objects), scene.relation)


def world_fingerprint(pool_seed: int, mixture: SceneMixture = DEFAULT_MIXTURE, off_grid: float = 0.0) -> str:
    """Changes when the world's scenes or pictures change, whoever forgot to raise WORLD_VERSION."""
    digest = hashlib.sha256(f"world {WORLD_VERSION} seed {pool_seed}".encode())
    if off_grid:
        digest.update(f"off grid {off_grid}".encode())
    for index in range(64):
        scene = draw_scene(keyed_rng(pool_seed, index, Stream.SCENE), mixture, off_grid)
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
        off_grid: float = 0.0,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        if pool_size < 1 or validation_size < 1:
            raise ValueError(
                f"pool_size and validation_size must be >= 1, got {pool_size} and {validation_size}"
            )
        self.seed, self.pool_size, self._mixture, self._off_grid = seed, pool_size, mixture, off_grid
        self._scenes: dict[int, Scene] = {}
        held_back = [
            draw_scene(keyed_rng(seed, i, Stream.HELD_BACK_SCENE), mixture, off_grid)
            for i in range(validation_size)
        ]
        captions = [caption(s, keyed_rng(seed, i, Stream.HELD_BACK_CAPTION)) for i, s in enumerate(held_back)]
        with torch.no_grad():
            parts = [encode(_pictures(held_back[i : i + 64])).cpu() for i in range(0, validation_size, 64)]
        self._held_back = Batch(torch.cat(parts).float(), captions)

        def encode_items(items: range) -> np.ndarray:
            with torch.no_grad():
                return encode(_pictures([self._scene(i, keep=False) for i in items])).cpu().half().numpy()

        self._latents = latent_cache(
            cache_dir / f"shapes-{world_fingerprint(seed, mixture, off_grid)}-{autoencoder_hash}.f16",
            num_items=pool_size,
            shape=tuple(self._held_back.latents.shape[1:]),
            encode_items=encode_items,
            on_progress=on_progress,
        )

    @property
    def name(self) -> str:
        shifts = f", {self._off_grid:g} of them off the grid" if self._off_grid else ""
        pool = f"pool of {self.pool_size} scenes{shifts}, seed {self.seed}"
        return f"shapes (world {WORLD_VERSION}, {CANVAS} px, {pool})"

    def _scene(self, item: int, *, keep: bool = True) -> Scene:
        if item in self._scenes:
            return self._scenes[item]
        scene = draw_scene(keyed_rng(self.seed, item, Stream.SCENE), self._mixture, self._off_grid)
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
