"""Constraints on a response that a program can check: the 25 kinds of IFEval (Zhou et al. 2023, arXiv 2311.07911).

    kind = KINDS["length_constraints:number_words"]
    args = kind.draw(random.Random(0), "Tell me about lighthouses.")    # {"num_words": ..., "relation": ...}
    kind.describe(args, random.Random(1))                               # "Use at least 150 words."
    kind.met("Too short.", args)                                        # False

A constraint is {"id": "length_constraints:number_words", "args": {...}}; ids may have the "en:" of M-IFEval in front.
"""

from __future__ import annotations

from data_prep.rules import BadRow
from data_prep.synthetic.constraints import ends, formats, keywords, lengths, letters
from data_prep.synthetic.constraints.exclusions import EXCLUDED
from data_prep.synthetic.constraints.kind import Kind

KINDS: dict[str, Kind] = {
    kind.id: kind for module in (keywords, letters, lengths, formats, ends) for kind in module.KINDS
}


def find(constraint_id: object, field: str = "id") -> Kind:
    """The kind of an id, with or without "en:" in front. Raises BadRow naming `field`."""
    kind = KINDS.get(constraint_id.removeprefix("en:")) if isinstance(constraint_id, str) else None
    if kind is None:
        raise BadRow("D2", field, f"is {constraint_id!r}, which is no kind of constraint", f"known: {', '.join(KINDS)}")
    return kind


def compatible(first: str, second: str) -> bool:
    """Whether two ids of KINDS can be asked for together: not the same kind, and not at odds with each other."""
    return first != second and frozenset((first, second)) not in EXCLUDED


def check(constraints: object, field: str = "task.constraints") -> list[tuple[Kind, dict]]:
    """(kind, arguments) of each constraint. Raises BadRow naming the field that is missing, wrong or unknown."""
    if not isinstance(constraints, list) or not constraints:
        raise BadRow("D2", field, "is not a list with at least one constraint", 'give [{"id": ..., "args": {...}}]')
    checked = []
    for i, constraint in enumerate(constraints):
        if not isinstance(constraint, dict):
            raise BadRow("D2", f"{field}[{i}]", "is not an object", 'give {"id": ..., "args": {...}}')
        kind = find(constraint.get("id"), f"{field}[{i}].id")
        checked.append((kind, kind.check(constraint.get("args"), f"{field}[{i}].args")))
    return checked


def verdict(constraints: list[dict], response: str) -> dict:
    """{"correct": all are met, "quality": share that is met, "failed": ids that are not}. Raises BadRow."""
    checked = check(constraints)
    failed = [kind.id for kind, args in checked if not kind.holds(response, args)]
    return {"correct": not failed, "quality": round(1 - len(failed) / len(checked), 4), "failed": failed}


def loosely_met(kind: Kind, response: str, args: dict) -> bool:
    """IFEval's loose verdict: met as it is, or without its first line, its last line or both, or without asterisks."""
    args, lines = kind.check(args), response.split("\n")
    cuts = [response, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(kind.holds(text, args) for text in [*cuts, *(cut.replace("*", "") for cut in cuts)])
