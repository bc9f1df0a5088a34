"""The exact judge of the shapes world: finds the objects of a picture by rule and scores a description.

No learned weights. A pixel is unmixed into colour, ink and background, which is exact for the world's own
pictures: background and ink are grey, so the chroma of a pixel names its colour and measures how much of it
there is, and the lightness that is left tells ink from background. Silhouettes of the world's eight shapes in
two sizes are fitted to each colour over all positions at once; where objects meet, their shapes and textures
are settled by rendering the few candidates and comparing. What fits nothing is reported as `unclear`, never
guessed: an unclear attribute matches no asked one.

Score of a picture, in [0, 1]:
  objects_score = m / max(asked, detected), m the largest number of asked objects that can be paired one to
  one with detected ones having all named attributes; what the description leaves open is not judged. A wrong
  attribute gives nothing for that object, and every extra object lowers the score.
  Without a relation the score is objects_score. With one it is objects_score times the grade of the relation
  between its two objects, and 0 if either of them was not found.
Grades: left of / right of / above / below: margin / 6 px clipped to [0, 1], where the margin is the distance
  of the centres along the asked axis less that across it (the world asks for 8, a diagonal has 0).
  touching: 1 if the silhouettes are at most 2 px apart and share at most a tenth of the smaller one.
  inside: 1 if at least 0.9 of the first lies in the second. overlapping: 1 if the share of the smaller in the
  other is from 0.1 to 0.88; who is in front is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage

from bench.prompts import Prompt
from bench.prompts.shapes import redraw
from bench.scorers import Context, Scored, ScorerRecord
from bench.systems.images import fit as resized
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.shapes.captions import Description, ObjectDescription
from gentron.shapes.render import ink
from gentron.shapes.scene import (
    BACKGROUND,
    CANVAS,
    COLORS,
    INK,
    SHAPES,
    SIZES,
    SPATIAL,
    TEXTURES,
    WORLD_VERSION,
    coverage,
)

fft: Any = scipy.fft  # scipy ships no types
ndimage: Any = scipy.ndimage

# N pixels on a side (64), K templates (8 shapes x 2 sizes), P padded side, S side of a template.

UNCLEAR = "unclear"
JUDGE_VERSION = 1  # a change of any score is a new version and a new protocol

PAD = 4  # an object may stick out of the canvas by this many pixels
PADDED = CANVAS + 2 * PAD
COLORED = 0.4  # least share of colour in a pixel that says which colour it is
SPECK = 10  # fewer pixels of a colour, counted in 2 x 2 blocks, are dirt and not an object
CLEAR_FIT = 0.8  # least soft intersection over union of a picture's silhouette and a template's
MEETING_FIT = 0.6  # the same before it is known which ink belongs to which of two objects that meet
GOOD_FIT = 0.88  # from here on the first fit's shape is not doubted
CLEAR_MARKS = 0.5  # least correlation of a texture's marks with the picture's ink
FAINT_MARKS = 0.12  # standard deviation of the share of ink below which there are no marks
DARK_PAINT = 0.08  # mean squared share of ink above which paint without clear marks is not plain either
SHOWN_SHARE = 0.25  # least share of an object that must be seen, whatever may hide it
STRANGE_SHARE = 0.4  # most of its visible silhouette that may have another colour where objects meet
OTHERS = 0.25  # weight of pixels that belong to another object: they may hide this one
SEARCH = 2  # pixels around the first fit in which meeting objects are fitted again
MARGIN = 8  # zeros around the canvas where windows are cut
MAX_OBJECTS = 12  # a picture with more pieces than this is a failure whatever they are


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found; (x, y) is its centre in pixels, `mask` its silhouette (64, 64) bool, whole even where
    another object covers it. Attributes that fit nothing are `unclear`."""

    shape: str
    color: str
    texture: str
    size: str
    x: float
    y: float
    fit: float
    mask: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`score` in [0, 1], a sentence that says why, and the numbers behind it."""

    score: float
    reason: str
    parts: dict[str, float]


# ---- pixels ----------------------------------------------------------------------------------------------

_NAMES = tuple(COLORS)
_RGB = np.array(list(COLORS.values()), np.float32)
# two axes across the grey diagonal: what is left of a colour when its grey part is taken away
_CHROMA = np.array([[1, -0.5, -0.5], [0, 3**0.5 / 2, -(3**0.5) / 2]], np.float32).T * (2 / 3) ** 0.5
_HUES = (_RGB - np.float32(BACKGROUND[0])) @ _CHROMA
_STRENGTHS = np.linalg.norm(_HUES, axis=1)
_LIGHTS = _RGB.mean(1)
_PAPER = float(np.mean(BACKGROUND))
_DARK = float(np.mean(INK))


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Per pixel, (64, 64): index of the nearest hue, share of colour, share of ink."""

    hue: np.ndarray
    color: np.ndarray
    ink: np.ndarray

    @property
    def alpha(self) -> np.ndarray:
        return np.minimum(self.color + self.ink, 1)


