"""What is wrong with the settings of a production, found before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.synthetic.constraints import KINDS
from data_prep.synthetic.prompts.production import MAKERS, ONE_TURN, active
from recipes.errors import Problem, UserInputError
from recipes.pipeline.merge import did_you_mean

# The least of a number whose maker is on, where it is not 1.
LEAST = {"macro": 0, "sub": 0, "revisions": 0, "seeds_per_colony": 0, "parents": 2}
SEEDS = "seeds"


def check(make: dict, inputs: dict, openings: list[str]) -> None:
    """Raises UserInputError with everything that is wrong."""
    problems = [*_openings(openings), *_values(make), *_words(make)]
    if not problems:
        problems = list(_needs(make, inputs, openings))
    if problems:
        raise UserInputError(problems)


def _problem(key: str, message: str, fix: str) -> Problem:
    return Problem("", key, message, fix)


def _openings(openings: list[str]) -> Iterator[Problem]:
    known = (SEEDS, *ONE_TURN)
    for name in openings:
        if name not in known:
            near = did_you_mean(str(name), known)
            fix = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            yield _problem("openings", f"names {name!r}, which makes no first turns", fix)


def _values(make: dict) -> Iterator[Problem]:
    """Numbers, shares and lists in their range; only of makers that are on, and of topics."""
    for maker, options in make.items():
        amount = MAKERS[maker].amount if maker in MAKERS else None
        for name, value in options.items():
            key, on = f"make.{maker}.{name}", amount is None or options[amount]
            if isinstance(value, bool) or value is None:
                continue
            if isinstance(value, int) and (name == amount or on):
                low = 0 if name == amount else LEAST.get(name, 1)
                if value < low:
                    yield _problem(key, f"is {value}", f"give a whole number from {low} on")
            if name.endswith("_share") and not 0 <= value <= 1:
                yield _problem(key, f"is {value}", "give a share from 0 to 1")
            if on and isinstance(value, list) and name != "without" and not (value and all(map(_text, value))):
                yield _problem(key, f"is {value!r}", "give a list of texts, with at least one")


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _words(make: dict) -> Iterator[Problem]:
    options = make["instruction_following"]
    if options["turns_share"] + options["revise_share"] > 1:
        message = f"are {options['turns_share']} and {options['revise_share']}, more than 1 together"
        yield _problem("make.instruction_following.turns_share and revise_share", message, "lower one of them")
    if options["fewest"] > options["most"]:
        message = f"is {options['fewest']}, above `most`, {options['most']}"
        yield _problem("make.instruction_following.fewest", message, "lower it or raise `most`")
    for name in options["without"]:
        if name not in KINDS:
            near = did_you_mean(str(name), KINDS) or list(KINDS)
            message = f"names {name!r}, which is no kind of constraint"
            yield _problem("make.instruction_following.without", message, f"known: {', '.join(near)}")
    for name in make["coding"]["levels"]:
        if name not in ("beginner", "intermediate", "advanced"):
            message = f"names {name!r}, for which configs/prompt/coding_problem.jinja has no words"
            yield _problem("make.coding.levels", message, "use beginner, intermediate, advanced")


def _needs(make: dict, inputs: dict, openings: list[str]) -> Iterator[Problem]:
    """Does each maker that is on get what it works on?"""
    on = active(make)
    if not on:
        first = [f"make.{name}.{maker.amount}" for name, maker in list(MAKERS.items())[:3]]
        yield _problem("make", "every maker is off, there is nothing to do", f"set one of {', '.join(first)}, ...")
    for name in on:
        need, key = MAKERS[name].needs, f"make.{name}.{MAKERS[name].amount}"
        if need == "topics" and not (make["topics"]["macro"] or inputs["topics"]):
            yield _problem(key, "needs topics", "set make.topics.macro, or inputs.topics to a file of {'text'} rows")
        elif need == "documents" and not inputs["documents"]:
            yield _problem(key, "needs documents", "set inputs.documents to a file of {'text'} rows")
        elif need == "keywords" and not (make[name]["macro"] or inputs[f"{name}_keywords"]):
            fix = f"set make.{name}.macro, or inputs.{name}_keywords to a file of {{'text'}} rows"
            yield _problem(key, "needs keywords", fix)
        elif need == "code_seeds" and not (inputs["code_seeds"] or "coding" in on):
            yield _problem(key, "needs seeds", "set inputs.code_seeds to a file of code instructions, or make.coding")
        elif need == "openings" and not _has_openings(on, inputs, openings):
            fix = f"set inputs.seeds, or switch on one of the makers in `openings` ({', '.join(openings) or 'none'})"
            yield _problem(key, "needs first turns", fix)


def _has_openings(on: list[str], inputs: dict, openings: list[str]) -> bool:
    return bool(SEEDS in openings and inputs["seeds"]) or any(name in openings for name in on if name in ONE_TURN)
