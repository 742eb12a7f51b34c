"""The exact tests and the interval of the judge audit, without a statistics library."""

from __future__ import annotations

import math

_Z = 1.959963984540054  # the 97.5 % point of the normal distribution: 95 % intervals
_SAME = 1e-9  # probabilities closer than this, relatively, are one and the same: rounding must not split a tie


def share(part: int, whole: int) -> dict | None:
    """{"share", "low", "high", "part", "whole"}: part of whole with Wilson's 95 % interval (Wilson 1927); None for
    nothing of nothing."""
    if not whole:
        return None
    p, z = part / whole, _Z
    centre = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * math.sqrt(p * (1 - p) / whole + z * z / (4 * whole * whole)) / (1 + z * z / whole)
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return {"share": p, "low": low, "high": high, "part": part, "whole": whole}


def sign_test(plus: int, minus: int) -> float:
    """Two-sided p of the sign test: `plus` of plus + minus signs, where either is as likely. 1.0 without a sign."""
    n, k = plus + minus, min(plus, minus)
    return min(1.0, 2 * math.fsum(math.exp(_log_choose(n, i) - n * math.log(2)) for i in range(k + 1)))


def fisher(a: int, b: int, c: int, d: int) -> float:
    """Two-sided p of Fisher's exact test on the table [[a, b], [c, d]]: the probability, with these margins, of tables
    that are at most as likely as this one."""
    row, column, rest = a + b, a + c, c + d
    least, most = max(0, column - rest), min(row, column)
    total = _log_choose(row + rest, column)

    def log_p(x: int) -> float:
        return _log_choose(row, x) + _log_choose(rest, column - x) - total

    limit = log_p(a) + _SAME
    return min(1.0, math.fsum(math.exp(p) for x in range(least, most + 1) if (p := log_p(x)) <= limit))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
