"""How good is a judge: accuracy against labels, order consistency, and the biases that it can be caught at.

    audit(judge, sets, Settings(significance=0.01)) -> what outputs/audit.json holds (see `audit`)

The judge gets every labelled comparison as it would in a judge stage: a pairwise judge in both orders, one of points or
rewards each response alone, and the higher number wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.synthetic.audit_biases import BIASES, DETECTED, NOT_TESTED, TOO_FEW, tests
from data_prep.synthetic.audit_sets import PROBES, Labelled, LabelledSet
from data_prep.synthetic.audit_statistics import share
from data_prep.synthetic.judges import pairwise
from data_prep.synthetic.judges.asking import Judge, identity
from data_prep.synthetic.judges.pairwise import Comparison, Pairwise, Verdict
from data_prep.synthetic.judges.scored import Answer, Score
from recipes.errors import Problem, UserInputError

SCORED_OUTCOMES = ("decided", "tie", "unreadable", "failed")
OVERALL = "overall"


@dataclass(frozen=True)
class Settings:
    """significance: the most that an unbiased judge's chance to have any bias detected may be, over all tests of the
    audit together: each is made at significance / number of tests (Bonferroni); least_effect: smaller effects are not
    called detected."""

    significance: float = 0.01
    least_effect: float = 0.05

    def __post_init__(self):
        for name in ("significance", "least_effect"):
            if not 0 < getattr(self, name) < 1:
                raise UserInputError(Problem("", name, f"is {getattr(self, name)}", "give a number between 0 and 1"))


def audit(judge: Judge, sets: Sequence[LabelledSet], settings: Settings) -> dict:
    """Judge all sets and measure. Raises what Model.ask does, and UserInputError if there is nothing to judge.

    judge: its kind and who it is (asking.identity); sets: one entry each (see `_measured`); overall: all sets but the
    probes in one, None without any; tests: every test of a bias, each at `level`; biases: bias -> the verdict of its
    controlled tests, and the real sets on which it was observed (audit_biases.py).
    """
    if not any(labelled.pairs for labelled in sets):
        fix = "set `probes`, or name files of labelled comparisons in inputs.sets"
        raise UserInputError(Problem("D14", "inputs.sets", "there is nothing to judge", fix))
    in_orders = isinstance(judge, Pairwise)
    verdicts = _ask(judge, [pair for labelled in sets for pair in labelled.pairs])
    measured, found, start, real = [], [], 0, ([], [])
    for labelled in sets:
        mine = verdicts[start : (start := start + len(labelled.pairs))]
        measured.append(_about(labelled) | _measured(labelled.pairs, mine, in_orders))
        found += tests(labelled.name, labelled.pairs, mine, in_orders)
        if labelled.name != PROBES:
            real[0].extend(labelled.pairs)
            real[1].extend(mine)
    level = settings.significance / max(1, len(found))
    by_bias = sorted(found, key=lambda test: BIASES.index(test.bias))
    rows = [test.row(level, settings.least_effect) for test in by_bias]
    return {
        "judge": {"kind": judge.kind} | identity(judge),
        "sets": measured,
        "overall": {"name": OVERALL} | _measured(*real, in_orders) if real[0] else None,
        "significance": settings.significance,
        "level": level,
        "least_effect": settings.least_effect,
        "tests": rows,
        "biases": {bias: _summary([row for row in rows if row["bias"] == bias]) for bias in BIASES},
    }


def _ask(judge: Judge, pairs: Sequence[Labelled]) -> list[Verdict]:
    if isinstance(judge, Pairwise):
        return judge.compare([Comparison(pair.messages, pair.responses) for pair in pairs], "audit")
    scores = judge.score([Answer(pair.messages, text) for pair in pairs for text in pair.responses], "audit")
    return [_of_scores(first, second) for first, second in zip(scores[::2], scores[1::2], strict=True)]


def _of_scores(first: Score, second: Score) -> Verdict:
    """A comparison (outcome: one of SCORED_OUTCOMES) from the scores of the two responses."""
    said = (first.said, second.said)
    missing = {first.outcome, second.outcome} - {"scored"}
    if missing:
        return Verdict("failed" if "failed" in missing else "unreadable", None, (None, None), said)
    if first.value == second.value:
        return Verdict("tie", None, (None, None), said)
    return Verdict("decided", int(second.value > first.value), (None, None), said)


def _about(labelled: LabelledSet) -> dict:
    return {
        "name": labelled.name,
        "sha256": labelled.sha256,
        "schema": labelled.schema,
        "left_out": labelled.left_out,
        "not_drawn": labelled.not_drawn,
    }


def _measured(pairs: Sequence[Labelled], verdicts: Sequence[Verdict], in_orders: bool) -> dict:
    """pairs; outcomes; accuracy of the decided comparisons and of all (where a tie, an inconsistent, unreadable or
    failed one is not right), with Wilson's 95 % interval; for a judge that saw both orders also order_consistency and
    first_share (pairwise.summary), and labels: where the better response stood -> what the judge said."""
    decided = [(pair, verdict) for pair, verdict in zip(pairs, verdicts) if verdict.winner is not None]
    right = sum(verdict.winner == pair.right for pair, verdict in decided)
    found = {
        "pairs": len(pairs),
        "accuracy_of_decided": share(right, len(decided)),
        "accuracy_of_all": share(right, len(pairs)),
    }
    if not in_orders:
        outcomes = Counter(verdict.outcome for verdict in verdicts)
        return found | {"outcomes": {name: outcomes[name] for name in SCORED_OUTCOMES}}
    labels = {place: {"A": 0, "B": 0, "C": 0, "none": 0} for place in ("better_first", "better_second")}
    for pair, verdict in zip(pairs, verdicts):
        for order, label in enumerate(verdict.labels):  # order 0 shows response 0 first
            labels["better_first" if order == pair.right else "better_second"][label or "none"] += 1
    return found | pairwise.summary(verdicts) | {"labels": labels}


def _summary(rows: Sequence[dict]) -> dict:
    """detected: by a controlled test; too few pairs: every controlled test had too few."""
    controlled = [row for row in rows if row["controlled"]]
    verdicts = [row["verdict"] for row in controlled]
    if DETECTED in verdicts:
        verdict = DETECTED
    elif not verdicts:
        verdict = NOT_TESTED
    else:
        verdict = next((v for v in verdicts if v != TOO_FEW), TOO_FEW)
    deciding = (row for row in controlled if row["verdict"] == verdict)
    strongest = max(deciding, key=lambda row: abs(row["effect"]), default=None)
    return {
        "verdict": verdict,
        "toward": strongest and strongest["toward"],
        "effect": strongest and strongest["effect"],
        "observed_on": [row["on"] for row in rows if not row["controlled"] and row["verdict"] == DETECTED],
    }


def describe(result: dict) -> list[str]:
    """The result of `audit` as lines for people."""
    lines = []
    for entry in [*result["sets"], *([result["overall"]] if result["overall"] else [])]:
        of_all, of_decided = entry["accuracy_of_all"], entry["accuracy_of_decided"]
        accuracy = f"right {_percent(of_all)}, of the decided {_percent(of_decided)}"
        lines.append(f"{entry['name']}: {entry['pairs']} pairs, {accuracy}; {_counts(entry['outcomes'])}")
    for bias, found in result["biases"].items():
        toward = f" toward {found['toward']}, effect {found['effect']:+.3f}" if found["toward"] else ""
        lines.append(f"{bias}: {found['verdict']}{toward}")
    return lines


def _percent(found: dict | None) -> str:
    return f"{100 * found['share']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})" if found else "-"


def _counts(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in outcomes.items() if count)
