"""Small SVG plots: dots with intervals, lines, heat maps. Text in, text out; colours come from style.css.

Coordinates are in user units of the viewBox; the page scales a plot to its column. No style attributes: the
page's Content-Security-Policy would drop them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NUM_HUES = 8
WIDTH = 360.0  # of a panel: about a phone's column, a third of a desktop's


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A row of a dot plot.

    low, high: its interval.   hue: colour number; None for what was not measured here.
    tick: another level on the same axis, such as chance.   faint: no result, a smoke test.
    """

    label: str
    mean: float
    low: float | None = None
    high: float | None = None
    hue: int | None = 0
    tick: float | None = None
    faint: bool = False
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A point of a line. x: place on the axis."""

    x: float
    mean: float
    low: float | None = None
    high: float | None = None
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """points: in order of x.   joined: whether a line between them means something."""

    label: str
    points: Sequence[Point]
    hue: int = 0
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """low..high in data units, with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def __call__(self, value: float, start: float, end: float) -> float:
        """Place of a value between two coordinates."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)

    def text(self, tick: float) -> str:
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        # .25 needs two places although its first digit is in the first
        if abs(round(step, places) - step) > 1e-9 * step:
            places += 1
        return f"{tick:.{places}f}"


def axis(values: Sequence[float], *, count: int = 4, least: float = 0.05) -> Axis:
    """Round ticks that enclose all values; at least `least` long, so that noise does not fill a plot."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < least:
        middle = (high + low) / 2
        low, high = middle - least / 2, middle + least / 2
    step = _round_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(k * step for k in range(first, last + 1)))


def _round_step(rough: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * (1 - 1e-9))


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: max(1, letters - 1)].rstrip() + "…"


def cut_inside(text: str, letters: int) -> str:
    """Both ends of a long text: what tells two labels apart is at the end as often as not."""
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f"{text[: letters - 1 - half].rstrip()}…{text[-half:].lstrip()}"


def _tag(name: str, content: str | None = None, **attributes: float | str | None) -> str:
    """An element; class_ and text_anchor become class and text-anchor, None is left out."""
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            text = number(value) if isinstance(value, int | float) else escape(value)
            words.append(f'{key.rstrip("_").replace("_", "-")}="{text}"')
    return f"<{' '.join(words)}/>" if content is None else f"<{' '.join(words)}>{content}</{name}>"


def _text(content: str, x: float, y: float, class_: str = "", anchor: str | None = None) -> str:
    return _tag("text", escape(content), x=x, y=y, class_=class_ or None, text_anchor=anchor)


def _svg(parts: Sequence[str], height: float, label: str, width: float = WIDTH) -> str:
    head = f'viewBox="0 0 {number(width)} {number(height)}" role="img" aria-label="{escape(label)}"'
    return f"<svg {head}>{''.join(parts)}</svg>"


def _hue(hue: int | None) -> str:
    return "published" if hue is None else f"h{hue % NUM_HUES}"


# ---- dots ------------------------------------------------------------------------------------------------

ROW, LABEL, VALUE, FOOT = 22.0, 140.0, 44.0, 22.0
LETTERS = 21  # that fit into LABEL in a wide font


def dot_plot(rows: Sequence[Dot | str], *, label: str) -> str:
    """A row a dot, its interval as a line, its value in figures, the axis below. A text is a heading."""
    dots = [row for row in rows if isinstance(row, Dot)]
    ends = [v for d in dots for v in (d.mean, d.low, d.high, d.tick) if v is not None]
    scale = axis(ends)
    left, right = LABEL + 8, WIDTH - VALUE - 6
    bottom = len(rows) * ROW + 4
    parts = []
    for tick in scale.ticks:
        x = scale(tick, left, right)
        parts.append(_tag("line", x1=x, x2=x, y1=2, y2=bottom, class_="grid"))
        parts.append(_text(scale.text(tick), x, bottom + 14, "tick", "middle"))
    for k, row in enumerate(rows):
        y = k * ROW + ROW / 2 + 2
        if isinstance(row, Dot):
            parts.append(_dot_row(row, y, lambda v: scale(v, left, right)))
        else:
            # on its own ground, so that no grid line runs through it
            parts.append(_tag("rect", x=0, y=y - ROW / 2, width=WIDTH, height=ROW, class_="ground"))
            parts.append(_text(cut(row, 56), 0, y + 5, "heading"))
    return _svg(parts, bottom + FOOT, label)


