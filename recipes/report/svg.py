"""Charts as inline SVG text, written by hand: no plotting library, no script, a few kilobytes each.

Colours are CSS classes (report.css), so that one file reads well on a light and on a dark screen. All text
that comes from data goes through `esc`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from recipes.report.numbers import fmt

WIDTH, HEIGHT = 300, 206
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 12, 38
Point = tuple[float, float]


def esc(text: object) -> str:
    """`text` escaped for SVG text and attributes."""
    return str(escape(text))


@dataclass
class Series:
    """One line or cloud of points; `css` names its colour class, `style` is line, faint, dots or marks."""

    name: str
    css: str
    points: list[Point]
    style: str = "line"


@dataclass
class Frame:
    """The mapping from data to the drawing area of one chart, and its axes."""

    x_range: Point
    y_range: Point
    width: int = WIDTH
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        lo, hi = self.x_range
        return LEFT + (value - lo) / ((hi - lo) or 1) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        lo, hi = self.y_range
        return self.height - BOTTOM - (value - lo) / ((hi - lo) or 1) * (self.height - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str, whole_x: bool = False) -> None:
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        y_ticks, y_text = ticks(*self.y_range)
        for value in y_ticks:
            y = self.y(value)
            self.parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
            self.parts.append(text("tick", LEFT - 6, y + 3.5, y_text(value), "end"))
        x_ticks, x_text = ticks(*self.x_range, whole=whole_x)
        for value in x_ticks:
            x = self.x(value)
            self.parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            self.parts.append(text("tick", x, bottom + 15, x_text(value)))
        self.parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
        if self.y_range[0] < 0 < self.y_range[1]:
            self.parts.append(f'<path class="zero" d="M{LEFT} {self.y(0):.1f}H{right}"/>')
        self.parts.append(text("axis-label", (LEFT + right) / 2, self.height - 5, x_label))
        self.parts.append(text("axis-label", 12, (TOP + bottom) / 2, y_label, turn=-90))

    def svg(self, title: str) -> Markup:
        return wrap(self.parts, self.width, self.height, title)


def text(css: str, x: float, y: float, content: object, anchor: str = "middle", turn: float = 0) -> str:
    """A <text> element; turn: degrees clockwise around its anchor."""
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{esc(content)}</text>'


def wrap(parts: Sequence[str], width: float, height: float, title: str, css: str = "chart") -> Markup:
    """An <svg> element around `parts`; `title` is what a screen reader says."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return Markup(f'<svg class="{css}" {size} role="img" aria-label="{esc(title)}">{"".join(parts)}</svg>')


