"""Clips of the built-in world as a data source: encoded once, captions phrased anew on each visit."""

# B batch, F frames, C latent channels, H W latent size, S picture side in pixels

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from gentron.data.keyed import Stream, keyed_rng
from gentron.data.latents import latent_cache
from gentron.data.shapes import Encode
from gentron.data.source import Batch, item_of_index
from gentron.pixels import to_unit_range
from gentron.shapes import (
    MotionMixture,
    MovingScene,
    clip_caption,
    opposite_caption,
    render_clip,
    sample_clip,
)
from gentron.shapes.motion import DEFAULT_MOTION_MIXTURE, MOTION_VERSION
from gentron.shapes.scene import CANVAS, WORLD_VERSION

ENCODE_BATCH = 64
"""Frames a pass."""


def encode_frames(clips: np.ndarray, encode: Encode) -> np.ndarray:
    """(N, F, S, S, 3) uint8 -> latents (N, F, C, H, W) float16; equal frames are encoded once."""
    frames = clips.reshape(-1, *clips.shape[2:])
    rows = [hashlib.sha256(frame.tobytes()).digest() for frame in frames]
    first = {row: place for place, row in reversed(list(enumerate(rows)))}
    order = {row: number for number, row in enumerate(first)}
    distinct = frames[list(first.values())]
    with torch.no_grad():
        parts = [
            encode(to_unit_range(distinct[start : start + ENCODE_BATCH])).cpu().half().numpy()
            for start in range(0, len(distinct), ENCODE_BATCH)
        ]
    latents = np.concatenate(parts)[[order[row] for row in rows]]
    return latents.reshape(*clips.shape[:2], *latents.shape[1:])


def motion_fingerprint(pool_seed: int, num_frames: int, mixture: MotionMixture) -> str:
    """Changes when the world's clips or their pictures change, whoever forgot to raise MOTION_VERSION."""
    digest = hashlib.sha256(f"world {WORLD_VERSION} motion {MOTION_VERSION} seed {pool_seed}".encode())
    for index in range(32):
        clip = sample_clip(keyed_rng(pool_seed, index, Stream.CLIP), num_frames=num_frames, mixture=mixture)
        digest.update(repr(clip).encode() + render_clip(clip, num_frames).tobytes())
    return digest.hexdigest()[:16]


class ShapesClips:
    """`pool_size` clips in a keyed order, and a held-back set from a stream of its own."""

    def __init__(
        self,
        *,
        encode: Encode,
        autoencoder_hash: str,
        cache_dir: Path,
        seed: int,
        num_frames: int,
        pool_size: int,
        validation_size: int,
        mixture: MotionMixture = DEFAULT_MOTION_MIXTURE,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        if pool_size < 1 or validation_size < 1:
            raise ValueError(
                f"pool_size and validation_size must be >= 1, got {pool_size} and {validation_size}"
            )
        self.seed, self.pool_size, self.num_frames, self._mixture = seed, pool_size, num_frames, mixture
        self._clips: dict[int, MovingScene] = {}
        self._held_back_clips = [self._draw(i, Stream.HELD_BACK_CLIP) for i in range(validation_size)]
        latents = encode_frames(self._rendered(self._held_back_clips), encode).astype(np.float32)
        captions = [clip_caption(c, self._caption_rng(i)) for i, c in enumerate(self._held_back_clips)]
        self._held_back = Batch(torch.from_numpy(latents), captions)

        def encode_items(items: range) -> np.ndarray:
            return encode_frames(self._rendered([self._draw(i, Stream.CLIP) for i in items]), encode)

        fingerprint = motion_fingerprint(seed, num_frames, mixture)
        self._latents = latent_cache(
            cache_dir / f"shapes-clips-{num_frames}-{fingerprint}-{autoencoder_hash}.f16",
            num_items=pool_size,
            shape=latents.shape[1:],
            encode_items=encode_items,
            on_progress=on_progress,
        )

    @property
    def name(self) -> str:
        pool = f"pool of {self.pool_size} clips of {self.num_frames} frames, seed {self.seed}"
        return f"shapes clips (world {WORLD_VERSION}, motion {MOTION_VERSION}, {CANVAS} px, {pool})"

    def _draw(self, index: int, stream: Stream) -> MovingScene:
        rng = keyed_rng(self.seed, index, stream)
        return sample_clip(rng, num_frames=self.num_frames, mixture=self._mixture)

    def _rendered(self, clips: Sequence[MovingScene]) -> np.ndarray:
        """(N, F, S, S, 3) uint8."""
        return np.stack([render_clip(clip, self.num_frames) for clip in clips])

    def _caption_rng(self, held_back: int) -> np.random.Generator:
        return keyed_rng(self.seed, held_back, Stream.HELD_BACK_CLIP_CAPTION)

    def _clip(self, item: int) -> MovingScene:
        if item not in self._clips:
            self._clips[item] = self._draw(item, Stream.CLIP)
        return self._clips[item]

    def batch(self, global_indices: Sequence[int]) -> Batch:
        items = [item_of_index(self.seed, i, self.pool_size) for i in global_indices]
        captions = [
            clip_caption(self._clip(item), keyed_rng(self.seed, i, Stream.CLIP_CAPTION))
            for item, i in zip(items, global_indices, strict=True)
        ]
        return Batch(torch.from_numpy(self._latents[items].astype(np.float32)), captions)

    def held_back(self) -> Batch:
        return self._held_back

    def swapped_captions(self) -> list[str]:
        """The same words with each direction turned round; a still clip keeps its caption."""
        captions = []
        for i, clip in enumerate(self._held_back_clips):
            moves = any(movement.speed for movement in clip.moves)
            captions.append((opposite_caption if moves else clip_caption)(clip, self._caption_rng(i)))
        return captions