def _unmix(image: np.ndarray) -> _Pixels:
    chroma = image.astype(np.float32) @ _CHROMA
    along = chroma @ (_HUES / _STRENGTHS[:, None]).T  # (64, 64, 8)
    hue = along.argmax(-1)
    color = np.clip(along.max(-1) / _STRENGTHS[hue], 0, 1)
    color[color < 0.12] = 0  # noise of the grey parts
    missing = _PAPER - image.mean(-1, dtype=np.float32) - color * (_PAPER - _LIGHTS[hue])
    marks = np.clip(missing / (_PAPER - _DARK), 0, 1)
    marks[marks < 0.12] = 0
    return _Pixels(hue, color, marks)


def _present(pixels: _Pixels) -> dict[int, np.ndarray]:
    """Colours that fill more than specks and seams, each with its mask (64, 64) bool."""
    found = {}
    for index in np.unique(pixels.hue[pixels.color > COLORED]):
        mask = (pixels.hue == index) & (pixels.color > COLORED)
        if _solid(mask) >= SPECK:
            found[int(index)] = mask
    return found


def _solid(mask: np.ndarray) -> int:
    """Pixels that lie in some full 2 x 2 block: the seam between two objects has nearly none."""
    blocks = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    solid = np.zeros_like(mask)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        solid[dy : len(mask) - 1 + dy, dx : len(mask) - 1 + dx] |= blocks
    return int(solid.sum())


def _owners(pixels: _Pixels, present: dict[int, np.ndarray]) -> np.ndarray:
    """(64, 64) int: the colour each non-background pixel belongs to, that of the nearest coloured pixel;
    -1 for background and for ink far from any colour."""
    owner = np.full((CANVAS, CANVAS), -1)
    if not present:
        return owner
    for index, mask in present.items():
        owner[mask] = index
    distance, nearest = ndimage.distance_transform_edt(owner < 0, return_indices=True)
    owner = owner[tuple(nearest)]
    owner[(distance > 4.5) | (pixels.alpha < 0.12)] = -1
    return owner


# ---- silhouettes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fit:
    shape: str
    size: str
    top: int
    left: int
    gain: float

    def paste(self) -> np.ndarray:
        """(64, 64) float32 coverage, cut at the border."""
        return _paste(coverage(self.shape, self.size), self.top, self.left)


def _paste(alpha: np.ndarray, top: int, left: int) -> np.ndarray:
    padded = np.zeros((CANVAS + 2 * MARGIN, CANVAS + 2 * MARGIN), np.float32)
    y, x = top + MARGIN, left + MARGIN
    padded[y : y + len(alpha), x : x + len(alpha)] = alpha
    return padded[MARGIN:-MARGIN, MARGIN:-MARGIN]


@cache
def _templates() -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """The K (shape, size) pairs and the conjugate spectra of their coverage and its square."""
    keys = [(shape, size) for size in SIZES for shape in SHAPES]
    stack = np.zeros((len(keys), PADDED, PADDED), np.float32)
    for plane, key in zip(stack, keys, strict=True):
        alpha = coverage(*key)
        plane[: len(alpha), : len(alpha)] = alpha
    return keys, np.conj(fft.rfft2(stack)), np.conj(fft.rfft2(stack**2))