def ticks(lo: float, hi: float, count: int = 5, whole: bool = False) -> tuple[list[float], Callable[[float], str]]:
    """Round tick values within [lo, hi] and the function that prints them all with the same digits."""
    span = (hi - lo) or 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    step = max(1.0, step) if whole else step
    first = math.ceil(lo / step - 1e-9)
    values = [k * step for k in range(first, math.floor(hi / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if digits > 4 or max(abs(lo), abs(hi)) >= 1e6:
        return values, lambda value: f"{value:.3g}"
    return values, lambda value: f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0: no "-0"


def padded(values: Sequence[float], share: float = 0.06) -> Point:
    """A range a little wider than the values, never empty."""
    lo, hi = min(values), max(values)
    pad = (hi - lo) * share or abs(hi) * 0.1 or 1.0
    return lo - pad, hi + pad


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, title: str, y_range: Point | None = None
) -> Markup:
    """Lines over training steps. Series without points are left out; without any point the chart says so."""
    drawn = [s for s in series if s.points]
    if not drawn:
        return empty_chart(title)
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    start = 0 if 0 <= min(xs) <= 0.1 * max(xs) else min(xs)
    frame = Frame((start, max(xs)) if max(xs) > start else padded(xs), y_range or padded(ys))
    frame.axes(x_label, y_label, whole_x=True)
    for s in drawn:
        frame.parts.append(_path(frame, s))
    for s in drawn:
        if s.style != "faint":
            frame.parts += _hover(frame, s, x_label)
    return frame.svg(title)


def _path(frame: Frame, s: Series) -> str:
    at = [(frame.x(x), frame.y(y)) for x, y in s.points]
    if s.style in ("dots", "marks"):
        # Zero-length dashes with round caps: one short element for thousands of points.
        return f'<path class="{s.style} {s.css}" d="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)}"/>'
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at) if len(at) <= 24 and s.style == "line" else ""
    return f'<path class="{s.style} {s.css}" d="M{line}"/>' + (
        f'<path class="marks {s.css}" d="{dots}"/>' if dots else ""
    )


def _hover(frame: Frame, s: Series, x_label: str) -> list[str]:
    stride = max(1, len(s.points) // 40)
    return [
        f'<circle class="hover {s.css}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="6">'
        f"<title>{esc(s.name)}: {fmt(y)} at {esc(x_label)} {fmt(x)}</title></circle>"
        for x, y in s.points[::-stride]
    ]


def scatter(
    points: Sequence[Point], x_label: str, y_label: str, title: str, css: str, diagonal: bool = False
) -> Markup:
    """Points; `diagonal` draws y = x over a common range, for predictions against labels."""
    if not points:
        return empty_chart(title)
    x_range, y_range = padded([x for x, _ in points]), padded([y for _, y in points])
    if diagonal:
        x_range = y_range = (min(x_range[0], y_range[0]), max(x_range[1], y_range[1]))
    frame = Frame(x_range, y_range)
    frame.axes(x_label, y_label)
    if x_range[0] < 0 < x_range[1] and not diagonal:
        frame.parts.append(f'<path class="zero" d="M{frame.x(0):.1f} {TOP}V{frame.height - BOTTOM}"/>')
    if diagonal:
        (lo, hi), x, y = x_range, frame.x, frame.y
        frame.parts.append(f'<path class="diagonal" d="M{x(lo):.1f} {y(lo):.1f}L{x(hi):.1f} {y(hi):.1f}"/>')
    frame.parts.append(_path(frame, Series("", css, list(points), "dots")))
    return frame.svg(title)


def steps_chart(
    labels: Sequence[str],
    values: Sequence[float | None],
    parents: Sequence[int | None],
    best: set[int],
    show: Callable[[float], str],
    title: str,
    css: str,
) -> Markup:
    """One value a policy, joined to its parent's value; a missing value leaves its place empty.

    parents: index of the parent in the same lists, or None. best: indices to print in bold.
    """
    known = [v for v in values if v is not None]
    if not known:
        return empty_chart(title)
    left, scale = 16, (WIDTH - 16 - RIGHT) / len(labels)
    tilted = max(map(len, labels)) * 6.3 > scale
    frame = Frame((0, 1), padded(known, 0.2), height=HEIGHT + (30 if tilted else 0))
    # The frame keeps BOTTOM free; tilted names need more, which the extra height above gives.
    bottom = frame.height - BOTTOM - (26 if tilted else 0)
    lo, hi = frame.y_range
    at = [
        (left + scale * (i + 0.5), None if v is None else bottom - (v - lo) / (hi - lo) * (bottom - TOP))
        for i, v in enumerate(values)
    ]
    for (x, y), parent in zip(at, parents):
        if y is not None and parent is not None and at[parent][1] is not None:
            frame.parts.append(
                f'<path class="line {css}" d="M{at[parent][0]:.1f} {at[parent][1]:.1f}L{x:.1f} {y:.1f}"/>'
            )
    frame.parts.append(f'<path class="axis" d="M{left} {bottom}H{frame.width - RIGHT}"/>')
    for i, ((x, y), label) in enumerate(zip(at, labels)):
        anchor, turn = ("end", -32) if tilted else ("middle", 0)
        frame.parts.append(text("tick", x, bottom + 15, label, anchor, turn))
        if y is not None:
            frame.parts.append(f'<path class="bigdot {css}" d="M{x:.1f} {y:.1f}h0"/>')
            frame.parts.append(text("value best" if i in best else "value", x, y - 10, show(values[i])))
    return frame.svg(title)


def empty_chart(title: str) -> Markup:
    """The place of a chart whose data is not there."""
    return wrap(
        [text("axis-label", WIDTH / 2, HEIGHT / 2, "not recorded")],
        WIDTH,
        HEIGHT,
        f"{title}: not recorded",
        "chart empty",
    )
