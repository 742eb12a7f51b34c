"""What a kind of constraint is made of, and how its arguments are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from data_prep.rules import BadRow

Argument = Callable[[object], str | None]
"""Takes a value and gives what it has to be, if it is not that."""


def whole(low: int) -> Argument:
    """A whole number, at least `low`."""
    return lambda value: None if type(value) is int and value >= low else f"a whole number, at least {low}"


def one_of(*options: str) -> Argument:
    return lambda value: None if value in options else f"one of {', '.join(map(repr, options))}"


def text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "a text that is not blank"


def word(value: object) -> str | None:
    return None if isinstance(value, str) and len(value.split()) == 1 else "one word"


def character(value: object) -> str | None:
    return None if isinstance(value, str) and len(value.strip()) == 1 else "one character"


def texts(value: object) -> str | None:
    right = isinstance(value, list) and value and not any(map(text, value))
    return None if right else "a list of texts, none of them blank, with at least one"


AT_LEAST, LESS_THAN = "at least", "less than"
relation = one_of(AT_LEAST, LESS_THAN)


def compare(number: int, how: str, threshold: int) -> bool:
    """number >= threshold for "at least", number < threshold for "less than"."""
    return number >= threshold if how == AT_LEAST else number < threshold


@dataclass(frozen=True)
class Kind:
    """One kind of constraint that a program can check.

    id: as in IFEval (Zhou et al. 2023, arXiv 2311.07911, table 1), "keywords:existence";
    arguments: what it needs, by name;
    test: (response, **arguments) -> whether the response, which is not blank, meets it;
    wordings: (**arguments) -> an English sentence that asks for it, complete in itself, so that it can stand behind
        a prompt, in a list, or in a request to revise an answer;
    draw: (rng, prompt) -> random arguments that suit an answer to the prompt, which keywords are taken from;
    of_one_prompt: it holds for the answer to one prompt and makes no sense for all turns of a conversation;
    contradiction: (**arguments) -> (name, message) where no response can meet arguments that are right one by one.
    """

    id: str
    arguments: dict[str, Argument]
    test: Callable[..., bool]
    wordings: tuple[Callable[..., str], ...]
    draw: Callable[[Random, str], dict] = lambda rng, prompt: {}
    of_one_prompt: bool = False
    contradiction: Callable[..., tuple[str, str] | None] = lambda **args: None

    def check(self, args: object, field: str = "args") -> dict:
        """The arguments, without those of other kinds that are null, as some copies of IFEval have them.

        Raises BadRow naming `field`.<argument> if one is missing, of the wrong type or range, or not of this kind.
        """
        if not isinstance(args, dict):
            raise BadRow("D2", field, "is not an object", f"give the arguments of {self.id}: {self._needs()}")
        for name, argument in self.arguments.items():
            wrong = argument(args.get(name))
            if wrong:
                found = f"is {args[name]!r}" if name in args else "is missing"
                raise BadRow("D2", f"{field}.{name}", f"{found}; {self.id} needs {wrong}", f"give {wrong}")
        if len(args) > len(self.arguments):
            self._refuse_others(args, field)
            args = {name: args[name] for name in self.arguments}
        impossible = self.contradiction(**args)
        if impossible:
            raise BadRow("D2", f"{field}.{impossible[0]}", impossible[1], f"arguments: {self._needs()}")
        return args

    def _refuse_others(self, args: dict, field: str) -> None:
        for name, value in args.items():
            if name not in self.arguments and value is not None:
                raise BadRow("D2", f"{field}.{name}", f"is no argument of {self.id}", f"arguments: {self._needs()}")

    def met(self, response: str, args: dict) -> bool:
        """Whether the response meets the constraint; a blank response meets none. Raises BadRow on bad arguments."""
        return self.holds(response, self.check(args))

    def holds(self, response: str, args: dict) -> bool:
        """`met` for arguments that `check` returned."""
        return bool(response.strip()) and self.test(response, **args)

    def describe(self, args: dict, rng: Random | None = None) -> str:
        """A sentence that asks for it, in one of several wordings: the first without an rng. Raises BadRow."""
        args = self.check(args)
        return (rng.choice(self.wordings) if rng else self.wordings[0])(**args)

    def _needs(self) -> str:
        return ", ".join(self.arguments) or "none"


def count(number: int, what: str) -> str:
    """count(1, "word") == "1 word", count(2, "word") == "2 words"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def amount(how: str, number: int, what: str) -> str:
    """amount("less than", 3, "word") == "fewer than 3 words"."""
    return f"{'at least' if how == AT_LEAST else 'fewer than'} {count(number, what)}"


def quoted(items: list[str]) -> str:
    """quoted(["a", "b", "c"]) == '"a", "b" and "c"'."""
    *head, last = [f'"{item}"' for item in items]
    return f"{', '.join(head)} and {last}" if head else last