def _best_fits(target: np.ndarray, weight: np.ndarray) -> list[_Fit]:
    """For each size the template that explains most, the better one first.

    It maximises sum w (2 target cov - cov^2), by which the squared error falls against drawing nothing, over
    all shapes and positions.
    """
    keys, spectra, squares = _templates()
    planes = np.zeros((2, PADDED, PADDED), np.float32)
    planes[:, PAD:-PAD, PAD:-PAD] = 2 * weight * target, weight
    product, price = fft.rfft2(planes)
    gains = fft.irfft2(product * spectra - price * squares, (PADDED, PADDED))
    best: dict[str, _Fit] = {}
    for (shape, size), gain in zip(keys, gains, strict=True):
        room = PADDED - SIZES[size] + 1
        top, left = divmod(int(gain[:room, :room].argmax()), room)
        if size not in best or gain[top, left] > best[size].gain:
            best[size] = _Fit(shape, size, top - PAD, left - PAD, float(gain[top, left]))
    return sorted(best.values(), key=lambda fit: -fit.gain)


def _quality(target: np.ndarray, hidden: np.ndarray, fit: _Fit) -> dict[str, float]:
    """For each shape, the soft intersection over union of it, at this place, and the picture's silhouette.

    hidden: (64, 64) bool, pixels that say nothing about this object. The best of the template moved by half
    pixels, softened and scaled by a seventh counts: a shape is clear if it is recognised, not if it is exact.
    """
    picture, seen = _window(target, fit), 1 - _window(hidden.astype(np.float32), fit)
    found = {}
    for shape in SHAPES:
        covers, near = _variants(shape, fit.size)
        weight = near * seen
        shared, union = np.minimum(covers, picture) @ weight, np.maximum(covers, picture) @ weight
        found[shape] = float((shared / np.maximum(union, 1e-6)).max())
    return found


