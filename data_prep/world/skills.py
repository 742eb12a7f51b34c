"""List and arithmetic tasks: how they are asked, and the right answer.

A task is a plain dict, so that it can travel in a JSON row:
    {"type": "skill", "skill": "reverse", "items": ["a", "b", "c"], "constraint": "end_done" | null}
The right answer is computed from it, never stored: a verifier that trusts a stored answer proves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

LETTERS = list("abcdefgh")
DIGITS = [str(n) for n in range(10)]


@dataclass(frozen=True)
class Skill:
    """ask: wording with {items}; solve: items -> words of the answer; draw: (rng, max length) -> items.

    fact: there are so few different tasks that their answers are knowledge rather than a procedure; the corpus may then
    state all of them (an addition table), while the chat files still keep evaluation tasks apart.
    """

    name: str
    ask: str
    solve: Callable[[list[str]], list[str]]
    draw: Callable[[random.Random, int], list[str]]
    fact: bool = False


def pick(rng: random.Random, options: list) -> object:
    """rng.choice, four times as fast; a world is a hundred thousand draws."""
    return options[int(rng.random() * len(options))]


def _different(rng: random.Random, options: list[str], count: int) -> list[str]:
    items: list[str] = []
    while len(items) < count:
        item = options[int(rng.random() * len(options))]
        if item not in items:
            items.append(item)
    return items


def _sequence(rng: random.Random, longest: int) -> list[str]:
    """Different letters or different digits: with repeats, sorting and reversing are ambiguous to judge by eye."""
    return _different(rng, LETTERS if rng.random() < 0.6 else DIGITS, 2 + int(rng.random() * (longest - 1)))


def _numbers(rng: random.Random, longest: int) -> list[str]:
    return _different(rng, DIGITS, 2 + int(rng.random() * (longest - 1)))


def _two(rng: random.Random, longest: int) -> list[str]:
    return [pick(rng, DIGITS), pick(rng, DIGITS)]


def _small_then_large(rng: random.Random, longest: int) -> list[str]:
    return sorted(_two(rng, longest))


def _times(rng: random.Random, longest: int) -> list[str]:
    return [pick(rng, LETTERS + DIGITS), str(2 + int(rng.random() * (longest - 1)))]


SKILLS = {skill.name: skill for skill in [
    Skill("reverse", "reverse {}", lambda items: items[::-1], _sequence),
    Skill("sort", "sort {}", sorted, _sequence),
    Skill("last", "last of {}", lambda items: items[-1:], _sequence),
    Skill("first", "first of {}", lambda items: items[:1], _sequence),
    Skill("count", "count {}", lambda items: [str(len(items))], _sequence),
    Skill("repeat", "repeat {} times", lambda items: [items[0]] * int(items[1]), _times, fact=True),
    Skill("max", "max of {}", lambda items: [max(items)], _numbers),
    Skill("min", "min of {}", lambda items: [min(items)], _numbers),
    Skill("add", "add {} and {}", lambda items: [str(int(items[0]) + int(items[1]))], _two, fact=True),
    Skill("subtract", "subtract {} from {}", lambda items: [str(int(items[1]) - int(items[0]))], _small_then_large,
          fact=True),
]}

# Constraint -> what the prompt adds. `reverse_order` only makes sense where the answer has several different words.
CONSTRAINTS = {"end_done": "and end with done", "start_sure": "and start with sure",
               "reverse_order": "and reply in reverse order"}


def draw(rng: random.Random, name: str, longest: int, constraint_share: float) -> dict:
    """One random task of the skill; lists have 2..longest items; `constraint_share` of the tasks get a constraint."""
    task = {"type": "skill", "skill": name, "items": SKILLS[name].draw(rng, longest), "constraint": None}
    if rng.random() < constraint_share:
        several = len(set(SKILLS[name].solve(task["items"]))) > 1
        task["constraint"] = pick(rng, ["end_done", "start_sure"] + ["reverse_order"] * several)
    return task


def ask(task: dict) -> str:
    """The task in words, without an opener: "reverse a b c and end with done"."""
    skill, items = SKILLS[task["skill"]], task["items"]
    text = skill.ask.format(*items) if skill.ask.count("{}") == 2 else skill.ask.format(" ".join(items))
    return f"{text} {CONSTRAINTS[task['constraint']]}" if task["constraint"] else text


def solve(task: dict) -> list[str]:
    """Words of the right answer, without the words that a constraint puts around it."""
    words = SKILLS[task["skill"]].solve(task["items"])
    return words[::-1] if task["constraint"] == "reverse_order" else words
