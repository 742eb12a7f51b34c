"""Which two responses of a prompt make its pair: the judge that decides, the chosen one, the rejected one.

Judges are asked in the order of `Selection.by`, the report's by default (ground truth, LLM in both orders, reward
model; 2406.11704 section 3.2.3, grade B): the first that can tell two responses of a prompt apart decides. Every prompt
ends in one bucket: kept, or the last judge's reason why it gives no pair.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from data_prep.rules import BadRow
from data_prep.sources import finite
from data_prep.template import Template
from data_prep.verify import check as verifiable
from data_prep.verify import verify
from recipes.errors import Problem, UserInputError

KEPT = "kept"


@dataclass(frozen=True)
class Selection:
    """by: judges in the order in which they are asked; rejected: "worst" | "random" of the responses below the chosen;
    min_margin: in units of the deciding judge; chosen_quantile: the chosen response's value is at least this quantile
    of what its judge gave to all responses; chosen_right: where a prompt has a task, the chosen response must be right;
    scales: "refuse" | "mean_gap" where several judges decide pairs; validation_rows: kept out of training."""

    by: tuple[str, ...] = ("reward",)
    rejected: str = "worst"
    min_margin: float = 0.0
    chosen_quantile: float = 0.0
    chosen_right: bool = False
    scales: str = "refuse"
    validation_rows: int = 0
    seed: int = 0

    def __post_init__(self):
        by = (self.by,) if isinstance(self.by, str) else tuple(self.by)
        object.__setattr__(self, "by", by)
        if not by or len(set(by)) < len(by) or not set(by) <= set(JUDGES):
            raise _option("by", list(by), f"one or more of {', '.join(JUDGES)}, each once")
        if self.rejected not in ("worst", "random"):
            raise _option("rejected", self.rejected, "worst or random")
        if self.scales not in ("refuse", "mean_gap"):
            raise _option("scales", self.scales, "refuse or mean_gap")
        if self.min_margin < 0 or self.validation_rows < 0:
            raise _option("min_margin, validation_rows", (self.min_margin, self.validation_rows), "numbers from 0")
        if not 0 <= self.chosen_quantile < 1:
            raise _option("chosen_quantile", self.chosen_quantile, "a number from 0, below 1")


def _option(key: str, value: object, wanted: str) -> UserInputError:
    return UserInputError(Problem("", f"pairs.{key}", f"is {value!r}", f"use {wanted}"))


@dataclass(frozen=True, slots=True)
class Values:
    """What one judge says about the responses of a prompt. of: the number of each, None where it gave none; right:
    which are right, None where the judge does not say; beats: has it preferred i to j, None: where the number is
    higher."""

    of: list[float | None]
    right: list[bool] | None = None
    beats: Callable[[int, int], bool] | None = None


def _truth(row: dict) -> Values | None:
    """The verifier's quality (0..1); only rows with a task have one."""
    if not row.get("task"):
        return None
    verdicts = [r.get("verified") or verify(row["task"], r["text"]) for r in row["responses"]]
    return Values([float(v["quality"]) for v in verdicts], [bool(v["correct"]) for v in verdicts])


def _pairwise(row: dict) -> Values | None:
    """The share of its consistent comparisons that a response has won; None for one that was in none."""
    decided = [c for c in row.get("comparisons") or () if c["winner"] is not None]
    if not decided:
        return None
    won = {(c["winner"], c["b"] if c["winner"] == c["a"] else c["a"]) for c in decided}
    wins, seen = [0] * len(row["responses"]), [0] * len(row["responses"])
    for better, worse in won:
        wins[better] += 1
        seen[better] += 1
        seen[worse] += 1
    return Values([w / n if n else None for w, n in zip(wins, seen)], beats=lambda i, j: (i, j) in won)


def _number(key: str) -> Callable[[dict], Values | None]:
    def values(row: dict) -> Values | None:
        found = [r.get(key) for r in row["responses"]]
        if all(value is None for value in found):
            return None
        return Values([None if v is None else finite(v, f"responses[{i}].{key}", "D9") for i, v in enumerate(found)])

    return values


