"""The plots of a lambda_M sweep: quality of frames against motion with the Pareto front, and every column
over lambda_M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.html.plots import Axis, axis
from bench.results.aggregate import MetricValue
from bench.sweeps.drawing import Area, Disc, Drawing, Part, Stroke, Words
from bench.sweeps.grid import BASE, PUBLISHED, pareto_front
from bench.sweeps.table import Column, SweepRecord

WIDTH, HEIGHT = 460.0, 320.0
LEFT, RIGHT, TOP, FOOT = 52.0, 14.0, 30.0, 42.0
SMALL_WIDTH, SMALL_HEIGHT = 300.0, 200.0
Interval = tuple[float, float]
COLOURS = ("#2a6fb0", "#c0562f", "#3d8c55", "#8b5aa8", "#a8862a")
GREY, PALE, BAND = "#888888", "#dddddd", "#f1ead6"


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where numbers lie in a panel."""

    x: Axis
    y: Axis
    left: float
    right: float
    top: float
    low: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x(x, self.left, self.right), self.y(y, self.low, self.top)

    def axes(self, x_title: str, y_title: str, title: str) -> list[Part]:
        parts: list[Part] = [Words(title, (self.left, 16), size=12)]
        for tick in self.x.ticks:
            place = self.x(tick, self.left, self.right)
            parts.append(Stroke([(place, self.top), (place, self.low)], PALE, 0.5))
            parts.append(Words(self.x.text(tick), (place, self.low + 14), "middle", size=10))
        for tick in self.y.ticks:
            place = self.y(tick, self.low, self.top)
            parts.append(Stroke([(self.left, place), (self.right, place)], PALE, 0.5))
            parts.append(Words(self.y.text(tick), (self.left - 5, place + 3.5), "end", size=10))
        parts.append(Words(x_title, ((self.left + self.right) / 2, self.low + 30), "middle", GREY))
        parts.append(Words(y_title, (self.left, self.top - 4), "start", GREY, 10))
        return parts


def _frame(x: Sequence[float], y: Sequence[float], *, width: float, height: float) -> _Frame:
    spans = [axis(values, least=max(1e-3, 0.02 * max(map(abs, values), default=1.0))) for values in (x, y)]
    return _Frame(spans[0], spans[1], LEFT, width - RIGHT, TOP + 12, height - FOOT)


def _cut_to(means: Sequence[float], bars: Sequence[Interval | None]) -> list[Interval | None]:
    """Intervals, cut where they go further beyond all means than the means are apart: few clips have wide
    ones, which would press the points into a spot."""
    low, high = min(means), max(means)
    reach = max(high - low, 0.1 * max(abs(low), abs(high)), 1e-6)
    return [bar and (max(bar[0], low - reach), min(bar[1], high + reach)) for bar in bars]


def _mean(value: MetricValue) -> float:
    assert value.mean is not None
    return value.mean


# ---- quality against motion ------------------------------------------------------------------------------


def quality_plot(record: SweepRecord, quality: str, motion: str) -> Drawing:
    """A point a value of lambda_M, with both 95 % intervals; filled where no other value beats it in both."""
    cells = [cell for cell in record.cells if quality in cell.values and motion in cell.values]
    places = [(_mean(cell.values[motion].value), _mean(cell.values[quality].value)) for cell in cells]
    front = set(pareto_front(places))
    across = _cut_to([x for x, _ in places], [cell.values[motion].value.interval for cell in cells])
    up = _cut_to([y for _, y in places], [cell.values[quality].value.interval for cell in cells])
    bars = list(zip(across, up, strict=True))
    xs = [x for x, _ in places] + [v for bar in across for v in bar or ()]
    ys = [y for _, y in places] + [v for bar in up for v in bar or ()]
    frame = _frame(xs, ys, width=WIDTH, height=HEIGHT)
    titles = [_title(record.column(name)) for name in (motion, quality)]
    parts = frame.axes(titles[0], titles[1], "Frames against motion; filled: not beaten in both")
    for number, text in enumerate(sorted({cell.guidance_scale for cell in cells})):
        colour = COLOURS[number % len(COLOURS)]
        mine = [k for k, cell in enumerate(cells) if cell.guidance_scale == text]
        parts.append(Stroke([frame.at(*places[k]) for k in mine], colour, 0.7, dashed=True))
        for k in mine:
            parts += _point(frame, places[k], bars[k], colour, is_on_front=k in front)
            x, y = frame.at(*places[k])
            parts.append(Words(f"{cells[k].motion_guidance_scale:g}", (x + 6, y - 5), colour=colour, size=10))
    label = f"{titles[1]} against {titles[0]}, a point a value of lambda_M"
    return Drawing(WIDTH, HEIGHT, parts, label)


def _point(
    frame: _Frame,
    place: tuple[float, float],
    bars: tuple[Interval | None, Interval | None],
    colour: str,
    *,
    is_on_front: bool,
) -> list[Part]:
    across, up = bars
    parts: list[Part] = []
    if across is not None:
        parts.append(Stroke([frame.at(across[0], place[1]), frame.at(across[1], place[1])], colour, 0.5))
    if up is not None:
        parts.append(Stroke([frame.at(place[0], up[0]), frame.at(place[0], up[1])], colour, 0.5))
    parts.append(Disc(frame.at(*place), 4, colour, filled=is_on_front))
    return parts


def _title(column: Column | None) -> str:
    assert column is not None
    return f"{column.name.replace('_', ' ')} ({column.unit})"


# ---- one column over lambda_M ----------------------------------------------------------------------------


def column_plot(record: SweepRecord, name: str) -> Drawing:
    """A line a value of lambda_T, with 95 % intervals; the paper's range is shaded, lambda_M = 1 marked."""
    cells = [cell for cell in record.cells if name in cell.values]
    means = [_mean(cell.values[name].value) for cell in cells]
    bars = _cut_to(means, [cell.values[name].value.interval for cell in cells])
    ys = means + [bound for bar in bars for bound in bar or ()]
    xs = [cell.motion_guidance_scale for cell in cells]
    frame = _frame([*xs, *PUBLISHED], ys, width=SMALL_WIDTH, height=SMALL_HEIGHT)
    shade = Area(
        (frame.x(PUBLISHED[0], frame.left, frame.right), frame.top),
        (frame.x(PUBLISHED[1], frame.left, frame.right), frame.low),
        BAND,
    )
    column = record.column(name)
    assert column is not None
    parts: list[Part] = [shade, *frame.axes("lambda_M", column.unit, name.replace("_", " "))]
    base = frame.x(BASE, frame.left, frame.right)
    parts.append(Stroke([(base, frame.top), (base, frame.low)], GREY, 0.7, dashed=True))
    for number, text in enumerate(sorted({cell.guidance_scale for cell in cells})):
        colour = COLOURS[number % len(COLOURS)]
        mine = [k for k, cell in enumerate(cells) if cell.guidance_scale == text]
        parts.append(Stroke([frame.at(xs[k], means[k]) for k in mine], colour, 1.2))
        for k in mine:
            bar = bars[k]
            if bar is not None:
                parts.append(Stroke([frame.at(xs[k], bar[0]), frame.at(xs[k], bar[1])], colour, 0.5))
            parts.append(Disc(frame.at(xs[k], means[k]), 2.5, colour))
    return Drawing(SMALL_WIDTH, SMALL_HEIGHT, parts, f"{name} over lambda_M")
