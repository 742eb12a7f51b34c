"""Candidate rows in, judged rows out: what a judge found is put into the row, beside what other judges left there.

    points, reward: each response gets "points" (with "points_samples") or "reward" (with "attributes" where the model
        has some); a response without a judgement gets none, and is counted
    pairwise: the row gets "comparisons": [{"a": i, "b": j, "winner": i | j | None, "outcome", "verdicts": [
        {"first": i, "label", "said"}, {"first": j, ...}]}], a < b
    all: row["judges"][kind] says who judged
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_prep.rules import BadRow
from data_prep.synthetic.judges import pairwise, scored
from data_prep.synthetic.judges.asking import Judge, identity
from data_prep.synthetic.judges.pairwise import Comparison, Pairwise, Verdict
from data_prep.synthetic.judges.points import Points
from data_prep.synthetic.judges.reward import Reward
from data_prep.synthetic.judges.scored import Answer
from data_prep.verify import VERIFIERS
from recipes.errors import Problem, StageFailed, UserInputError


def check(rows: Sequence[dict], kind: str) -> None:
    """Raises UserInputError (D2, D3) for a row that a judge of this kind cannot take: it has judged it already, the row
    does not end in a user turn, or the truth has no verifier for its task."""
    for number, row in enumerate(rows, 1):
        try:
            _check(row, kind)
        except BadRow as bad:
            where = f"inputs.responses: row {number} ({row.get('id', 'without id')})"
            raise UserInputError(Problem(bad.rule, where, f"{bad.field} {bad.message}", bad.fix)) from None


def _check(row: dict, kind: str) -> None:
    last = row["messages"][-1]["role"] if row["messages"] else "nobody"
    if last != "user":
        raise BadRow("D3", "messages", f"end in a turn of {last}, not of the user")
    if kind in row.get("judges", {}) or any(kind in response for response in row["responses"]):
        raise BadRow("D2", "judges", f"have {kind} already", "judge the file that came before that judge")
    task = row.get("task")
    if kind == "truth" and task and (not isinstance(task, dict) or task.get("type") not in VERIFIERS):
        raise BadRow("D2", "task", f"has no type out of {', '.join(VERIFIERS)}", "leave `task` out of this row")


def judge(rows: list[dict], by: Judge, cfg: dict) -> dict:
    """Put what the judge of the settings `cfg` finds into the rows, in place; returns the facts."""
    if isinstance(by, Pairwise):
        _check_pairs(cfg)
        return compare(rows, by, cfg["compare"], cfg["pairs_per_prompt"], cfg["seed"])
    return score(rows, by)


def _check_pairs(cfg: dict) -> None:
    if cfg["compare"] not in ("all", "first"):
        raise UserInputError(Problem("", "compare", f"is {cfg['compare']!r}", "use all or first"))
    if cfg["pairs_per_prompt"] < 0:
        raise UserInputError(Problem("", "pairs_per_prompt", f"is {cfg['pairs_per_prompt']}", "use 0 for all, or more"))


def compare(rows: list[dict], judge: Pairwise, which: str, limit: int, seed: int) -> dict:
    """Put "comparisons" into every row, in place. which, limit: see pairwise.pick; drawn by seed and the row's id.

    Returns the facts: comparisons by outcome, rows without a comparison, pairs of equal texts, and pairwise.summary.
    Raises StageFailed if not one verdict can be read.
    """
    chosen, equal = [], 0
    for number, row in enumerate(rows):
        texts = [response["text"] for response in row["responses"]]
        rng = random.Random(f"{seed} {row.get('id', number)}")
        pairs, same = pairwise.pick(texts, which, limit, rng)
        chosen.append(pairs)
        equal += same
    asked = [
        Comparison(row["messages"], (row["responses"][a]["text"], row["responses"][b]["text"]))
        for row, pairs in zip(rows, chosen)
        for a, b in pairs
    ]
    verdicts = judge.compare(asked)
    if asked and not any(verdict.readable for verdict in verdicts):
        raise _nothing(judge, [said for verdict in verdicts for said in verdict.said])
    found, who = iter(verdicts), identity(judge)
    for row, pairs in zip(rows, chosen):
        row["comparisons"] = [_comparison(pair, next(found)) for pair in pairs]
        row.setdefault("judges", {})["pairwise"] = who
    counts = {"identical": equal, "prompts_without_comparison": sum(not pairs for pairs in chosen)}
    return pairwise.summary(verdicts) | counts


def _comparison(pair: tuple[int, int], verdict: Verdict) -> dict:
    a, b = pair
    return {
        "a": a,
        "b": b,
        "winner": None if verdict.winner is None else pair[verdict.winner],
        "outcome": verdict.outcome,
        "verdicts": [
            {"first": first, "label": label, "said": said}
            for first, label, said in zip(pair, verdict.labels, verdict.said, strict=True)
        ],
    }


def score(rows: list[dict], judge: Points | Reward) -> dict:
    """Put "points" or "reward" into the responses, in place.

    Returns the facts: responses by outcome, mean of the values. Raises StageFailed if not one reply can be read.
    """
    answers = [Answer(row["messages"], response["text"]) for row in rows for response in row["responses"]]
    scores = judge.score(answers)
    values = [s.value for s in scores if s.value is not None]
    if not values:
        raise _nothing(judge, [s.said for s in scores])
    found, who, kind = iter(scores), identity(judge), judge.kind
    for row in rows:
        for response in row["responses"]:
            result = next(found)
            response.update(result.found)
            if result.value is not None:
                response[kind] = result.value
        row.setdefault("judges", {})[kind] = who
    complete = sum(all(kind in response for response in row["responses"]) for row in rows if row["responses"])
    empty = sum(not row["responses"] for row in rows)
    return {
        "responses": scored.count(scores),
        "mean": sum(values) / len(values),
        "prompts": {"complete": complete, "incomplete": len(rows) - complete - empty, "without_response": empty},
    }


def _nothing(judge: Judge, said: list[str]) -> StageFailed:
    if not said:
        return StageFailed("there is no response to judge")
    return StageFailed(f"not one reply of {judge.model.name} holds a judgement; the first: {said[0][:300]!r}")
