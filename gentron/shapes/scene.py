"""Scenes: what stands where, and which combinations training never sees.

The canvas is 64 x 64 pixels, a grid of 4 x 4 cells of 16. A small object fills one cell, a large one two by
two; they leave the grid only to touch or overlap. Objects that neither touch nor overlap keep at least one
free cell between them, so that "touching" is never an accident.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

WORLD_VERSION = 1  # part of every cache key and protocol: a change of pictures or captions is a new world
CANVAS = 64
CELL = 16
BACKGROUND = (235, 235, 235)
INK = (45, 45, 50)  # the marks of a texture, the same for every colour

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (245, 220, 40),
    "green": (40, 165, 70),
    "cyan": (50, 205, 220),
    "blue": (40, 80, 220),
    "purple": (135, 50, 175),
    "pink": (250, 130, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart")
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = {"small": 14, "large": 28}  # extent in pixels
SPATIAL = ("left of", "right of", "above", "below")
INTERACTIONS = ("touching", "inside", "overlapping")
RELATIONS = SPATIAL + INTERACTIONS
OVERLAP_DISTANCE = 12  # between the centres of a small object and the large one it overlaps


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object; (x, y) is its centre in pixels, x to the right, y down."""

    shape: str
    color: str
    texture: str = "plain"
    size: str = "small"
    x: int = 0
    y: int = 0

    def at(self, x: int, y: int) -> SceneObject:
        return SceneObject(self.shape, self.color, self.texture, self.size, x, y)


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three objects, the first in front; `relation` holds between the first and the second."""

    objects: tuple[SceneObject, ...]
    relation: str | None = None


# ---- held-out combinations ------------------------------------------------------------------------------


def heldout_color_shape(color: str, shape: str) -> bool:
    """One shape for each colour."""
    return SHAPES.index(shape) == (3 * tuple(COLORS).index(color) + 1) % len(SHAPES)


def heldout_texture_shape(texture: str, shape: str) -> bool:
    """One shape for each texture but plain."""
    return texture != "plain" and SHAPES.index(shape) == (3 * TEXTURES.index(texture) + 2) % len(SHAPES)


def heldout_relation(first: str, relation: str, second: str) -> bool:
    """One in eight of the ordered pairs of shapes, for each relation."""
    place = SHAPES.index(first) + 3 * SHAPES.index(second) + 5 * RELATIONS.index(relation)
    return place % len(SHAPES) == 0


def is_heldout(scene: Scene) -> bool:
    """True if any combination in the scene is one that training never sees."""
    pairs = any(
        heldout_color_shape(o.color, o.shape) or heldout_texture_shape(o.texture, o.shape)
        for o in scene.objects
    )
    if scene.relation is None:
        return pairs
    return pairs or heldout_relation(scene.objects[0].shape, scene.relation, scene.objects[1].shape)


# ---- silhouettes -----------------------------------------------------------------------------------------


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points, inner radius 0.45: between tip and notch the edge is a straight line."""
    angle = np.arctan2(u, -v) % (2 * np.pi / 5)
    angle = np.minimum(angle, 2 * np.pi / 5 - angle)
    radius = np.hypot(u, v)
    notch = np.array([np.sin(np.pi / 5), np.cos(np.pi / 5)]) * 0.45
    x, y = radius * np.sin(angle), radius * np.cos(angle)
    return notch[0] * (y - 1) - (notch[1] - 1) * x <= 0


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The sextic (x^2 + y^2 - 1)^3 <= x^2 y^3."""
    x, y = 1.14 * u, 0.12 - 1.12 * v
    return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3


SILHOUETTES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: u**2 + v**2 <= 1,
    "square": lambda u, v: (abs(u) <= 0.92) & (abs(v) <= 0.92),
    "triangle": lambda u, v: (abs(u) <= (v + 1) / 1.92) & (v <= 0.92),
    "star": _star,
    "ring": lambda u, v: (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.55**2),
    "cross": lambda u, v: np.minimum(abs(u), abs(v)) <= 0.34,
    "diamond": lambda u, v: abs(u) + abs(v) <= 1,
    "heart": _heart,
}


@cache
def coverage(shape: str, size: str) -> np.ndarray:
    """(S, S) float32 in [0, 1], S the extent: the share of each pixel that is covered (4 x 4 samples)."""
    extent, samples = SIZES[size], 4
    ticks = (np.arange(extent * samples) + 0.5) / (extent * samples) * 2 - 1
    u, v = np.meshgrid(ticks, ticks)
    inside = SILHOUETTES[shape](u, v).astype(np.float32)
    alpha = inside.reshape(extent, samples, extent, samples).mean((1, 3))
    alpha.setflags(write=False)
    return alpha


def silhouette(thing: SceneObject) -> np.ndarray:
    """(64, 64) bool: pixels at least half covered, whatever stands in front."""
    mask = np.zeros((CANVAS, CANVAS), bool)
    top, left = corner(thing)
    alpha = coverage(thing.shape, thing.size)
    mask[top : top + len(alpha), left : left + len(alpha)] = alpha >= 0.5
    return mask


def corner(thing: SceneObject) -> tuple[int, int]:
    """Top and left pixel of the object's box."""
    half = SIZES[thing.size] // 2
    return thing.y - half, thing.x - half


