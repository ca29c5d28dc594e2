"""Geometry of the page's line charts: numbers in, positions in user units of an inline SVG out.  The template only draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

MAX_POINTS = 240  # more than a chart has pixels for only makes the page larger
LEFT, RIGHT, TOP, BOTTOM = 42.0, 10.0, 20.0, 24.0


@dataclass(frozen=True)
class Series:
    """One line: its name, (x, y) points in rising x, one list per stage so that stages are not joined; colour: 1..6."""

    label: str
    pieces: list[list[Point]]
    colour: int = 1
    is_dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A drawn series: SVG path data, lone points (x, y) that a path would not show, and the last value as text."""

    label: str
    path: str
    dots: list[Point]
    colour: int
    is_dashed: bool
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart ready to draw.  boundaries: (x, stage title) where a stage begins; ticks: (position, text)."""

    title: str
    description: str
    width: float
    height: float
    plot: tuple[float, float, float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    boundaries: list[tuple[float, str]]
    lines: list[Line]
    note: str


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """Average neighbouring points until at most `limit` remain; the last point stays exact."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / (limit - 1))
    kept = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        kept.append((part[-1][0], sum(y for _, y in part) / len(part)))
    return [*kept[:-1], points[-1]]


def nice_step(span: float, num_ticks: int) -> float:
    """The step of 1, 2, 2.5 or 5 times a power of ten that cuts the span into about num_ticks pieces."""
    raw = span / max(num_ticks, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * 0.999)


def thousands(value: float) -> str:
    """An iteration count as an axis shows it: 0, 500, 1.5k, 40k."""
    return f"{value:.0f}" if abs(value) < 1000 else f"{value / 1000:g}k"


def line_chart(
    title: str,
    series: Sequence[Series],
    starts: Sequence[tuple[float, str]] = (),
    *,
    percent: bool = False,
    from_zero: bool = True,
    decimals: int = 1,
    width: float = 360,
    height: float = 200,
    note: str = "",
) -> Chart | None:
    """Lay out one chart, or None when there is nothing to draw.

    starts: (x, title) of each stage.  percent: the values are 0..100 and the axis never exceeds 100.
    A logarithmic axis is used, and named in the note, when positive series lie more than thirty-fold apart.
    """
    drawn = [Series(s.label, [thin(p) for p in s.pieces if p], s.colour, s.is_dashed) for s in series if any(s.pieces)]
    if not drawn:
        return None
    axes = _axes(drawn, (LEFT, TOP, width - RIGHT, height - BOTTOM), percent, from_zero)
    x_low, x_high = axes.x_range
    x_step = nice_step(x_high - x_low, 8 if width > 500 else 4)
    unit = " %" if percent else ""
    ends = [[_figure(piece[end][1], decimals) + unit for piece, end in ((s.pieces[0], 0), (s.pieces[-1], -1))] for s in drawn]
    spoken = "; ".join(f"{s.label} from {first} to {last}" for s, (first, last) in zip(drawn, ends, strict=True))
    return Chart(
        title=title,
        description=f"{title}: {spoken}.",
        width=width,
        height=height,
        plot=axes.plot,
        x_ticks=[(axes.place_x(i * x_step), thousands(i * x_step)) for i in range(int(x_high / x_step) + 1)],
        y_ticks=[(axes.place_y(y), _tick(y)) for y in axes.y_values],
        boundaries=[(axes.place_x(x), name) for x, name in starts if x_low <= x <= x_high],
        lines=[_line(s, axes, last) for s, (_, last) in zip(drawn, ends, strict=True)],
        note=", ".join(part for part in (note, "logarithmic axis" if axes.is_log else "") if part),
    )


@dataclass(frozen=True)
class _Axes:
    """Where values lie in the picture.  plot: (left, top, right, bottom).  y_range: of the logarithms on a logarithmic axis."""

    plot: tuple[float, float, float, float]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    y_values: Sequence[float]
    is_log: bool

    def place_x(self, x: float) -> float:
        (left, _, right, _), (low, high) = self.plot, self.x_range
        return round(left + (x - low) / (high - low) * (right - left), 1)

    def place_y(self, y: float) -> float:
        (_, top, _, bottom), (low, high) = self.plot, self.y_range
        share = ((math.log10(y) if self.is_log else y) - low) / (high - low)
        return round(bottom - min(max(share, 0.0), 1.0) * (bottom - top), 1)


def _axes(drawn: Sequence[Series], plot: tuple[float, float, float, float], percent: bool, from_zero: bool) -> _Axes:
    xs = [x for s in drawn for piece in s.pieces for x, _ in piece]
    values = [y for s in drawn for piece in s.pieces for _, y in piece]
    levels = [_middle([y for piece in s.pieces for _, y in piece]) for s in drawn]
    is_log = min(values) > 0 and max(levels) / min(levels) > 30
    x_low, x_high = min(0.0, min(xs)), max(xs)
    y_values, y_low, y_high = _log_axis(values) if is_log else _linear_axis(values, percent, from_zero)
    return _Axes(plot, (x_low, x_high if x_high > x_low else x_low + 1.0), (y_low, y_high), y_values, is_log)


def _line(series: Series, axes: _Axes, last: str) -> Line:
    placed = [[(axes.place_x(x), axes.place_y(y)) for x, y in piece] for piece in series.pieces]
    path = " ".join("M" + "L".join(f"{x:g} {y:g}" for x, y in piece) for piece in placed if len(piece) > 1)
    return Line(series.label, path, [piece[0] for piece in placed if len(piece) == 1], series.colour, series.is_dashed, last)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _figure(value: float, decimals: int) -> str:
    if value == 0:
        return "0"
    return f"{value:.2g}" if 0 < abs(value) < 0.5 * 10**-decimals else f"{value:.{decimals}f}"


def _tick(value: float) -> str:
    if not 0 < abs(value) < 1e-3:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _linear_axis(values: Sequence[float], percent: bool, from_zero: bool) -> tuple[list[float], float, float]:
    """Tick values, and the axis' ends on a round figure."""
    low, high = min(values), max(values)
    if from_zero:
        low = min(low, 0.0)
    if high - low < 1e-12:
        high = low + (abs(low) if abs(low) > 1e-12 else 1.0)
    step = nice_step(high - low, 4)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if percent:
        top = min(top, 100.0)
    top = max(top, high)
    return [bottom + i * step for i in range(int((top - bottom) / step + 1e-6) + 1)], bottom, top


def _log_axis(values: Sequence[float]) -> tuple[list[float], float, float]:
    """Decades as tick values, and the axis' ends as powers of ten."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    low = max(low, high - 6)  # a single vanishing value must not flatten everything else
    high = max(high, low + 1)
    return [10.0**power for power in range(low, high + 1)], float(low), float(high)
