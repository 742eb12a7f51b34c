"""Genetic Instruct (arXiv 2407.21077; the report, 3.2.5): code instructions that evolve, with solutions.

Each colony begins with instructions drawn from the seeds. In a generation it bears children by mutation of one parent
or crossover of several; a coder answers each, a judge says whether instruction and solution are fit, and the fit ones
join the population that the next generation draws its parents from. Colonies know nothing of each other; they are
merged at the end, without doubles. As in the report, nothing is executed: fitness is what the judge says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from data_prep.keys import normal
from data_prep.synthetic.prompts.answers import verdict
from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.draft import Draft, alive, assistant, user
from data_prep.synthetic.prompts.inputs import Given

MUTATIONS = ("condition", "rarer", "deeper", "faulty", "cost", "elsewhere")  # keys in genetic_mutation.jinja
CROSSOVER = "crossover"


@dataclass
class Colony:
    """population: (id, instruction) of its seeds and of all fit children; seen: every instruction, unfit ones and all
    seeds too."""

    number: int
    rng: Random
    population: list[tuple[str, str]]
    seen: set[str]

    def children(self, generation: int, options: dict) -> list[Draft]:
        """The children of one generation, with operation and parents drawn, not yet written."""
        return [self._child(generation, place, options) for place in range(options["children"])]

    def _child(self, generation: int, place: int, options: dict) -> Draft:
        crossed = self.rng.random() < options["crossover_share"] and len(self.population) > 1
        count = min(options["parents"], len(self.population)) if crossed else 1
        operation = CROSSOVER if crossed else self.rng.choice(MUTATIONS)
        parents = self.rng.sample(self.population, count)
        place_overall = ((generation - 1) * options["colonies"] + self.number) * options["children"] + place
        lineage = {"colony": self.number, "generation": generation, "operation": operation}
        lineage["parents"] = [name for name, _ in parents]
        child = Draft(place_overall, name=f"c{self.number}-g{generation}-{place:04d}")
        child.details = {"lineage": lineage, "instructions": [instruction for _, instruction in parents]}
        return child


def make(desk: Desk, options: dict, given: Given) -> list[Draft]:
    """options: colonies, generations, children (of a colony in a generation), seeds_per_colony (0: all),
    crossover_share, parents (of a crossover), language.

    The rows are SFT conversations. Buckets beside those of the desk: duplicate (in its colony, or of another colony's),
    no_code (a solution without a code block), unfit (the judge says no).
    """
    colonies = [_colony(desk, number, options, given.code_seeds) for number in range(options["colonies"])]
    language, born = {"language": options["language"]}, []
    for generation in range(1, options["generations"] + 1):
        broods = [colony.children(generation, options) for colony in colonies]
        children = [child for brood in broods for child in brood]
        _write(desk, children, generation, language)
        for colony, brood in zip(colonies, broods):
            _unlike(colony, brood)
        _solve(desk, children, generation, language)
        _judge(desk, children, generation, language)
        for colony, brood in zip(colonies, broods):
            colony.population += [(identity(desk, child), child.messages[0]["content"]) for child in alive(brood)]
        born += children
    for child in born:
        del child.details["instructions"]
    return born


def identity(desk: Desk, child: Draft) -> str:
    """The id of the child's row."""
    return f"{desk.maker}-{child.name}"


def lineage(desk: Desk, born: Sequence[Draft]) -> list[dict]:
    """Of every child, also of those that came to nothing: {"id", "colony", "generation", "operation", "parents",
    "bucket"}. A parent is a seed or a child of an earlier generation of the same colony."""
    return [{"id": identity(desk, child), **child.details["lineage"], "bucket": child.bucket} for child in born]


def _colony(desk: Desk, number: int, options: dict, seeds: list[tuple[str, str]]) -> Colony:
    rng = desk.rng("colony", number)
    count = min(options["seeds_per_colony"] or len(seeds), len(seeds))
    return Colony(number, rng, rng.sample(seeds, count), {normal(instruction) for _, instruction in seeds})


def _stream(child: Draft) -> int:
    return child.details["lineage"]["colony"]


def _write(desk: Desk, children: list[Draft], generation: int, language: dict) -> None:
    """The children's instructions, as their user turns."""
    mutants = [child for child in children if child.details["lineage"]["operation"] != CROSSOVER]
    crossed = [child for child in children if child.details["lineage"]["operation"] == CROSSOVER]

    def mutation(child: Draft) -> dict:
        operation = child.details["lineage"]["operation"]
        return {"instruction": child.details["instructions"][0], "operation": operation, **language}

    def crossover(child: Draft) -> dict:
        return {"instructions": child.details["instructions"], **language}

    desk.write(f"generation {generation}, mutation", mutants, "genetic_mutation", mutation, stream=_stream)
    desk.write(f"generation {generation}, crossover", crossed, "genetic_crossover", crossover, stream=_stream)
    for child in alive(children):
        child.messages = [user(child.text)]


def _unlike(colony: Colony, brood: list[Draft]) -> None:
    for child in alive(brood):
        key = normal(child.text)
        child.bucket = "duplicate" if key in colony.seen else ""
        colony.seen.add(key)


def _solve(desk: Desk, children: list[Draft], generation: int, language: dict) -> None:
    """The coder's answers, as the assistant turns."""

    def values(child: Draft) -> dict:
        return {"instruction": child.messages[0]["content"], **language}

    desk.write(f"generation {generation}, solutions", children, "genetic_solution", values, str.strip, _stream)
    for child in alive(children):
        child.bucket = "" if child.text.count("```") >= 2 else "no_code"
        child.messages = [*child.messages, assistant(child.text)]


def _judge(desk: Desk, children: list[Draft], generation: int, language: dict) -> None:
    def values(child: Draft) -> dict:
        return {"instruction": child.messages[0]["content"], "solution": child.messages[1]["content"], **language}

    def readable(answer: str) -> str | None:
        return None if verdict(answer) is None else answer.strip()

    desk.write(f"generation {generation}, fitness", children, "genetic_judge", values, readable, _stream)
    for child in alive(children):
        child.details["judgement"] = child.text
        child.bucket = "" if verdict(child.text) else "unfit"