@cache
def _variants(shape: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of a template moved, softened and scaled, (variants, pixels of its window), and the pixels of
    the window at most 2 away from it."""
    crisp = np.pad(coverage(shape, size), SEARCH)
    middle = (len(crisp) - 1) / 2
    scaled = [crisp]
    for zoom in (6 / 7, 8 / 7):
        soft = ndimage.gaussian_filter(crisp, 0.3)
        scaled.append(ndimage.affine_transform(soft, [1 / zoom] * 2, middle - middle / zoom, order=1))
    softened = [*scaled, ndimage.gaussian_filter(crisp, 0.7)]
    steps = (-0.5, 0.0, 0.5)
    moved = [ndimage.shift(c, (dy, dx), order=1) for c in softened for dy in steps for dx in steps]
    near = ndimage.maximum_filter(crisp, 2 * SEARCH + 1) > 0
    return np.stack(moved).reshape(len(moved), -1), near.astype(np.float32).ravel()


def _named(fit: _Fit, qualities: dict[str, float]) -> tuple[_Fit, float]:
    """The fit with the shape that agrees best, unless the first one agrees as well as pictures of it do."""
    if qualities[fit.shape] >= GOOD_FIT:
        return fit, qualities[fit.shape]
    shape = max(qualities, key=lambda name: qualities[name])
    return replace(fit, shape=shape), qualities[shape]


@dataclass(slots=True)
class _Piece:
    """A find before its texture is known.

    fit: None for a piece that fits no silhouette.   texture: None if it was not rendered beside another.
    """

    color: int
    quality: float
    mask: np.ndarray
    fit: _Fit | None
    texture: str | None = None


def _clear_fit(target: np.ndarray, weight: np.ndarray, hidden: np.ndarray) -> tuple[_Fit | None, float]:
    """The best fit that is clear, or None, and its quality; two objects side by side can look, to the gain
    alone, like one large one."""
    quality = 0.0
    for first in _best_fits(target, weight):
        fit, quality = _named(first, _quality(target, hidden, first))
        cover = fit.paste()
        meets = (hidden & _grown(cover > 0)).any()
        shown = (target * cover).sum() >= SHOWN_SHARE * cover.sum()
        if shown and quality >= (MEETING_FIT if meets else CLEAR_FIT):
            return fit, quality
    return None, quality


def _pieces(index: int, mask: np.ndarray, pixels: _Pixels, owner: np.ndarray) -> list[_Piece]:
    """Take template after template out of one colour's pixels until specks are left."""
    target = np.where(owner == index, pixels.alpha, 0)
    hidden = (owner >= 0) & (owner != index)
    weight = np.where(hidden, np.float32(OTHERS), np.float32(1))
    left, pieces = mask.copy(), []
    while _solid(left) >= SPECK and len(pieces) < MAX_OBJECTS:
        fit, quality = _clear_fit(target, weight, hidden)
        if fit is not None and (left & (fit.paste() > 0.5)).sum() >= SPECK:
            cover = fit.paste()
            pieces.append(_Piece(index, quality, cover >= 0.5, fit))
            gone = _grown(cover > 0)
        else:
            gone = _largest(left, owner == index)
            pieces.append(_Piece(index, quality, gone, None))
        left &= ~gone
        target = np.where(gone, 0, target)
        weight = np.where(gone, np.float32(OTHERS), weight)
        hidden = hidden | gone
    return pieces


def _largest(mask: np.ndarray, body: np.ndarray) -> np.ndarray:
    """The largest connected part of `body` (colour with its ink) that holds pixels of `mask`."""
    labels, count = ndimage.label(body | mask, np.ones((3, 3)))
    sizes = np.bincount(labels[mask], minlength=count + 1)
    sizes[0] = 0
    return labels == int(sizes.argmax())


# ---- where objects meet ----------------------------------------------------------------------------------


@cache
def _paint(color: int, texture: str) -> np.ndarray:
    """(64, 64, 3) float32: the canvas filled with one colour and its marks."""
    marks = ink(texture)[..., None]
    return _RGB[color] * (1 - marks) + np.array(INK, np.float32) * marks


def _over(picture: np.ndarray, cover: np.ndarray, color: int, texture: str) -> np.ndarray:
    return picture + (_paint(color, texture) - picture) * cover[..., None]


def _texture_guess(pixels: _Pixels, visible: np.ndarray) -> str:
    """The texture whose marks agree best with the ink in the visible part.

    Marks may sit up to 2 pixels off the canvas grid: what is asked is the kind of texture, not its phase.
    """
    core = visible & (pixels.alpha > 0.6)
    found = pixels.ink[core]
    if found.size < 8:
        return UNCLEAR
    plain_error = float((found**2).mean())
    best, agreement = "plain", -1.0
    for texture in TEXTURES[1:]:
        marks = _shifted_marks(texture)[:, core]
        spread = marks - marks.mean(1, keepdims=True)
        norm = np.sqrt((spread**2).sum(1) * ((found - found.mean()) ** 2).sum()) + 1e-6
        scores = (spread @ (found - found.mean())) / norm - 0.02 * _shift_lengths()
        if float(scores.max()) > agreement:
            best, agreement = texture, float(scores.max())
    if agreement >= CLEAR_MARKS and float(found.std()) >= FAINT_MARKS:
        return best
    return "plain" if plain_error < DARK_PAINT else UNCLEAR


_SHIFTS = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]


def _shift_lengths() -> np.ndarray:
    return np.array([abs(dy) + abs(dx) for dy, dx in _SHIFTS], np.float32)


@cache
def _shifted_marks(texture: str) -> np.ndarray:
    """(25, 64, 64): the marks moved by up to 2 pixels each way."""
    return np.stack([np.roll(ink(texture), shift, (0, 1)) for shift in _SHIFTS])


def _grown(mask: np.ndarray) -> np.ndarray:
    return ndimage.maximum_filter(mask, 3)


def _touch(a: _Piece, b: _Piece) -> bool:
    return bool((_grown(a.mask) & b.mask).any())