def _dot_row(dot: Dot, y: float, place) -> str:
    inside = [_tag("title", escape(dot.title))] if dot.title else []
    inside.append(_text(cut_inside(dot.label, LETTERS), LABEL, y + 4, "name", "end"))
    if dot.tick is not None:
        x = place(dot.tick)
        inside.append(_tag("line", x1=x, x2=x, y1=y - 5, y2=y + 5, class_="chance"))
    if dot.low is not None and dot.high is not None:
        inside.append(_tag("line", x1=place(dot.low), x2=place(dot.high), y1=y, y2=y, class_="reach"))
    x = place(dot.mean)
    if dot.hue is None:
        inside.append(
            _tag("path", d=f"M{number(x)} {number(y - 4.5)}l4.5 4.5l-4.5 4.5l-4.5-4.5z", class_="mark")
        )
    else:
        inside.append(_tag("circle", cx=x, cy=y, r=4.2, class_="mark"))
    inside.append(_text(f"{dot.mean:.3f}", WIDTH, y + 4, "figure", "end"))
    # an unseen surface, so that the title shows anywhere in the row
    inside.insert(0, _tag("rect", x=0, y=y - ROW / 2, width=WIDTH, height=ROW, class_="touch"))
    return _tag("g", "".join(inside), class_=f"row {_hue(dot.hue)}{' faint' if dot.faint else ''}")


# ---- lines -----------------------------------------------------------------------------------------------