def fits_canvas(thing: SceneObject) -> bool:
    half = SIZES[thing.size] // 2
    return half <= min(thing.x, thing.y) and max(thing.x, thing.y) <= CANVAS - half


# ---- layouts ---------------------------------------------------------------------------------------------


def _centre(cell: tuple[int, int], size: str) -> tuple[int, int]:
    offset = CELL // 2 if size == "small" else CELL
    return cell[0] * CELL + offset, cell[1] * CELL + offset


def _spans_apart(a: tuple[int, int], a_width: int, b: tuple[int, int], b_width: int) -> bool:
    """At least one free cell between two boxes of cells, along x or along y."""
    return any(a[i] + a_width < b[i] or b[i] + b_width < a[i] for i in (0, 1))


def place_apart(rng: np.random.Generator, sizes: list[str]) -> list[tuple[int, int]] | None:
    """Centres on the grid with a free cell between any two objects, or None if this draw has no room."""
    cells: list[tuple[tuple[int, int], int]] = []
    for size in sizes:
        width = 1 if size == "small" else 2
        x, y = (int(n) for n in rng.integers(0, 5 - width, 2))
        if not all(_spans_apart((x, y), width, other, w) for other, w in cells):
            return None
        cells.append(((x, y), width))
    return [_centre(cell, size) for (cell, _), size in zip(cells, sizes, strict=True)]


def spatial_holds(relation: str, a: tuple[float, float], b: tuple[float, float]) -> bool:
    """The rule of T2I-CompBench: the asked direction is the dominant one, by half a cell at least."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    if relation in ("right of", "below"):
        along = -along
    return along - abs(across) >= CELL / 2


@cache
def touching_distance(first: str, second: str, axis: int) -> int:
    """Centre distance in pixels at which two small silhouettes first touch, the first left of or above the
    second; `axis` 0 is horizontal."""
    a = SceneObject(first, "red", x=24, y=24)
    mask = silhouette(a)
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    for distance in range(SIZES["small"] + 2, 0, -1):
        b = a.at(24 + distance, 24) if axis == 0 else a.at(24, 24 + distance)
        b = SceneObject(second, "blue", x=b.x, y=b.y)
        if (silhouette(b) & grown).any():
            return distance
    raise AssertionError(f"{first} and {second} never touch")


@cache
def can_contain(first: str, second: str) -> bool:
    """A small `first` in the middle of a large `second` lies wholly inside it."""
    inner = silhouette(SceneObject(first, "red", x=32, y=32))
    outer = silhouette(SceneObject(second, "blue", size="large", x=32, y=32))
    return not (inner & ~outer).any()


@cache
def can_overlap(first: str, second: str, dx: int, dy: int) -> bool:
    """A small `first` offset by (dx, dy) from a large `second` covers part of it and sticks out."""
    front = silhouette(SceneObject(first, "red", x=32 + dx, y=32 + dy))
    back = silhouette(SceneObject(second, "blue", size="large", x=32, y=32))
    share = (front & back).sum() / front.sum()
    return 0.2 <= share <= 0.85


def _touch(rng: np.random.Generator, a: SceneObject, b: SceneObject) -> list[tuple[int, int]] | None:
    axis, forward = int(rng.integers(2)), bool(rng.integers(2))
    x, y = (int(n) for n in rng.integers(0, 4, 2))
    first, second = (a, b) if forward else (b, a)
    distance = touching_distance(first.shape, second.shape, axis)
    start = _centre((x, y), "small")
    end = (start[0] + distance, start[1]) if axis == 0 else (start[0], start[1] + distance)
    return [start, end] if forward else [end, start]


def _inside(rng: np.random.Generator, a: SceneObject, b: SceneObject) -> list[tuple[int, int]] | None:
    if not can_contain(a.shape, b.shape):
        return None
    x, y = (int(n) for n in rng.integers(0, 3, 2))
    return [_centre((x, y), "large")] * 2


def _overlap(rng: np.random.Generator, a: SceneObject, b: SceneObject) -> list[tuple[int, int]] | None:
    dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[int(rng.integers(4))]
    dx, dy = dx * OVERLAP_DISTANCE, dy * OVERLAP_DISTANCE
    x, y = (int(n) for n in rng.integers(0, 3, 2))
    back = _centre((x, y), "large")
    return [(back[0] + dx, back[1] + dy), back] if can_overlap(a.shape, b.shape, dx, dy) else None


def arrange(
    rng: np.random.Generator, objects: list[SceneObject], relation: str | None, *, tries: int = 200
) -> Scene | None:
    """Give the objects places so that the relation holds; None if that is impossible for these objects.

    Touching wants two small objects; inside and overlapping a small one in front of a large one.
    """
    for _ in range(tries):
        if relation == "touching":
            centres = _touch(rng, objects[0], objects[1])
        elif relation == "inside":
            centres = _inside(rng, objects[0], objects[1])
        elif relation == "overlapping":
            centres = _overlap(rng, objects[0], objects[1])
        else:
            centres = place_apart(rng, [o.size for o in objects])
            if centres and relation and not spatial_holds(relation, centres[0], centres[1]):
                centres = None
        if centres is None:
            continue
        placed = tuple(o.at(*centre) for o, centre in zip(objects, centres, strict=True))
        if all(map(fits_canvas, placed)):
            return Scene(placed, relation)
    return None


# ---- sampling --------------------------------------------------------------------------------------------


def scene_rng(seed: int, index: int) -> np.random.Generator:
    """The generator of scene `index`: a function of (seed, index) alone."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def _draw_objects(rng: np.random.Generator, count: int, sizes: list[str]) -> list[SceneObject]:
    """Objects of different colours and different shapes; half of them plain."""
    shapes = rng.permutation(len(SHAPES))[:count]
    colors = rng.permutation(len(COLORS))[:count]
    names = tuple(COLORS)
    textures = [TEXTURES[int(rng.integers(1, 4))] if rng.random() < 0.5 else "plain" for _ in range(count)]
    return [
        SceneObject(SHAPES[s], names[c], t, size)
        for s, c, t, size in zip(shapes, colors, textures, sizes, strict=True)
    ]


