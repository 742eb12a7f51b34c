"""Three ways in which a judge errs by rule, each with an exact two-sided test and the size of what it does.

position    the label follows the place. Every comparison is asked in both orders, so the answers are the same. Sign
            test over the comparisons whose labels lean to one place. Effect: share of the labels for the first place
            minus share for the second, -1..1.
length      errors where the longer response is the worse one against errors where it is the better one; Fisher's exact
            test. Effect: the difference of the two error rates, -1..1; above 0, longer responses are preferred.
own_family  the same for responses of the judge's own family, or with its mark.

Position is always a controlled experiment, length and own family only on the probes, where they are crossed with the
answers. On real comparisons an error can have another cause that goes with length or with the family (harder pairs, a
family that is good at a kind of question, labels with the same bias), so a difference there is an observation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.synthetic.audit_sets import PROBES, Labelled
from data_prep.synthetic.audit_statistics import fisher, sign_test
from data_prep.synthetic.judges.pairwise import Verdict

DETECTED, NOT_DETECTED, TOO_FEW, NOT_TESTED = "detected", "not detected", "too few pairs", "not tested"
TOWARD = {
    "position": ("first", "second"),
    "length": ("longer", "shorter"),
    "own_family": ("own", "others"),
}
BIASES = tuple(TOWARD)
# Index of the response that has the trait.
_TRAITS: dict[str, Callable[[Labelled], int | None]] = {
    "length": lambda pair: pair.longer,
    "own_family": lambda pair: pair.own,
}


@dataclass(frozen=True)
class Test:
    """One test of one bias on one set. pairs: that could show it; least_p: what the strongest bias would give;
    counts: what was counted, by name. See the module for the effect."""

    bias: str
    on: str
    pairs: int
    effect: float
    p: float
    least_p: float
    counts: dict[str, int]

    @property
    def controlled(self) -> bool:
        return self.bias == "position" or self.on == PROBES

    def row(self, level: float, least_effect: float) -> dict:
        """The test with its verdict: detected where p < level and |effect| >= least_effect; too few pairs where even
        the strongest bias could not give such a p."""
        verdict = NOT_DETECTED
        if self.least_p >= level:
            verdict = TOO_FEW
        elif self.p < level and abs(self.effect) >= least_effect:
            verdict = DETECTED
        return {
            "bias": self.bias,
            "on": self.on,
            "controlled": self.controlled,
            "pairs": self.pairs,
            "effect": self.effect,
            "p": self.p,
            "verdict": verdict,
            "toward": TOWARD[self.bias][self.effect < 0] if verdict == DETECTED else None,
            "counts": self.counts,
        }


def tests(on: str, pairs: Sequence[Labelled], verdicts: Sequence[Verdict], in_orders: bool) -> list[Test]:
    """The tests that the comparisons of one set allow. in_orders: the judge saw both orders (only then is there a
    place to follow)."""
    found = [_position(on, verdicts)] if in_orders else []
    for bias, trait in _TRAITS.items():
        sides = [trait(pair) for pair in pairs]
        if any(side is not None for side in sides):
            found.append(_errors(bias, on, sides, pairs, verdicts))
    return found


def _position(on: str, verdicts: Sequence[Verdict]) -> Test:
    slots = [verdict.slots for verdict in verdicts if verdict.readable]
    first, second = sum(s > 0 for s in slots), sum(s < 0 for s in slots)
    effect = sum(slots) / (2 * len(slots)) if slots else 0.0
    counts = {"lean_first": first, "lean_second": second}
    return Test("position", on, len(slots), effect, sign_test(first, second), sign_test(len(slots), 0), counts)


def _errors(
    bias: str, on: str, sides: Sequence[int | None], pairs: Sequence[Labelled], verdicts: Sequence[Verdict]
) -> Test:
    """Errors of decided comparisons where the trait is on the worse response, and where it is on the better one."""
    errors, decided = {"worse": 0, "better": 0}, {"worse": 0, "better": 0}
    for side, pair, verdict in zip(sides, pairs, verdicts, strict=True):
        if side is not None and verdict.winner is not None:
            where = "better" if side == pair.right else "worse"
            decided[where] += 1
            errors[where] += verdict.winner != pair.right
    right = {where: decided[where] - errors[where] for where in errors}
    p = fisher(errors["worse"], right["worse"], errors["better"], right["better"])
    least = fisher(decided["worse"], 0, 0, decided["better"])
    counts = {f"{what}_{where}": n[where] for where in errors for what, n in (("errors", errors), ("decided", decided))}
    comparable = min(decided.values()) > 0  # else p and least are 1
    effect = errors["worse"] / decided["worse"] - errors["better"] / decided["better"] if comparable else 0.0
    return Test(bias, on, sum(decided.values()), effect, p, least, counts)