def _settle(
    image: np.ndarray, pieces: list[_Piece], owner: np.ndarray, pixels: _Pixels
) -> set[tuple[int, int]]:
    """Where two fitted pieces meet, find again shape, place and order by rendering both; returns (front,
    back) pairs of positions in `pieces`, which are changed in place."""
    fronts = set()
    for i, j in combinations(range(len(pieces)), 2):
        a, b = pieces[i], pieces[j]
        if a.fit is None or b.fit is None or a.color == b.color or not _touch(a, b):
            continue
        weight = ((owner < 0) | (owner == a.color) | (owner == b.color)).astype(np.float32)
        trials = [
            (_settle_pair(image, pieces[front], pieces[back], weight), (front, back))
            for front, back in ((i, j), (j, i))
        ]
        (_, settled), pair = min(trials, key=lambda trial: trial[0][0])
        for place, (fit, texture) in zip(pair, settled, strict=True):
            piece = pieces[place]
            piece.fit, piece.texture, piece.mask = fit, texture, fit.paste() >= 0.5
        overlap = pieces[i].mask & pieces[j].mask
        if overlap.any():
            fronts.add(pair)
    return fronts


def _settle_pair(
    image: np.ndarray, front: _Piece, back: _Piece, weight: np.ndarray
) -> tuple[float, tuple[tuple[_Fit, str], tuple[_Fit, str]]]:
    """Squared error, and fits with textures of a pair in this order.

    The front is refined over the back, then the back under the front, twice.
    """
    assert front.fit and back.fit
    front_fit, back_fit = front.fit, back.fit
    texture, back_texture, error = "plain", "plain", 0.0
    paper = np.full((CANVAS, CANVAS, 3), BACKGROUND, np.float32)
    black, clear = np.zeros_like(paper), np.ones((CANVAS, CANVAS, 1), np.float32)
    for _ in range(2):
        below = _over(paper, back_fit.paste(), back.color, back_texture)
        _, front_fit, texture = _refine(image, (below, clear, black), front_fit, front.color, weight)
        cover = front_fit.paste()
        layers = (paper, 1 - cover[..., None], _over(black, cover, front.color, texture))
        error, back_fit, back_texture = _refine(image, layers, back_fit, back.color, weight)
    return error, ((front_fit, texture), (back_fit, back_texture))


def _refine(
    image: np.ndarray,
    layers: tuple[np.ndarray, np.ndarray, np.ndarray],
    fit: _Fit,
    color: int,
    weight: np.ndarray,
) -> tuple[float, _Fit, str]:
    """The shape, place within SEARCH pixels and texture of one object that render nearest to the image.

    layers: (below, through, top): the picture is (below with the object on it) * through + top. The squared
    error is a quadratic in the object's coverage, so one matrix product prices all candidates.
    """
    below, through, top = layers
    start = below * through + top - image
    keys, covers, squares = _candidates(fit.size)
    best = (np.inf, fit, "plain")
    for texture in TEXTURES:
        change = (_paint(color, texture) - below) * through
        linear = _window(weight * 2 * (start * change).sum(-1), fit)
        square = _window(weight * (change**2).sum(-1), fit)
        errors = covers @ linear + squares @ square
        k = int(errors.argmin())
        if errors[k] < best[0]:
            shape, dy, dx = keys[k]
            place = (_clamp(fit.top + dy, fit.size), _clamp(fit.left + dx, fit.size))
            best = (float(errors[k]), _Fit(shape, fit.size, *place, fit.gain), texture)
    return float((weight * (start**2).sum(-1)).sum()) + best[0], best[1], best[2]


def _clamp(start: int, size: str) -> int:
    return min(max(start, -PAD), CANVAS + PAD - SIZES[size])


def _window(plane: np.ndarray, fit: _Fit) -> np.ndarray:
    """The pixels within SEARCH of a template's box, flat; zeros beyond the canvas."""
    padded = np.zeros((CANVAS + 2 * MARGIN, CANVAS + 2 * MARGIN), np.float32)
    padded[MARGIN:-MARGIN, MARGIN:-MARGIN] = plane
    y, x, width = fit.top + MARGIN - SEARCH, fit.left + MARGIN - SEARCH, SIZES[fit.size] + 2 * SEARCH
    return padded[y : y + width, x : x + width].ravel()


