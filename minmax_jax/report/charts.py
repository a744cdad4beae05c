"""Charts as SVG, with the colours of the page: a report needs no other file and no network."""

from collections.abc import Iterable, Mapping, Sequence
import html
import math

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 24, 34
_NUM_INTERVALS = 4  # at most, between ticks
_NUM_COLORS = 6  # of the page

Points = Sequence[tuple[float, float]]


def _finite_points(points: Iterable[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    """The points of which both numbers are known and finite."""
    return [point for point in points if all(value is not None and math.isfinite(value) for value in point)]


def lines(series: Mapping[str, Points], *, x_label: str, y_label: str, mark: float | None = None) -> str:
    """A chart of lines.

    Args:
        series: (x, y) points by name; points with a number that is not finite or None are left out, and series without
            any other.
        x_label: below.
        y_label: unit, at the left.
        mark: x of a dotted line, or None.

    Returns:
        The SVG element; "" without any point.
    """
    series = {name: kept for name, points in series.items() if (kept := _finite_points(points))}
    if not series:
        return ""
    xs, ys = ([point[axis] for points in series.values() for point in points] for axis in (0, 1))
    x_range, y_range = _widen(min(xs), max(xs)), _widen(min(ys), max(ys))

    def place(x, y):
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in _ticks(*y_range):
        y = place(x_range[0], tick)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(*x_range):
        x = place(tick, y_range[0])[0]
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{tick:g}</text>')
    if mark is not None:
        x = place(mark, 0)[0]
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    for number, (name, points) in enumerate(series.items()):
        placed = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        title = f"<title>{html.escape(name)}</title>"
        parts.append(f'<polyline class="line s{number % _NUM_COLORS}" points="{placed}">{title}</polyline>')
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(
                f'<circle class="dot s{number % _NUM_COLORS}" cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>'
            )
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{html.escape(x_label)}</text>')
    parts.append(f'<text x="2" y="11">{html.escape(y_label)}</text>')
    legend = "".join(
        f'<span class="key"><i class="s{number % _NUM_COLORS}"></i>{html.escape(name)}</span>'
        for number, name in enumerate(series)
    )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg><div class="legend">{legend}</div>'


def _widen(low: float, high: float) -> tuple[float, float]:
    """The range, or one around a single value."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in the range, evenly spaced."""
    minimum = (high - low) / _NUM_INTERVALS
    magnitude = 10.0 ** math.floor(math.log10(minimum))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= minimum * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
