r"""Numeric answers: which number a solution to a maths problem ends with, and whether it is the right one.

    final_answer("16 - 3 - 4 = 9 eggs. 9 * 2 = $18.\nA: 18")     # Found(Number(18), "marked")
    verdict("18", "So she makes $18.00 a day.")                   # {"correct": True, "quality": 1.0, ...}

The final answer is what stands behind the last mark: "#### 18" (GSM8K, Cobbe et al. 2021), "A: 18", "Answer: 18",
"the answer is 18", "\boxed{18}". Where a solution has none of these with a number behind it, it is the last number of
the text. Numbers in words ("eighteen") are not read, and units are not compared: 18 cents count as 18 dollars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from data_prep.rules import BadRow

MARKED, LAST_NUMBER, NONE = "marked", "last_number", "none"

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,|[\u00a0\u202f\u2009])\d{3})+(?!\d)|\d+)"  # 1,234 and LaTeX's 1{,}234
_DECIMAL = rf"(?<!\w)(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]}])(?<![\d)\]}]\s)[-\u2212])?"  # a minus behind a number is an operation, not a sign
    r"(?:(?:\\?\$|[\u20ac\u00a3\u00a5])(?P<inner>[-\u2212])?\s?)?"
    rf"(?:(?P<whole>{_DECIMAL})?\\[dt]?frac\{{(?P<top>{_DECIMAL})\}}\{{(?P<bottom>{_DECIMAL})\}}"
    rf"|(?P<plain>{_DECIMAL})(?:\s(?P<mixed>\d+/\d+)(?![\d/])|\s?/\s?(?P<over>{_DECIMAL})(?![\d/])"
    r"|[eE](?P<exponent>[+-]?\d{1,3})(?!\w)"
    r"|\s?(?:\\times|\*|x|\u00d7)\s?10\s?(?:\^|\*\*)\s?\{?(?P<power>-?\d{1,3})\}?)?)"
    r"(?P<percent>\s?\\?%|\spercent\b)?(?P<scale>\s(?:thousand|million|billion)\b)?"
)
_REACH = 400  # characters behind a mark that are looked at
_LONGEST = 200  # characters: more is no number but a model that repeats itself
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MARK = re.compile(
    r"####|^[ \t]*\**A(?:nswer)?\**[ \t]*[:=]|\b[Aa]nswer(?: is|:)|\\boxed(?P<boxed>\{)", re.MULTILINE
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")


@dataclass(frozen=True)
class Number:
    """value: as it is written, without a percent sign; percent: it has one."""

    value: Fraction
    percent: bool = False

    def equals(self, other: Number) -> bool:
        """The same number, exactly. A percent sign may be left out or worked out: 25 % is 25 and is 0.25."""
        return self.value == other.value or (self.percent != other.percent and self._amount() == other._amount())

    def _amount(self) -> Fraction:
        return self.value / 100 if self.percent else self.value


@dataclass(frozen=True)
class Found:
    """number: the final answer, None if there is none; how: "marked", "last_number" or "none"."""

    number: Number | None
    how: str


def final_answer(solution: str) -> Found:
    """The number behind the last mark that has one behind it, or, without such a mark, the last number of the text."""
    for mark in reversed(list(_MARK.finditer(solution))):
        behind = solution[mark.end() : mark.end() + _REACH]
        number = _first(_boxed(behind) if mark["boxed"] else _sentence(behind))
        if number:
            return Found(number, MARKED)
    number = next(_numbers(solution, backwards=True), None)
    return Found(number, LAST_NUMBER if number else NONE)


def _sentence(text: str) -> str:
    text = text.lstrip(" \t\r\n*:")
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def _boxed(text: str) -> str:
    """Up to the brace that closes the one in front of the text."""
    depth = 1
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if not depth:
            return text[:at]
    return text


def _first(text: str) -> Number | None:
    """The first number, behind the last = if there is one: "3 + 4 = 7"."""
    return next(_numbers(text.rpartition("=")[2]), None) or next(_numbers(text), None)


def _numbers(text: str, backwards: bool = False) -> Iterator[Number]:
    matches = _NUMBER.finditer(text)
    return filter(None, map(_read, reversed(list(matches)) if backwards else matches))


def _read(match: re.Match) -> Number | None:
    """The value of a match; None for a fraction over zero and for endless digits."""
    if len(match.group()) > _LONGEST:
        return None
    if match["top"]:
        top, bottom, whole = (_decimal(match[name] or "0") for name in ("top", "bottom", "whole"))
    else:
        whole, top, bottom = Fraction(0), _decimal(match["plain"]), _decimal(match["over"] or "1")
        if match["mixed"]:
            whole, (top, bottom) = top, map(Fraction, match["mixed"].split("/"))
    if not bottom:
        return None
    value = (whole + top / bottom) * Fraction(10) ** int(match["exponent"] or match["power"] or 0)
    if match["scale"]:
        value *= _SCALES[match["scale"].strip()]
    return Number(-value if match["sign"] or match["inner"] else value, bool(match["percent"]))


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[^\d.]", "", text))


def check(answer: object, field: str = "task.answer") -> Number:
    """The right answer of a task. Raises BadRow naming `field` unless it is a text with exactly one number."""
    numbers = list(_numbers(answer)) if isinstance(answer, str) else []
    if len(numbers) != 1:
        found = "is missing" if answer is None else f"is {answer!r}"
        raise BadRow("D2", field, f"{found}, not a text with one number", 'give the number as text, for example "18"')
    return numbers[0]


def verdict(answer: str, response: str) -> dict:
    """{"correct": the final answer is `answer`, "quality": 1.0 or 0.0, "found": how it was found}. Raises BadRow."""
    right, found = check(answer), final_answer(response)
    correct = found.number is not None and found.number.equals(right)
    return {"correct": correct, "quality": float(correct), "found": found.how}