@cache
def _candidates(size: str) -> tuple[list[tuple[str, int, int]], np.ndarray, np.ndarray]:
    """All (shape, dy, dx) within SEARCH pixels, with their coverage and its square in that window."""
    steps = range(-SEARCH, SEARCH + 1)
    keys = [(shape, dy, dx) for shape in SHAPES for dy in steps for dx in steps]
    extent = SIZES[size]
    stack = np.zeros((len(keys), extent + 2 * SEARCH, extent + 2 * SEARCH), np.float32)
    for plane, (shape, dy, dx) in zip(stack, keys, strict=True):
        y, x = dy + SEARCH, dx + SEARCH
        plane[y : y + extent, x : x + extent] = coverage(shape, size)
    covers = stack.reshape(len(keys), -1)
    return keys, covers, covers**2


# ---- the picture -----------------------------------------------------------------------------------------


def _check(pieces: list[_Piece], fronts: set[tuple[int, int]], owner: np.ndarray, pixels: _Pixels) -> None:
    """Give up the fits of meeting pieces that are not clear, now that it is known whose the ink is."""
    for front, back in fronts:
        owner = owner.copy()
        pale = (pixels.color < COLORED) & (pixels.alpha > 0.12)
        owner[pale & pieces[back].mask] = pieces[back].color
        owner[pale & pieces[front].mask] = pieces[front].color
    meeting = {place for pair in fronts for place in pair}
    for i, piece in enumerate(pieces):
        if piece.fit is None or (piece.quality >= CLEAR_FIT and i not in meeting):
            continue
        covered = np.zeros((CANVAS, CANVAS), bool)
        for front, back in fronts:
            if back == i:
                covered |= _grown(pieces[front].mask)
        own = owner == piece.color
        visible = piece.mask & ~covered
        strange = visible & ~own & (pixels.color > COLORED)
        if i in meeting and strange.sum() > STRANGE_SHARE * visible.sum():
            piece.fit = None
        elif piece.quality < CLEAR_FIT:
            hidden = (owner >= 0) & ~own
            piece.quality = _quality(np.where(own, pixels.alpha, 0), hidden, piece.fit)[piece.fit.shape]
            piece.fit = piece.fit if piece.quality >= CLEAR_FIT else None


def _orphans(pixels: _Pixels, owner: np.ndarray) -> list[np.ndarray]:
    """Masks of pieces of ink that belong to no coloured object."""
    labels, count = ndimage.label((pixels.alpha > 0.4) & (owner < 0))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == k + 1 for k in np.flatnonzero(sizes >= 2 * SPECK)]


def _seam(piece: _Piece, pieces: list[_Piece]) -> bool:
    """A shapeless piece along the edges of clear ones: colours mixed where two objects meet."""
    if piece.fit is not None:
        return False
    band = np.zeros((CANVAS, CANVAS), bool)
    for other in pieces:
        if other.fit is not None:
            band |= ndimage.binary_dilation(other.mask, iterations=2) & ~ndimage.binary_erosion(
                other.mask, iterations=2
            )
    return bool((piece.mask & band).sum() > 0.8 * piece.mask.sum())


def _detection(piece: _Piece, texture: str) -> Detection:
    ys, xs = np.nonzero(piece.mask)
    color = _NAMES[piece.color] if piece.color >= 0 else UNCLEAR
    if piece.fit is None:
        middle = (float(xs.mean()) + 0.5, float(ys.mean()) + 0.5)
        return Detection(UNCLEAR, color, UNCLEAR, UNCLEAR, *middle, piece.quality, piece.mask)
    half = SIZES[piece.fit.size] / 2
    place = (piece.fit.left + half, piece.fit.top + half)
    return Detection(piece.fit.shape, color, texture, piece.fit.size, *place, piece.quality, piece.mask)


