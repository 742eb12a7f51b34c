"""Comparisons made to catch a judge at a bias: easy questions with one right answer and one wrong one.

Which answer is padded with sentences that say nothing, and which wears the mark of a model family, are crossed with
right and wrong, in equal numbers and on fresh questions. So a judge that reads the answers errs as often whichever of
them is long or marked, and one that follows length or the mark does not. Every pair is judged in both orders, which
crosses the place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from recipes.errors import Problem, UserInputError

CELLS = 4  # right answer padded or not, right answer marked or not
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_OPENINGS = (
    "This is a good question to work through with some care, so let us begin with what is being asked.",
    "There are several ways to look at a question of this kind, and they all lead to the same place.",
    "Before giving the result, it helps to read the question once more and to note what is known.",
    "Questions like this one come up often, and a calm look at the details is usually all that it takes.",
)
_MIDDLES = (
    "Nothing beyond the information in the question is needed here, and no detail of it should be left aside.",
    "Going through it step by step, each part follows from the one before, and the steps can be checked one by one.",
    "It is worth pausing at this point, because haste is what leads people astray in exercises of this sort.",
    "With that in mind, the remaining work is a matter of putting the pieces together in the right order.",
)
_CLOSINGS = (
    "If anything about this explanation is unclear, it can be gone through again at whatever pace is comfortable.",
    "The same approach carries over to other questions of this type, with other values in the same places.",
    "Taking a moment to look back over the question and the result is a good habit in any case.",
)


@dataclass(frozen=True)
class Probe:
    """question; answers: two texts; right: index of the right one; padded, marked: index of the padded one and of the
    one that wears the mark, None where no mark was given."""

    question: str
    answers: tuple[str, str]
    right: int
    padded: int
    marked: int | None


def make(number: int, mark: str, seed: int) -> list[Probe]:
    """`number` probes, a multiple of 8: 4 cells (padded x marked), the right answer first in half of each; `mark`: text
    put before an answer, "" for none. No question occurs twice. Raises UserInputError."""
    if number < 0 or number % (2 * CELLS):
        fix = f"use a multiple of {2 * CELLS}, so that what is crossed is balanced; 0 for none"
        raise UserInputError(Problem("", "probes", f"is {number}", fix))
    rng, seen, probes = random.Random(f"probes {seed}"), set(), []
    while len(probes) < number:
        question, right, wrong = rng.choice((_sum, _product, _weekday, _largest))(rng)
        if question not in seen:
            seen.add(question)
            probes.append(_probe(question, right, wrong, len(probes), mark, rng))
    return probes


def _probe(question: str, right: str, wrong: str, number: int, mark: str, rng: random.Random) -> Probe:
    pads_right, marks_right, right_first = number & 1, number >> 1 & 1, number >> 2 & 1
    texts = []
    for says, is_right in ((right, 1), (wrong, 0)):
        text = _pad(says, rng) if is_right == pads_right else says
        texts.append(f"{mark.strip()} {text}" if mark and is_right == marks_right else text)
    first = 0 if right_first else 1  # index of the right answer
    answers = (texts[0], texts[1]) if right_first else (texts[1], texts[0])
    marked = None if not mark else first if marks_right else 1 - first
    return Probe(question, answers, first, first if pads_right else 1 - first, marked)


def _pad(says: str, rng: random.Random) -> str:
    return " ".join([rng.choice(_OPENINGS), *rng.sample(_MIDDLES, 2), says, rng.choice(_CLOSINGS)])


# Each maker: (question, sentence with the right answer, sentence with a wrong one that differs in nothing else).


def _sum(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randrange(100, 900), rng.randrange(100, 900)
    return _numeric(f"What is {a} + {b}?", a + b, rng.choice((-100, -10, -1, 1, 10, 100)))


def _product(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randrange(6, 20), rng.randrange(6, 100)
    return _numeric(f"What is {a} times {b}?", a * b, rng.choice((-a, a, -10, 10)))


def _numeric(question: str, result: int, slip: int) -> tuple[str, str, str]:
    return question, f"The result is {result}.", f"The result is {result + slip}."


def _weekday(rng: random.Random) -> tuple[str, str, str]:
    start, days = rng.randrange(7), rng.randrange(8, 60)
    question = f"Today is {_DAYS[start]}. Which day of the week is it in {days} days?"
    right = (start + days) % 7
    wrong = (right + rng.choice((1, 6))) % 7
    return question, f"It is a {_DAYS[right]}.", f"It is a {_DAYS[wrong]}."


def _largest(rng: random.Random) -> tuple[str, str, str]:
    numbers = rng.sample(range(1000, 9999), 5)
    question = f"Which of these numbers is the largest: {', '.join(map(str, numbers))}?"
    largest, second = sorted(numbers)[:-3:-1]
    return question, f"The largest one is {largest}.", f"The largest one is {second}."
