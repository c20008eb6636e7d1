"""Size against accuracy: one point for each variant, the size on a logarithmic axis.

What was packed is a filled point, what was refused a hollow one. Labels are put where they cover neither a
point nor another label; one that has to move away from its point is tied to it by a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from converters.page.axes import Axis, linear_axis, log_axis
from converters.page.markup import Markup, element
from converters.page.words import size_text

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 20, 46
_RADIUS = 6.0
_LETTER_WIDTH = 7.0
_LINE_HEIGHT = 16.0
_SOURCE_WIDTH = 90.0


class Point(NamedTuple):
    """One variant.

    Attributes:
        name: Of the variant.
        size_bytes: Of its model.
        value: Its metric.
        packed: Whether it passed.
    """

    name: str
    size_bytes: int
    value: float
    packed: bool

    @property
    def family(self) -> str:
        """What its name begins with: the file format, which gives colour and shape."""
        return self.name.partition("-")[0]


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def scatter(points: Sequence[Point], *, metric: str, source: float) -> Markup:
    """Return the plot.

    Args:
        points: At least one, of sizes above 0.
        metric: What the vertical axis shows.
        source: The source's metric, drawn as a line.
    """
    across = log_axis([point.size_bytes for point in points], LEFT, WIDTH - RIGHT)
    up = linear_axis([source, *(point.value for point in points)], HEIGHT - BOTTOM, TOP)
    places = [(across.place(point.size_bytes), up.place(point.value)) for point in points]
    described = "; ".join(
        f"{point.name}: {size_text(point.size_bytes)}, {metric} {point.value:.4f},"
        f" {'packed' if point.packed else 'refused'}"
        for point in points
    )
    return element(
        "svg",
        element("title", f"Size against {metric}"),
        element("desc", described),
        _grid(across, up, metric),
        _source_line(up.place(source), source),
        (marker(point, *place) for point, place in zip(points, places, strict=True)),
        _labels(points, places, up.place(source)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="plot scatter",
    )


def _grid(across: Axis, up: Axis, metric: str) -> Iterator[Markup]:
    for tick in across.ticks:
        x = across.place(tick)
        yield element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid")
        yield element(
            "text", size_text(tick), x=x, y=HEIGHT - BOTTOM + 18, text_anchor="middle", class_="tick"
        )
    for tick in up.ticks:
        y = up.place(tick)
        yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")
        yield element("text", f"{tick:.5g}", x=LEFT - 8, y=y + 4, text_anchor="end", class_="tick")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield element("text", "model size", x=middle, y=HEIGHT - 8, text_anchor="middle", class_="axis")
    yield element(
        "text",
        metric,
        x=14,
        y=HEIGHT / 2,
        text_anchor="middle",
        class_="axis",
        transform=f"rotate(-90 14 {HEIGHT / 2:.0f})",
    )


def _source_line(y: float, value: float) -> tuple[Markup, ...]:
    return (
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="source"),
        element("text", f"source {value:.4f}", x=LEFT + 4, y=y - 5, class_="tick"),
    )


def marker(point: Point, x: float, y: float) -> Markup:
    """Draw a circle for ONNX, a square for TFLite, a diamond for anything else."""
    style = f"marker {point.family} {'packed' if point.packed else 'refused'}"
    if point.family == "onnx":
        return element("circle", cx=x, cy=y, r=_RADIUS, class_=style)
    if point.family == "tflite":
        side = 2 * _RADIUS - 1
        return element("rect", x=x - side / 2, y=y - side / 2, width=side, height=side, class_=style)
    reach = _RADIUS + 1.5
    corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
    return element("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), class_=style)


def _labels(
    points: Sequence[Point], places: Sequence[tuple[float, float]], line_y: float
) -> Iterator[Markup]:
    taken = [_Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places]
    taken.append(_Box(LEFT, line_y - 2, WIDTH, line_y + 2))
    taken.append(_Box(LEFT, line_y - _LINE_HEIGHT, LEFT + _SOURCE_WIDTH, line_y))
    for point, (x, y) in sorted(zip(points, places, strict=True), key=lambda pair: (pair[1][1], -pair[1][0])):
        box = _free_box(x, y, len(point.name) * _LETTER_WIDTH, taken)
        taken.append(box)
        middle = (box.top + box.bottom) / 2
        if abs(middle - y) > 1.5 * _LINE_HEIGHT:
            near = box.left if box.left > x else box.right if box.right < x else (box.left + box.right) / 2
            yield element("line", x1=x, y1=y, x2=near, y2=middle, class_="tie")
        yield element("text", point.name, x=box.left + 2, y=middle + 4, class_=f"label {point.family}")


def _free_box(x: float, y: float, width: float, taken: Sequence[_Box]) -> _Box:
    """Return the nearest place for a label beside its point, or the last one tried."""
    box = _Box(x, y, x, y)
    for step in range(12):
        for offset in (0.0,) if step == 0 else (-step * _LINE_HEIGHT, step * _LINE_HEIGHT):
            for left in (x + _RADIUS + 4, x - _RADIUS - 4 - width):
                top = y + offset - _LINE_HEIGHT / 2
                box = _Box(left, top, left + width, top + _LINE_HEIGHT)
                inside = (
                    box.left >= LEFT and box.right <= WIDTH and top >= 0 and box.bottom <= HEIGHT - BOTTOM
                )
                if inside and not any(box.overlaps(other) for other in taken):
                    return box
    return box
