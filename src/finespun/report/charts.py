"""Charts of the report as SVG: drawn without a script, sharp when printed, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 26, 28, 44
MOST_POINTS = 400  # of a line: more than there are pixels to draw them on
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart; `kind` is the class of the style sheet that draws it."""

    name: str
    points: Sequence[Point]
    kind: str = "a"
    marks: bool = False


@dataclass(frozen=True)
class Axis:
    """From where to where a chart goes, and what that is."""

    title: str
    low: float
    high: float
    percent: bool = False

    @classmethod
    def over(cls, title: str, values: Iterable[float], *, zero: bool = False) -> Axis:
        """The axis that holds some values, with some room around them."""
        found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(found), max(found)
        room = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
        return cls(title, 0.0 if zero and low >= 0 else low - room, high + room)

    def ticks(self) -> list[float]:
        """About five round numbers."""
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def label(self, value: float) -> str:
        """What a tick is called."""
        if self.percent:
            return f"{value:.0%}"
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        if abs(value) >= 0.001 or (len(text) <= 6 and "e" not in text):
            return text
        digits, power = f"{value:.2e}".split("e")  # as short as the room beside the axis
        return f"{float(digits):g}e{int(power)}"


@dataclass
class Chart:
    """A frame with two axes, into which marks are drawn."""

    title: str
    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[str, str]:
        """Where a point lies, in the picture's units."""
        across, up = (x - self.x.low) / (self.x.high - self.x.low), (y - self.y.low) / (self.y.high - self.y.low)
        return f"{LEFT + across * (self.width - LEFT - RIGHT):.1f}", f"{TOP + (1 - up) * (self.height - TOP - BOTTOM):.1f}"

    def line(self, line: Line) -> None:
        """Draws a line through its points."""
        placed = [self.at(*point) for point in thinned(line.points)]
        if not placed:
            return
        path = "M" + "L".join(f"{x},{y}" for x, y in placed)
        self.parts.append(f'<path class="line {line.kind}" d="{path}"><title>{escape(line.name)}</title></path>')
        if line.marks:
            for (x, y), (value, height) in zip(placed, thinned(line.points), strict=True):
                said = f"{line.name}: {self.y.label(height)} at {self.x.label(value)}"
                self.parts.append(
                    f'<circle class="dot {line.kind}" cx="{x}" cy="{y}" r="3.5"><title>{escape(said)}</title></circle>'
                )

    def points(self, points: Sequence[Point], kind: str = "a") -> None:
        """Draws a dot for each point."""
        placed = (self.at(*point) for point in points)
        self.parts += [f'<circle class="dot faint {kind}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in placed]

    def bar(self, x: tuple[float, float], y: float, said: str, kind: str = "a") -> None:
        """Draws a bar from zero up."""
        (left, top), (right, bottom) = self.at(x[0], y), self.at(x[1], max(0.0, self.y.low))
        size = f'width="{max(1.0, float(right) - float(left) - 1):.1f}" height="{max(0.0, float(bottom) - float(top)):.1f}"'
        self.parts.append(f'<rect class="bar {kind}" x="{left}" y="{top}" {size}><title>{escape(said)}</title></rect>')

    def svg(self, *, said: str) -> Markup:
        """Returns the picture; `said` is what somebody hears who cannot see it."""
        inner = "".join([*self._grid(), *self.parts])
        box = f'viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(f"{self.title}. {said}")}"'
        return Markup(f'<svg class="chart" {box}>{inner}</svg>')  # noqa: S704  (every text above is escaped)

    def _grid(self) -> Iterable[str]:
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        for value in self.y.ticks():
            _, y = self.at(self.x.low, value)
            yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
            yield f'<text class="tick" x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{self.y.label(value)}</text>'
        for value in self.x.ticks():
            x, _ = self.at(value, self.y.low)
            yield f'<text class="tick" x="{x}" y="{bottom + 18}" text-anchor="middle">{self.x.label(value)}</text>'
        yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        middle = (LEFT + right) / 2
        yield f'<text class="name" x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(self.x.title)}</text>'
        yield f'<text class="name" x="4" y="13">{escape(self.y.title)}</text>'


def lines(title: str, found: Sequence[Line], *, x: str, y: str, zero: bool = False) -> Markup | None:
    """Returns a chart of lines; None where there are no points."""
    drawn = [line for line in found if line.points]
    if not drawn:
        return None
    across = Axis.over(x, (point[0] for line in drawn for point in line.points), zero=True)
    chart = Chart(title, across, Axis.over(y, (point[1] for line in drawn for point in line.points), zero=zero))
    for line in drawn:
        chart.line(line)
    said = "; ".join(f"{line.name} ends at {line.points[-1][1]:.4g}" for line in drawn)
    return chart.svg(said=said)


def interval_bar(value: float, low: float, high: float, *, start: float, end: float, others: Sequence[float] = ()) -> Markup:
    """Returns a value with its interval on a line from `start` to `end`, and other values as hollow marks."""
    span = (end - start) or 1.0

    def at(number: float) -> str:
        return f"{4 + 192 * min(1.0, max(0.0, (number - start) / span)):.1f}"

    marks = "".join(f'<circle class="hollow" cx="{at(other)}" cy="9" r="4"/>' for other in others)
    drawn = (
        f'<line class="grid" x1="4" x2="196" y1="9" y2="9"/>'
        f'<line class="interval" x1="{at(low)}" x2="{at(high)}" y1="9" y2="9"/>{marks}'
        f'<circle class="dot a" cx="{at(value)}" cy="9" r="4.5"/>'
    )
    return Markup(f'<svg class="interval" viewBox="0 0 200 18" aria-hidden="true">{drawn}</svg>')  # noqa: S704  (numbers alone)


def smooth(points: Sequence[Point]) -> list[Point]:
    """Returns the moving mean over a twentieth of the points."""
    window = max(1, len(points) // 20)
    total, found = 0.0, []
    for place, (x, y) in enumerate(points):
        total += y - (points[place - window][1] if place >= window else 0.0)
        found.append((x, total / min(place + 1, window)))
    return found


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Returns at most `MOST_POINTS`, evenly spread, with the first and the last."""
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(number * step)] for number in range(MOST_POINTS)]
