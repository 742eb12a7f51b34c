"""List and arithmetic tasks: how they are asked, and the right answer.

A task is a plain dict, so that it can travel in a JSON row:
    {"type": "skill", "family": "lists", "skill": "reverse", "items": ["a", "b", "c"], "constraint": "end_done" | null}
family, for tables of results: "lists", "arithmetic", or "constraints" for a task of either that has one.
The right answer is computed from it, never stored: a verifier that trusts a stored answer proves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recipes.errors import Problem, UserInputError

LETTERS, DIGITS = list("abcdefghijkl"), [str(n) for n in range(10)]


@dataclass(frozen=True)
class Lists:
    """What lists are made of: the first letters of the alphabet, or digits from 0; of 2..longest items.

    The smaller, the sooner a small model sees every combination and the fewer different prompts there are.
    """

    letters: list[str]
    digits: list[str]
    longest: int

    @classmethod
    def of(cls, letters: int, digits: int, longest: int) -> Lists:
        if not (2 <= letters <= len(LETTERS) and 2 <= digits <= len(DIGITS) and 2 <= longest <= min(letters, digits)):
            message = f"letters {letters}, digits {digits}, longest_list {longest} make no lists"
            fix = f"letters 2..{len(LETTERS)}, digits 2..{len(DIGITS)}, longest_list 2..the smaller of the two"
            raise UserInputError(Problem("", "tasks", message, fix))
        return cls(LETTERS[:letters], DIGITS[:digits], longest)


@dataclass(frozen=True)
class Skill:
    """ask: wording with {items}; solve: items -> words of the answer; draw: (rng, lists) -> items.

    fact: there are so few different tasks that their answers are knowledge rather than a procedure; the corpus may then
    state all of them (an addition table), while the chat files still keep evaluation tasks apart.
    """

    name: str
    ask: str
    solve: Callable[[list[str]], list[str]]
    draw: Callable[[random.Random, Lists], list[str]]
    fact: bool = False


def pick(rng: random.Random, options: Sequence) -> object:
    """rng.choice, four times as fast; a world is a hundred thousand draws."""
    return options[int(rng.random() * len(options))]


def _different(rng: random.Random, options: list[str], longest: int) -> list[str]:
    """2..longest different items: with repeats, the answer to sorting or reversing looks right when it is wrong."""
    items: list[str] = []
    count = 2 + int(rng.random() * (longest - 1))
    while len(items) < count:
        item = pick(rng, options)
        if item not in items:
            items.append(item)
    return items


def _sequence(rng: random.Random, lists: Lists) -> list[str]:
    return _different(rng, lists.letters if rng.random() < 0.6 else lists.digits, lists.longest)


def _numbers(rng: random.Random, lists: Lists) -> list[str]:
    return _different(rng, lists.digits, lists.longest)


def _two(rng: random.Random, lists: Lists) -> list[str]:
    return [pick(rng, lists.digits), pick(rng, lists.digits)]


SKILLS = {
    skill.name: skill
    for skill in [
        Skill("copy", "copy {}", lambda items: items, _sequence),
        Skill("reverse", "reverse {}", lambda items: items[::-1], _sequence),
        Skill("sort", "sort {}", sorted, _sequence),
        Skill("last", "last of {}", lambda items: items[-1:], _sequence),
        Skill("first", "first of {}", lambda items: items[:1], _sequence),
        Skill("count", "count {}", lambda items: [str(len(items))], _sequence),
        Skill("max", "max of {}", lambda items: [max(items)], _numbers),
        Skill("min", "min of {}", lambda items: [min(items)], _numbers),
        Skill("add", "add {} and {}", lambda items: [str(int(items[0]) + int(items[1]))], _two, fact=True),
    ]
}
ARITHMETIC = {"count", "max", "min", "add"}

# Constraint -> what the prompt adds. `reverse_order` only makes sense where the answer has several different words.
CONSTRAINTS = {
    "end_done": "and end with done",
    "start_sure": "and start with sure",
    "reverse_order": "and reply in reverse order",
}


def draw(rng: random.Random, name: str, lists: Lists, constraint_share: float) -> dict:
    """One random task of the skill; `constraint_share` of the tasks get a constraint."""
    family = "arithmetic" if name in ARITHMETIC else "lists"
    task = {
        "type": "skill",
        "family": family,
        "skill": name,
        "items": SKILLS[name].draw(rng, lists),
        "constraint": None,
    }
    if rng.random() < constraint_share:
        several = len(set(SKILLS[name].solve(task["items"]))) > 1
        task["constraint"] = pick(rng, ["end_done", "start_sure"] + ["reverse_order"] * several)
        task["family"] = "constraints"
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