def line_plot(
    lines: Sequence[Line],
    *,
    label: str,
    x_ticks: Sequence[tuple[float, str]],
    x_title: str = "",
    height: float = 190.0,
) -> str:
    """Means over x with bands for their intervals.

    x_ticks: place and text; texts that would touch are left out.
    """
    ends = [v for line in lines for p in line.points for v in (p.mean, p.low, p.high) if v is not None]
    scale = axis(ends)
    xs = [x for x, _ in x_ticks]
    span = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    left, right, top = 40.0, WIDTH - 14, 8.0
    bottom = height - (38.0 if x_title else 24.0)

    def at(point: Point, value: float) -> tuple[float, float]:
        x = left + 10 + (point.x - span[0]) / (span[1] - span[0]) * (right - left - 20)
        return x, scale(value, bottom, top)

    parts = []
    for tick in scale.ticks:
        y = scale(tick, bottom, top)
        parts.append(_tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(_text(scale.text(tick), left - 6, y + 3.5, "tick", "end"))
    parts += _x_ticks(x_ticks, lambda x: at(Point(x=x, mean=0), scale.low)[0], bottom)
    if x_title:
        parts.append(_text(x_title, (left + right) / 2, height - 4, "axis", "middle"))
    parts += [_line(line, at) for line in lines]
    return _svg(parts, height, label)


def _x_ticks(ticks: Sequence[tuple[float, str]], place, bottom: float) -> list[str]:
    """Tick texts that do not touch: one that would is left out."""
    parts, last = [], -math.inf
    for x, text in ticks:
        half = len(text) * 3.4  # of a wide font
        at = place(x)
        parts.append(_tag("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="grid"))
        if at - half > last + 4:
            parts.append(_text(text, min(at, WIDTH - half), bottom + 16, "tick", "middle"))
            last = at + half
    return parts


def _line(line: Line, at) -> str:
    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)

    inside = []
    banded = [p for p in line.points if p.low is not None and p.high is not None]
    if line.joined and len(banded) > 1:
        upper = [at(p, p.high) for p in banded if p.high is not None]
        lower = [at(p, p.low) for p in reversed(banded) if p.low is not None]
        inside.append(_tag("path", d=path([*upper, *lower]) + "Z", class_="band"))
    if line.joined and len(line.points) > 1:
        inside.append(_tag("path", d=path([at(p, p.mean) for p in line.points]), class_="line"))
    for point in line.points:
        (x, y), reach = at(point, point.mean), ""
        if not line.joined and point.low is not None and point.high is not None:
            reach = _tag(
                "line", x1=x, x2=x, y1=at(point, point.low)[1], y2=at(point, point.high)[1], class_="reach"
            )
        title = _tag("title", escape(point.title)) if point.title else ""
        circle = _tag("circle", cx=x, cy=y, r=3.6, class_="mark")
        inside.append(_tag("g", title + reach + circle))
    return _tag("g", "".join(inside), class_=_hue(line.hue))


# ---- heat maps -------------------------------------------------------------------------------------------


def heat_map(
    cells: Sequence[Sequence[tuple[float, str] | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    label: str,
) -> str:
    """Values in figures on a ground whose strength follows them; None stays empty. cells: [row][column]."""
    known = [cell[0] for row in cells for cell in row if cell is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    left = 12.0 + 6.4 * max((len(cut(text, 12)) for text in rows), default=0)
    wide, tall, top = (WIDTH - left) / max(1, len(columns)), 30.0, 4.0
    parts = []
    for r, row in enumerate(cells):
        y = top + r * tall
        parts.append(_text(cut(rows[r], 12), left - 7, y + tall / 2 + 4, "name", "end"))
        for c, cell in enumerate(row):
            parts.append(_cell(cell, left + c * wide, y, wide, tall, low, high))
    bottom = top + len(cells) * tall
    for c, text in enumerate(columns):
        parts.append(
            _text(cut(text, max(2, int(wide / 6.2))), left + (c + 0.5) * wide, bottom + 15, "tick", "middle")
        )
    caption = f"{row_title} ↓   {column_title} →"
    parts.append(_text(cut(caption, 56), WIDTH, bottom + 32, "axis", "end"))
    return _svg(parts, bottom + 38, label)


def _cell(
    cell: tuple[float, str] | None, x: float, y: float, wide: float, tall: float, low: float, high: float
) -> str:
    def rect(class_: str, opacity: float | None) -> str:
        size = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": tall - 2, "rx": 3.0}
        return _tag("rect", None, **size, class_=class_, fill_opacity=opacity)

    if cell is None:
        return rect("empty", None)
    value, title = cell
    strength = 0.08 + 0.87 * ((value - low) / (high - low) if high > low else 0.5)
    shown = f"{value:.3f}" if wide >= 38 else f"{value:.2f}".removeprefix("0")
    inside = [_tag("title", escape(title)), rect("heat", strength)]
    # from these shares on ink is read less well than its reverse: on a white page (0.8), on a black one (0.6)
    ink = "figure on" if strength > 0.8 else "figure mid" if strength > 0.6 else "figure"
    inside.append(_text(shown, x + wide / 2, y + tall / 2 + 4, ink, "middle"))
    return _tag("g", "".join(inside))


def bar(value: float, tick: float | None) -> str:
    """A score in [0, 1] as a thin bar, with another level marked; drawn by a picture."""
    share = min(max(value, 0.0), 1.0)
    parts = [_tag("rect", x=0, y=0, width=100, height=4, class_="track")]
    parts.append(_tag("rect", x=0, y=0, width=share * 100, height=4, class_="fill"))
    if tick is not None:
        parts.append(_tag("rect", x=min(max(tick, 0.0), 1.0) * 99, y=0, width=1, height=4, class_="level"))
    head = 'class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"'
    return f"<svg {head}>{''.join(parts)}</svg>"
