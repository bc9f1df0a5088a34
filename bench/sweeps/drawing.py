"""A small plot, drawn once and written twice: as SVG for a page, as PNG for where SVG is not shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # pixels of the PNG to a unit
SMOOTHING = 2  # drawn so much larger and brought back, for Pillow draws without antialiasing
FONT_SIZE = 11

Anchor = Literal["start", "middle", "end"]
Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through places.   dashes: a broken one."""

    places: Sequence[Place]
    colour: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Disc:
    place: Place
    radius: float
    colour: str
    filled: bool = True


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle by two corners."""

    low: Place
    high: Place
    colour: str


@dataclass(frozen=True, slots=True)
class Words:
    """place: of the baseline's start, middle or end."""

    text: str
    place: Place
    anchor: Anchor = "start"
    colour: str = "#333333"
    size: float = FONT_SIZE


Part = Stroke | Disc | Area | Words


@dataclass(frozen=True, slots=True)
class Drawing:
    """label: what it shows, for those who cannot see it."""

    width: float
    height: float
    parts: Sequence[Part]
    label: str


# ---- SVG -------------------------------------------------------------------------------------------------


def to_svg(drawing: Drawing) -> str:
    """A document of its own; colours are attributes, which no Content-Security-Policy drops."""
    width, height = _number(drawing.width), _number(drawing.height)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="{escape(drawing.label)}" font-family="sans-serif">'
    )
    background = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, background, *map(_svg_part, drawing.parts), "</svg>"]) + "\n"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _svg_part(part: Part) -> str:
    match part:
        case Stroke():
            points = " ".join(f"{_number(x)},{_number(y)}" for x, y in part.places)
            dashes = ' stroke-dasharray="4 3"' if part.dashed else ""
            return (
                f'<polyline points="{points}" fill="none" stroke="{part.colour}"'
                f' stroke-width="{_number(part.width)}"{dashes}/>'
            )
        case Disc():
            x, y = map(_number, part.place)
            fill = part.colour if part.filled else "#ffffff"
            return (
                f'<circle cx="{x}" cy="{y}" r="{_number(part.radius)}" fill="{fill}" stroke="{part.colour}"/>'
            )
        case Area():
            (left, top), (right, low) = _corners(part)
            size = f'width="{_number(right - left)}" height="{_number(low - top)}"'
            return f'<rect x="{_number(left)}" y="{_number(top)}" {size} fill="{part.colour}"/>'
        case Words():
            x, y = map(_number, part.place)
            return (
                f'<text x="{x}" y="{y}" text-anchor="{part.anchor}" fill="{part.colour}"'
                f' font-size="{_number(part.size)}">{escape(part.text)}</text>'
            )


def _corners(area: Area) -> tuple[Place, Place]:
    xs, ys = sorted((area.low[0], area.high[0])), sorted((area.low[1], area.high[1]))
    return (xs[0], ys[0]), (xs[1], ys[1])


# ---- PNG -------------------------------------------------------------------------------------------------


def to_png(drawing: Drawing) -> bytes:
    """The same picture without metadata."""
    factor = SCALE * SMOOTHING
    size = round(drawing.width * factor), round(drawing.height * factor)
    image = Image.new("RGB", size, "#ffffff")
    draw = ImageDraw.Draw(image)
    for part in drawing.parts:
        _paint(draw, part, factor)
    small = image.resize((size[0] // SMOOTHING, size[1] // SMOOTHING), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return buffer.getvalue()


def _paint(draw: ImageDraw.ImageDraw, part: Part, factor: int) -> None:
    match part:
        case Stroke():
            places = [(x * factor, y * factor) for x, y in part.places]
            width = max(round(part.width * factor), 1)
            for a, b in zip(places, places[1:], strict=False):
                for start, end in _dashes(a, b, factor) if part.dashed else [(a, b)]:
                    draw.line([start, end], fill=part.colour, width=width)
        case Disc():
            (x, y), r = part.place, part.radius
            box = [(x - r) * factor, (y - r) * factor, (x + r) * factor, (y + r) * factor]
            fill = part.colour if part.filled else "#ffffff"
            draw.ellipse(box, fill=fill, outline=part.colour, width=factor)
        case Area():
            (left, top), (right, low) = _corners(part)
            draw.rectangle([left * factor, top * factor, right * factor, low * factor], fill=part.colour)
        case Words():
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[part.anchor]
            place = (part.place[0] * factor, part.place[1] * factor)
            font = ImageFont.load_default(size=part.size * factor)
            draw.text(place, part.text, fill=part.colour, font=font, anchor=anchor)


def _dashes(a: Place, b: Place, factor: int) -> list[tuple[Place, Place]]:
    """4 units drawn, 3 left out."""
    length = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5
    if not length:
        return []
    found, at = [], 0.0
    while at < length:
        end = min(at + 4 * factor, length)
        first, last = at / length, end / length
        found.append(
            (
                (a[0] + (b[0] - a[0]) * first, a[1] + (b[1] - a[1]) * first),
                (a[0] + (b[0] - a[0]) * last, a[1] + (b[1] - a[1]) * last),
            )
        )
        at += 7 * factor
    return found
