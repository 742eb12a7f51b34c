"""The list of preflight rules, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from recipes.errors import Problem
from recipes.pipeline.checks.subject import Subject

Finding = tuple[str, str, str]  # (config key, what is wrong, what to do about it)
Check = Callable[[Subject], Iterator[Finding]]

RULES: dict[str, Rule] = {}


@dataclass
class Rule:
    """One rule; use it as a decorator on the functions that look for violations in one stage.

    explanation: what happens without the rule, for `align check --explain`
    severity:    "fail" stops a run, "warn" is only shown
    """

    id: str
    title: str
    explanation: str
    fix: str
    severity: str = "fail"
    functions: list[Check] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.id in RULES:
            raise ValueError(f"two rules have the id {self.id}")
        RULES[self.id] = self

    def __call__(self, function: Check) -> Check:
        self.functions.append(function)
        return function

    def problems(self, subject: Subject) -> list[Problem]:
        """What this rule finds in one stage."""
        found = [finding for function in self.functions for finding in function(subject)]
        return [Problem(self.id, subject.where(key), message, fix) for key, message, fix in found]
