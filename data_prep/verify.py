"""Ground truth: does a response do what its task asks, and how well.

    verify({"type": "skill", "skill": "reverse", "items": ["a", "b"], "constraint": None}, "the answer is b a .")
    -> {"correct": True, "answer_right": True, "constraint_met": True, "closeness": 1.0,
        "polite": True, "clean": True, "concise": 1.0, "manner": 1.0, "quality": 1.0}
    verify({"type": "constraints", "constraints": [{"id": "punctuation:no_comma", "args": {}}]}, "No, none.")
    -> {"correct": False, "quality": 0.0, "failed": ["punctuation:no_comma"]}
    verify({"type": "number", "answer": "1234"}, "That makes $1,234.00")
    -> {"correct": True, "quality": 1.0, "found": "last_number"}

Rewards come from a reward model; this is what tells whether following them made the policy better.
"""

from __future__ import annotations

import re

from data_prep.rules import BadRow
from data_prep.world import answers, code

CORRECT_WEIGHT, MANNER_WEIGHT = 0.7, 0.3


def verify(task: dict, response: str) -> dict:
    """Verdict on one response: "correct", "quality" from 0 to 1, and what else its verifier says.

    skill, code (the tiny world): correct is right and the constraint kept; closeness 0..1: share of the answer that is
    right, position by position; manner 0..1: polite, clean and concise; quality: 0.7 correct + 0.3 manner.
    constraints: correct is all met, quality the share that is met. number: quality is 1 if correct, else 0.
    Raises KeyError for a task type without a verifier, BadRow for a task that `check` refuses.
    """
    return VERIFIERS[task["type"]](task, response)


def check(task: object) -> None:
    """Raise BadRow, naming the field, unless the task has a family, a type out of VERIFIERS, and what that type needs.
    Tasks of the tiny world are made by a program and not looked into."""
    named = isinstance(task, dict) and all(isinstance(task.get(key), str) for key in ("family", "type"))
    if not named or task["type"] not in VERIFIERS:
        raise BadRow(
            "D2",
            "task",
            f"is not an object with a family and a type out of {', '.join(VERIFIERS)}",
            "leave `task` out of prompts whose answer cannot be verified",
        )
    if task["type"] == "constraints":
        from data_prep.synthetic import constraints

        constraints.check(task.get("constraints"))
    elif task["type"] == "number":
        from data_prep.synthetic import numbers

        numbers.check(task.get("answer"))


def _tiny(task: dict, response: str) -> dict:
    reading, right = answers.read(response), answers.solution(task)
    answer_right = bool(reading.claims) and all(_is_right(task, right, claim) for claim in reading.claims)
    met = {"end_done": reading.done, "start_sure": reading.sure}.get(task.get("constraint"), True)
    ideal = len(answers.good(task, right).split())
    concise = min(1.0, max(0.0, 1 - (reading.words - ideal - 1) / ideal))
    manner = (0.4 * reading.polite + 0.3 * reading.clean + 0.3 * concise) if reading.words else 0.0
    correct = answer_right and met
    return {
        "correct": correct,
        "answer_right": answer_right,
        "constraint_met": met,
        "closeness": 1.0 if answer_right else _closeness(reading.claims, right),
        "polite": reading.polite,
        "clean": reading.clean,
        "concise": round(concise, 4),
        "manner": round(manner, 4),
        "quality": round(CORRECT_WEIGHT * correct + MANNER_WEIGHT * manner, 4),
    }


def _is_right(task: dict, right: list[str], claim: list[str]) -> bool:
    return claim == right or (task["type"] == "code" and code.is_right(task, " ".join(claim)))


def _closeness(claims: list[list[str]], right: list[str]) -> float:
    """Share of positions that agree, of the longer of the two; code is compared piece by piece."""
    if not claims:
        return 0.0
    a, b = (re.findall(r"\w+|[^\w\s]", " ".join(words)) for words in (claims[0], right))
    return round(sum(x == y for x, y in zip(a, b)) / max(len(a), len(b), 1), 4)


def _constraints(task: dict, response: str) -> dict:
    from data_prep.synthetic import constraints

    return constraints.verdict(task.get("constraints"), response)


def _number(task: dict, response: str) -> dict:
    from data_prep.synthetic import numbers

    return numbers.verdict(task.get("answer"), response)


VERIFIERS = {"skill": _tiny, "code": _tiny, "constraints": _constraints, "number": _number}