def detect(image: np.ndarray) -> list[Detection]:
    """The objects of a picture (64, 64, 3) uint8, largest first."""
    if image.shape != (CANVAS, CANVAS, 3) or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 ({CANVAS}, {CANVAS}, 3), got {image.dtype} {image.shape}")
    pixels = _unmix(image)
    present = _present(pixels)
    owner = _owners(pixels, present)
    pieces: list[_Piece] = []
    for index, mask in present.items():
        if len(pieces) < MAX_OBJECTS:
            pieces += _pieces(index, mask, pixels, owner)
    pieces = [piece for piece in pieces if not _seam(piece, pieces)]
    pieces += [_Piece(-1, 0.0, mask, None) for mask in _orphans(pixels, owner)]
    fronts = _settle(image.astype(np.float32), pieces, owner, pixels)
    _check(pieces, fronts, owner, pixels)
    found = []
    for i, piece in enumerate(pieces):
        visible = piece.mask
        for pair in (pair for pair in fronts if i in pair):
            # along the border the two paints mix
            front = pieces[pair[0]].mask
            visible = visible & (ndimage.minimum_filter(front, 3) if pair[0] == i else ~_grown(front))
        texture = UNCLEAR if piece.fit is None else _texture_guess(pixels, visible)
        if texture != UNCLEAR and piece.texture is not None:
            texture = piece.texture  # the renders knew of the paint that mixes at the border
        found.append(_detection(piece, texture))
    return sorted(found, key=lambda d: -int(d.mask.sum()))


# ---- judging ---------------------------------------------------------------------------------------------

ATTRIBUTES = ("shape", "color", "texture", "size")


def matches(asked: ObjectDescription, found: Detection) -> bool:
    return all(getattr(asked, name) in (None, getattr(found, name)) for name in ATTRIBUTES)


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """Pixels of free space between two masks; 0 for neighbours and for masks that share pixels."""
    if not a.any() or not b.any():
        return float("inf")
    return max(float(ndimage.distance_transform_edt(~a)[b].min()) - 1, 0.0)


def relation_grade(relation: str, first: Detection, second: Detection) -> float:
    """How far the relation holds from `first` to `second`, in [0, 1]; see the module's docstring."""
    if relation in SPATIAL:
        dx, dy = second.x - first.x, second.y - first.y
        along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
        margin = (-along if relation in ("right of", "below") else along) - abs(across)
        return float(np.clip(margin / 6, 0, 1))
    shared = float((first.mask & second.mask).sum())
    of_first = shared / max(float(first.mask.sum()), 1)
    of_smaller = shared / max(float(min(first.mask.sum(), second.mask.sum())), 1)
    if relation == "touching":
        return float(of_smaller <= 0.1 and _gap(first.mask, second.mask) <= 2)
    if relation == "inside":
        return float(of_first >= 0.9)
    if relation == "overlapping":
        return float(0.1 <= of_smaller <= 0.88)
    raise ValueError(f"unknown relation {relation!r}")


def judge_detections(found: list[Detection], description: Description) -> Judgement:
    """Score a description against what was found; see the module's docstring for the definition."""
    asked = description.objects
    fits = [[k for k, d in enumerate(found) if matches(wanted, d)] for wanted in asked]
    best, best_key = (), (-1, -1.0)
    for pairing in pairings(fits):
        matched = sum(k is not None for k in pairing)
        grade = _grade(description.relation, pairing, found)
        if (matched, grade) > best_key:
            best, best_key = pairing, (matched, grade)
    matched, grade = best_key
    objects_score = matched / max(len(asked), len(found))
    score = objects_score * (grade if description.relation else 1.0)
    parts = {
        "asked": float(len(asked)),
        "detected": float(len(found)),
        "matched": float(matched),
        "objects_score": objects_score,
    }
    if description.relation:
        parts["relation"] = grade
        parts["both_found"] = float(None not in best[:2])
    return Judgement(score, _reason(found, description, best, grade), parts)


def pairings(fits: list[list[int]]) -> list[tuple[int | None, ...]]:
    choices: list[tuple[int | None, ...]] = [()]
    for options in fits:
        choices = [(*c, k) for c in choices for k in [*options, None] if k is None or k not in c]
    return choices


def _grade(relation: str | None, pairing: tuple[int | None, ...], found: list[Detection]) -> float:
    if relation is None or pairing[0] is None or pairing[1] is None:
        return 0.0
    return relation_grade(relation, found[pairing[0]], found[pairing[1]])


def say(thing: ObjectDescription | Detection) -> str:
    """The named attributes as words; a find's plain texture and small size go without saying."""
    words = [thing.size, thing.texture, thing.color, thing.shape]
    if isinstance(thing, Detection):
        words = [w for w in words if w not in ("plain", "small")]
        if thing.shape == UNCLEAR:
            return f"unclear {thing.color} blob" if thing.color != UNCLEAR else "unclear dark blob"
    return " ".join(w for w in words if w) or "object"


