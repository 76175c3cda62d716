"""Charts of a report as inline SVG; the colours are classes of the style sheet, so that they follow light and dark.

A chart shows what a table beside it says in numbers. Its texts are escaped: `Markup.format` does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

__all__ = ["Column", "draw_bar", "draw_columns", "draw_histogram"]

WIDTH, HEIGHT = 960, 220
LEFT, BOTTOM, TOP = 56, 24, 8  # room for the numbers at the left and for those below
GAP = 0.15  # of a column's width

_SVG = Markup(
    '<svg class="{kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="{ratio}" role="img" aria-label="{title}">'
    "{parts}</svg>"
)
_RECTANGLE = Markup(
    '<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}">'
    "<title>{title}</title></rect>"
)
_LINE = Markup('<line x1="{x1}" x2="{x2}" y1="{y:.1f}" y2="{y:.1f}"/>')
_TEXT = Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>')

Column = tuple[str, Mapping[str, int]]
"""The name of a column, and the number of each class in it."""


def draw_bar(numbers: Mapping[str, int], title: str) -> Markup:
    """Draw one bar whose parts have lengths as the numbers; a part is at least visible."""
    total = sum(numbers.values())
    parts: list[Markup] = []
    x = 0.0
    for name, number in numbers.items():
        if number:
            width = 100 * number / total
            parts.append(_rectangle(name, f"{name}: {number:,}", x, 0, max(width, 0.2), 10))
            x += width
    return _svg(100, 10, title, parts, "bar", ratio="none")


def draw_columns(columns: Sequence[Column], title: str) -> Markup:
    """Draw stacked columns, from left to right, with a scale at the left."""
    highest = max((sum(numbers.values()) for _, numbers in columns), default=0)
    return _draw(columns, title, highest)


def draw_histogram(bins: Sequence[tuple[str, int]], title: str) -> Markup:
    """Draw how many values fall into each bin."""
    return _draw([(name, {"accepted": number}) for name, number in bins], title, max((n for _, n in bins), default=0))


def _draw(columns: Sequence[Column], title: str, highest: int) -> Markup:
    scale = _round_up(highest)
    step = (WIDTH - LEFT) / max(1, len(columns))
    parts = [*_grid(scale)]
    for place, (name, numbers) in enumerate(columns):
        y = float(HEIGHT - BOTTOM)
        for kind, number in numbers.items():
            height = (HEIGHT - BOTTOM - TOP) * number / scale
            if number:
                y -= height
                x, title = LEFT + (place + GAP / 2) * step, f"{name}: {number:,} {kind}"
                parts.append(_rectangle(kind, title, x, y, step * (1 - GAP), max(height, 0.75)))
    shown = max(1, -(-len(columns) // 8))
    parts += [
        _TEXT.format(x=LEFT + (place + 0.5) * step, y=HEIGHT - 6, anchor="middle", text=name)
        for place, (name, _) in enumerate(columns)
        if place % shown == shown // 2
    ]
    return _svg(WIDTH, HEIGHT, title, parts, "columns")


def _grid(scale: int) -> Iterator[Markup]:
    for share in (0, 0.5, 1):
        y, number = TOP + (HEIGHT - BOTTOM - TOP) * (1 - share), scale * share
        yield _LINE.format(x1=LEFT, x2=WIDTH, y=y)
        if number == int(number):
            yield _TEXT.format(x=LEFT - 6, y=y + 4, anchor="end", text=f"{int(number):,}")


def _rectangle(kind: str, title: str, x: float, y: float, width: float, height: float) -> Markup:
    return _RECTANGLE.format(kind=kind.replace(" ", "-"), title=title, x=x, y=y, width=width, height=height)


def _svg(width: int, height: int, title: str, parts: Sequence[Markup], kind: str, *, ratio: str = "xMidYMid") -> Markup:
    drawing = Markup("").join(parts)
    return _SVG.format(kind=kind, width=width, height=height, ratio=ratio, title=title, parts=drawing)


def _round_up(number: int) -> int:
    """Return the next 1, 2, 4 or 10 times a power of ten."""
    power = 1
    while power * 10 < number:
        power *= 10
    return next(step * power for step in (1, 2, 4, 10) if step * power >= number)
