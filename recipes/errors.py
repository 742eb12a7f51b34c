"""What can go wrong, and which exit code it maps to.

Exit codes of every command: 0 done, 1 a stage failed, 2 the user's input is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_DONE, EXIT_FAILED, EXIT_INPUT = 0, 1, 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user gave us.

    rule:    short id of the check that found it ("D6"), or "" where there is none
    where:   file:line, config key or stage the user has to look at
    message: what is wrong
    fix:     what to do about it
    """

    rule: str
    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        head = f"[{self.rule}] " if self.rule else ""
        return f"{head}{self.where}: {self.message}\n    fix: {self.fix}"


class UserInputError(Exception):
    """The input is wrong: nothing was started and nothing was half-written. Exit code 2."""

    def __init__(self, problems: Problem | list[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self):
        """From a worker process: not with the text, of which each letter would pass for a problem."""
        return type(self), (self.problems,)


class StageFailed(Exception):
    """A stage started and did not reach its artifact. Exit code 1."""


class Stopped(BaseException):
    """The stage was asked to leave, or its time was up. What it saved is kept; started again it goes on from there.

    Not an Exception: no library between the signal and the stage may take it for an error that it can handle.
    """
