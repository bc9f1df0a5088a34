"""Scene -> picture, exactly: the same scene gives the same bytes everywhere."""

from __future__ import annotations

from functools import cache

import numpy as np

from gentron.shapes.scene import BACKGROUND, CANVAS, COLORS, INK, Scene, SceneObject, corner, coverage


@cache
def ink(texture: str) -> np.ndarray:
    """(64, 64) float32 in [0, 1]: where a texture's marks fall. It is anchored to the canvas, period 8."""
    ticks = (np.arange(CANVAS * 4) + 0.5) / 4
    x, y = np.meshgrid(ticks, ticks)
    if texture == "plain":
        marks = np.zeros_like(x, bool)
    elif texture == "striped":
        marks = y % 8 >= 4
    elif texture == "checkered":
        marks = (x % 8 >= 4) ^ (y % 8 >= 4)
    elif texture == "dotted":
        # a dot at each (0, 0) and (4, 4) of the period: thin shapes (ring, cross) get some too
        near = [((x - c + 4) % 8 - 4) ** 2 + ((y - c + 4) % 8 - 4) ** 2 <= 1.7**2 for c in (0, 4)]
        marks = near[0] | near[1]
    else:
        raise ValueError(f"unknown texture {texture!r}")
    share = marks.astype(np.float32).reshape(CANVAS, 4, CANVAS, 4).mean((1, 3))
    share.setflags(write=False)
    return share


def _draw(picture: np.ndarray, thing: SceneObject) -> None:
    top, left = corner(thing)
    alpha = coverage(thing.shape, thing.size)[..., None]
    window = np.s_[top : top + len(alpha), left : left + len(alpha)]
    marks = ink(thing.texture)[window][..., None]
    paint = np.array(COLORS[thing.color], np.float32) * (1 - marks) + np.array(INK, np.float32) * marks
    picture[window] = picture[window] * (1 - alpha) + paint * alpha


def render(scene: Scene) -> np.ndarray:
    """The picture, (64, 64, 3) uint8; the first object is drawn last, in front."""
    picture = np.empty((CANVAS, CANVAS, 3), np.float32)
    picture[:] = BACKGROUND
    for thing in reversed(scene.objects):
        _draw(picture, thing)
    return np.round(picture).astype(np.uint8)