def _reason(
    found: list[Detection], description: Description, pairing: tuple[int | None, ...], grade: float
) -> str:
    free = [d for k, d in enumerate(found) if k not in pairing]
    said = []
    for wanted, k in zip(description.objects, pairing, strict=True):
        if k is not None:
            said.append(f"{say(wanted)} ok")
        elif free:
            near = max(free, key=lambda d: sum(getattr(wanted, n) == getattr(d, n) for n in ATTRIBUTES))
            free.remove(near)
            said.append(f"asked {say(wanted)}, found {say(near)}")
        else:
            said.append(f"no {say(wanted)}")
    if free:
        said.append(f"{len(free)} extra: {', '.join(map(say, free))}")
    if description.relation:
        state = (
            "unknown"
            if None in pairing[:2]
            else "holds"
            if grade == 1
            else f"{grade:.2f}"
            if grade
            else "fails"
        )
        said.append(f"{description.relation}: {state}")
    return "; ".join(said)


def judge(image: np.ndarray, description: Description) -> Judgement:
    """Score a picture (64, 64, 3) uint8 against what a caption claims."""
    return judge_detections(detect(image), description)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a protocol says to this scorer."""

    version: int
    world_version: int
    image_size: int
    tested: str
    chance_seed: int
    chance_draws: int


class ShapesScorer:
    """The judge as gentron-bench calls it: one look at a picture scores its own prompt and strangers."""

    record = ScorerRecord(name="shapes", version=JUDGE_VERSION)

    def __init__(self, settings: Settings, prompts: Sequence[Prompt]) -> None:
        if (settings.version, settings.world_version) != (JUDGE_VERSION, WORLD_VERSION):
            raise UserError(
                f"the protocol asks for scorer shapes version {settings.version} and world"
                f" {settings.world_version}; installed are {JUDGE_VERSION} and {WORLD_VERSION}: install the"
                " matching release"
            )
        self._settings = settings
        self._prompts = prompts

    def score(self, image: np.ndarray, digest: str, prompt: Prompt, sample: int) -> Scored:
        """(H, W, 3) uint8 of any size -> the definition at the top of this module, with its chance levels."""
        found = detect(resized(image, self._settings.image_size))
        judgement = judge_detections(found, prompt.claim)
        redrawn, strangers = self._other_claims(prompt, sample)
        return Scored(
            score=judgement.score,
            reason=judgement.reason,
            parts=_shares(judgement.parts),
            evidence={"found": [say(d) for d in found]},
            chance=float(np.mean([judge_detections(found, claim).score for claim in redrawn])),
            shuffled=float(np.mean([judge_detections(found, claim).score for claim in strangers])),
        )

    def _other_claims(self, prompt: Prompt, sample: int) -> tuple[list[Description], list[Description]]:
        """Claims with the tested attribute redrawn, and claims of other prompts."""
        draws = self._settings.chance_draws
        # keyed by the prompt, so that a picture's chance level does not depend on what else was scored
        rng = np.random.default_rng([self._settings.chance_seed, sample, *prompt.id.encode()])
        redrawn = [redraw(prompt.claim, self._settings.tested, rng) for _ in range(draws)]
        others = [p for p in self._prompts if p.id != prompt.id]
        return redrawn, [others[int(k)].claim for k in rng.integers(0, len(others), draws)]


def _shares(parts: dict[str, float]) -> dict[str, float]:
    """What is averaged over images; the relation only where both of its objects were found."""
    shares = {"objects": parts["objects_score"]}
    if parts.get("both_found"):
        shares["relation"] = parts["relation"]
    shares["extra objects"] = float(parts["detected"] > parts["asked"])
    shares["missing objects"] = float(parts["detected"] < parts["asked"])
    return shares


def build(settings: dict[str, Any], context: Context) -> ShapesScorer:
    """The judge for one category; UserError if the installed one has another version."""
    return ShapesScorer(from_dict(Settings, settings), context.prompts)
