"""Numbers: reading them from files that others wrote, printing them, and the little statistics of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def number(value: object) -> float | None:
    """`value` as a finite float, or None. Text counts where JSON had no number for it ("nan" gives None)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def is_broken(value: object) -> bool:
    """True for a number that is not finite (also as text: "nan", "-inf")."""
    if isinstance(value, str):
        return value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity")
    return isinstance(value, float) and not math.isfinite(value)


def fmt(value: object) -> str:
    """A number for people: three significant digits, thousands separated, e-notation only at the far ends."""
    x = number(value)
    if x is None:
        return "–" if value is None else str(value)
    if x == int(x) and abs(x) < 1e15:
        return f"{int(x):,}".replace("-", "−")
    size = abs(x)
    if size < 1e-3 or size >= 1e7:
        text = f"{x:.3g}"
    else:
        text = f"{x:,.{max(0, 3 - max(0, math.floor(math.log10(size)) + 1)) if size >= 1 else 3}f}"
    return text.replace("-", "−")


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def duration(seconds: object) -> str:
    """12.3 s, 4 min 05 s, 3 h 07 min, 2 d 4 h."""
    x = number(seconds)
    if x is None:
        return "–"
    if x < 60:
        return f"{x:.1f} s"
    total = round(x)
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{total // 86400} d {total % 86400 // 3600} h"


def size(count: object) -> str:
    """Bytes for people."""
    x = number(count)
    if x is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if x < 1000:
            return f"{x:.0f} {unit}" if unit == "B" or x >= 100 else f"{x:.1f} {unit}"
        x /= 1000
    return f"{x:.1f} TB"


def smooth(points: Sequence[tuple[float, float]], reach: int) -> list[tuple[float, float]]:
    """Mean over `reach` points to both sides, fewer near the ends: symmetric, so that a fall is not drawn late."""
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    result = []
    for i, (x, _) in enumerate(points):
        r = min(reach, i, len(points) - 1 - i)
        result.append((x, (sums[i + r + 1] - sums[i - r]) / (2 * r + 1)))
    return result


def thin(points: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """At most about `limit` points of a line; every bucket keeps its lowest and highest, so spikes stay."""
    if len(points) <= limit:
        return list(points)
    per, result = math.ceil(2 * len(points) / limit), []
    for start in range(0, len(points), per):
        bucket = range(start, min(start + per, len(points)))
        ends = {min(bucket, key=lambda i: points[i][1]), max(bucket, key=lambda i: points[i][1])}
        result += [points[i] for i in sorted(ends)]
    return result


def evenly(items: Sequence, limit: int) -> list:
    """`limit` items at even distances, in order: a choice that does not look at what the items say."""
    if len(items) <= limit:
        return list(items)
    return [items[int(i * len(items) / limit)] for i in range(limit)]


def _ranks(values: Sequence[float]) -> list[float]:
    order, ranks, i = sorted(range(len(values)), key=values.__getitem__), [0.0] * len(values), 0
    while i < len(order):
        j = i
        while j + 1 < len(order) and values[order[j + 1]] == values[order[i]]:
            j += 1
        for k in range(i, j + 1):
            ranks[order[k]] = (i + j) / 2
        i = j + 1
    return ranks


def pearson(points: Iterable[tuple[float, float]]) -> float | None:
    """Linear correlation, or None for fewer than three points or no spread."""
    points = list(points)
    if len(points) < 3:
        return None
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    sxx, syy = sum((x - mean_x) ** 2 for x, _ in points), sum((y - mean_y) ** 2 for _, y in points)
    return sxy / math.sqrt(sxx * syy) if sxx > 0 and syy > 0 else None


def spearman(points: Iterable[tuple[float, float]]) -> float | None:
    """Rank correlation with mean ranks for ties, or None where it is not defined."""
    points = list(points)
    return pearson(zip(_ranks([x for x, _ in points]), _ranks([y for _, y in points])))