JUDGES = {"truth": _truth, "pairwise": _pairwise, "points": _number("points"), "reward": _number("reward")}


@dataclass(frozen=True, slots=True)
class Choice:
    """The pair of a prompt: indices into its responses, and what the deciding judge gave them."""

    judge: str
    chosen: int
    rejected: int
    chosen_value: float
    rejected_value: float


def check(row: dict, selection: Selection, template: Template) -> None:
    """BadRow unless the row can be judged: turns (D2-D5), responses with text and `finished` (D2), and where the reward
    model is the only judge a reward in every response (D9)."""
    template.check(row.get("messages"), last="user")
    if not isinstance(row.get("responses"), list):
        raise BadRow("D2", "responses", "is missing")
    for i, response in enumerate(row["responses"]):
        if not isinstance(response, dict) or not isinstance(response.get("text"), str) or "finished" not in response:
            raise BadRow("D2", f"responses[{i}]", "is not an object with text and finished")
        if selection.by == ("reward",):
            fix = "score the responses first (stage kind score)"
            if response.get("reward") is None:
                raise BadRow("D9", f"responses[{i}].reward", "is missing", fix)
            finite(response["reward"], f"responses[{i}].reward", "D9")
    if selection.by == ("truth",) and not row.get("task"):
        raise BadRow("D2", "task", "is missing", "use pairs.by=[reward], or prompts with a verifiable task")
    if row.get("task") and ("truth" in selection.by or selection.chosen_right):
        verifiable(row["task"])


def choose(
    row: dict, key: str, selection: Selection, template: Template, least: dict[str, float]
) -> tuple[str, Choice | None]:
    """(bucket, pair or None) of one prompt. key: of its prompt; least: judge -> the chosen response's least value."""
    usable = [i for i, r in enumerate(row["responses"]) if _usable(r["text"], template)]
    if len(usable) < 2:
        return "too_few_responses", None
    right = _truth(row).right if selection.chosen_right and row.get("task") else None
    bucket = "not_judged"
    for judge in selection.by:
        values = JUDGES[judge](row)
        if values is None:
            continue
        rated = [i for i in usable if values.of[i] is not None]
        bucket, chosen, rejected = _pick(row, rated, values, right, selection, least.get(judge), key)
        if bucket == KEPT:
            return KEPT, Choice(judge, chosen, rejected, values.of[chosen], values.of[rejected])
    return bucket, None


def _usable(text: str, template: Template) -> bool:
    return bool(text.strip()) and not any(token in text for token in template.control_tokens)


def _pick(row, rated, values: Values, right, selection, least, key) -> tuple[str, int, int]:
    """(bucket, chosen, rejected) by one judge."""
    responses, rng = row["responses"], random.Random(f"{selection.seed}:{key}")
    # Equal values are common with verifiers. In the order of the file the first model would win all of them.
    drawn = rng.sample(rated, len(rated))
    order = sorted(drawn, key=lambda i: -values.of[i])
    winners = [i for i in order if responses[i]["finished"] and (values.right is None or values.right[i])]
    if not winners:
        return ("unfinished" if values.right is None else "none_right"), -1, -1
    allowed = [i for i in winners if (right is None or right[i]) and (least is None or values.of[i] >= least)]
    if not allowed:
        return ("chosen_wrong" if right and not any(right[i] for i in winners) else "chosen_too_low"), -1, -1
    bucket = "all_equal" if values.right is None else "none_wrong"
    for chosen in allowed:
        below = [
            i
            for i in order
            if values.of[i] < values.of[chosen]
            and responses[i]["text"] != responses[chosen]["text"]
            and not (values.right and values.right[i])
            and (values.beats is None or values.beats(chosen, i))
        ]
        far = [i for i in below if values.of[chosen] - values.of[i] >= selection.min_margin]
        if far:
            return KEPT, chosen, far[-1] if selection.rejected == "worst" else rng.choice(far)
        bucket = "small_margin" if below else bucket
    return bucket, -1, -1
