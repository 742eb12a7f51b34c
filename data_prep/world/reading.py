"""A prompt of the tiny world, read back into its task: what makes prompts that a model wrote verifiable."""

from __future__ import annotations

import re

from data_prep.world import code, skills
from data_prep.world.build import OPENERS

_OPENER = re.compile(rf"(?:{'|'.join(OPENERS)}) ")
_CODE = re.compile(r"write code for x : (.+)")


def read(prompt: str) -> dict | None:
    """The task that is asked for exactly like this, None if the world knows none."""
    opener = _OPENER.match(prompt)
    if not opener:
        return None
    text = prompt[opener.end() :]
    for task in _candidates(text):
        module = code if task["type"] == "code" else skills
        if module.ask(task) == text:
            return task
    return None


def _candidates(text: str):
    if found := _CODE.fullmatch(text):
        yield from _code(found[1])
        return
    constraint = next((name for name, words in skills.CONSTRAINTS.items() if text.endswith(f" {words}")), None)
    asked = text.removesuffix(f" {skills.CONSTRAINTS[constraint]}") if constraint else text
    for name, skill in skills.SKILLS.items():
        found = re.fullmatch(skill.ask.replace("{}", r"([a-z0-9](?: [a-z0-9])*)"), asked)
        if found:
            items = " ".join(found.groups()).split()
            if _solvable(skill, items):
                family = "constraints" if constraint else "arithmetic" if name in skills.ARITHMETIC else "lists"
                yield {"type": "skill", "family": family, "skill": name, "items": items, "constraint": constraint}


def _solvable(skill: skills.Skill, items: list[str]) -> bool:
    """Two items or more and a procedure that knows them: no letters are added."""
    try:
        return len(items) > 1 and len(skill.solve(items)) > 0
    except ValueError:
        return False


def _code(steps: str):
    parts = [step.split() for step in steps.split(" , then ")]
    *before, last = parts
    if all(_is_step(part, code.STEPS) for part in before) and _is_step(last, code.STEPS | code.FINAL_STEPS):
        yield {"type": "code", "family": "code", "steps": [[name, *map(int, k)] for name, *k in parts]}


def _is_step(part: list[str], known: dict) -> bool:
    """[name], or [name, number] where a step takes one. A step that gives a number can only be the last one."""
    if not part or part[0] not in known:
        return False
    counts = [str(number) for number in range(1, code.LARGEST_COUNT + 1)]
    return part[1:] == [] if part[0] not in ("first", "last") else len(part) == 2 and part[1] in counts