def is_legible(objects: list[SceneObject], relation: str | None) -> bool:
    """Where one object covers another only one of them bears marks: whose ink it is must show."""
    return relation not in ("inside", "overlapping") or any(o.texture == "plain" for o in objects)


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneMixture:
    """Shares of the kinds of training scenes; each tuple sums to 1.

    Rejections (held-out combinations, no room) make the shares of scenes drawn smaller for three objects.
    """

    kinds: tuple[float, float, float, float, float] = (0.10, 0.27, 0.27, 0.18, 0.18)
    """One object, two, two in a spatial relation, two that interact, three."""
    interactions: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    """Touching, inside, overlapping."""

    def __post_init__(self) -> None:
        for name in ("kinds", "interactions"):
            shares = getattr(self, name)
            if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
                raise ValueError(f"{name} must be shares that sum to 1, got {shares}")


DEFAULT_MIXTURE = SceneMixture()


def _draw_kind(rng: np.random.Generator, mixture: SceneMixture) -> tuple[int, str | None]:
    """Number of objects and relation; half of the scenes of three objects have a spatial one."""
    kind = rng.choice(5, p=mixture.kinds)
    relation = None
    if kind == 2 or (kind == 4 and rng.random() < 0.5):
        relation = SPATIAL[int(rng.integers(len(SPATIAL)))]
    if kind == 3:
        # equal shares keep the draw they always had: the pictures of the first world hang on it
        if mixture.interactions == DEFAULT_MIXTURE.interactions:
            relation = INTERACTIONS[int(rng.integers(len(INTERACTIONS)))]
        else:
            relation = INTERACTIONS[int(rng.choice(3, p=mixture.interactions))]
    return (1 if kind == 0 else 3 if kind == 4 else 2), relation


def _draw_sizes(rng: np.random.Generator, count: int, relation: str | None) -> list[str]:
    """At most one large object, in a third of the scenes; interactions fix the sizes."""
    if relation == "touching":
        return ["small", "small"]
    if relation in ("inside", "overlapping"):
        return ["small", "large"]
    sizes = ["small"] * count
    if rng.random() < 1 / 3:
        sizes[int(rng.integers(count))] = "large"
    return sizes


def sample_scene(rng: np.random.Generator, mixture: SceneMixture = DEFAULT_MIXTURE) -> Scene:
    """A training scene: never one with a held-out combination."""
    while True:
        count, relation = _draw_kind(rng, mixture)
        objects = _draw_objects(rng, count, _draw_sizes(rng, count, relation))
        if is_heldout(Scene(tuple(objects), relation)) or not is_legible(objects, relation):
            continue
        scene = arrange(rng, objects, relation)
        if scene is not None:
            return scene
