"""Preference pairs from scored responses: at most one pair a prompt, the best response against a worse one.

    {"id", "prompt": messages, "chosen", "rejected", "chosen_reward", "rejected_reward", "reward_model", "source",
     "human"}

Every prompt ends in one bucket: kept, or the first reason why it gives no pair.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.records import content_id
from data_prep.rules import BadRow
from data_prep.template import Template
from data_prep.verify import verify
from recipes.errors import Problem, UserInputError

# RPO compares logits: t = gt_reward_scale * (chosen reward - rejected reward) is the target of the policy's own gap.
# A mean target of 2 asks for about 0.88 : 0.12 between the responses of an average pair.
MEAN_TARGET = 2.0


@dataclass(frozen=True)
class Selection:
    """by: "reward" (the reward model's) | "truth" (the verifier's quality; chosen right, rejected wrong);
    rejected: "worst" | "random" of the responses below the best; min_margin: in units of the reward, over 0 at least;
    validation_rows: kept out of training, chosen by prompt."""

    by: str = "reward"
    rejected: str = "worst"
    min_margin: float = 0.0
    validation_rows: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.by not in ("reward", "truth"):
            raise _option("by", self.by, "reward or truth")
        if self.rejected not in ("worst", "random"):
            raise _option("rejected", self.rejected, "worst or random")
        if self.min_margin < 0 or self.validation_rows < 0:
            raise _option(
                "min_margin, validation_rows", (self.min_margin, self.validation_rows), "numbers of at least 0"
            )


def _option(key: str, value: object, wanted: str) -> UserInputError:
    return UserInputError(Problem("", f"pairs.{key}", f"is {value!r}", f"use {wanted}"))


@dataclass(frozen=True)
class Built:
    train: list[dict]
    validation: list[dict]
    facts: dict


def build(scored: Path, selection: Selection, template: Template) -> Built:
    """Pairs from a scored.jsonl. Raises UserInputError naming file:line on a bad row (D2-D5, D9) or a repeated prompt,
    and when fewer pairs are left than validation needs."""
    pairs, counts, seen = [], Counter(), {}
    for line, row in read_rows(scored):
        try:
            _check(row, selection, template)
        except BadRow as bad:
            raise refuse(scored, line, f"{bad.field} {bad.message}", bad.rule, bad.fix) from None
        key = content_id(row["messages"])
        if key in seen:
            raise refuse(
                scored,
                line,
                f"has the prompt of line {seen[key]}",
                "D2",
                "give every prompt once, with all its responses",
            )
        seen[key] = line
        bucket, pair = _pair(row, key, selection, template)
        counts[bucket] += 1
        if pair:
            pairs.append(pair)
    return _split(scored, pairs, counts, selection)


def _check(row: dict, selection: Selection, template: Template) -> None:
    template.check(row.get("messages"), last="user")
    if not isinstance(row.get("responses"), list):
        raise BadRow("D2", "responses", "is missing")
    for i, response in enumerate(row["responses"]):
        if not isinstance(response, dict) or not isinstance(response.get("text"), str) or "finished" not in response:
            raise BadRow("D2", f"responses[{i}]", "is not an object with text and finished")
        reward = response.get("reward")
        if selection.by == "reward" and (
            isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward)
        ):
            raise BadRow(
                "D9", f"responses[{i}].reward", f"is {reward!r}", "score the responses first (stage kind score)"
            )
    if selection.by == "truth" and not row.get("task"):
        raise BadRow("D2", "task", "is missing", "use pairs.by=reward, or prompts with a verifiable task")


def _pair(row: dict, key: str, selection: Selection, template: Template) -> tuple[str, dict | None]:
    """(bucket, pair or None) of one prompt."""
    usable = [
        r for r in row["responses"] if r["text"].strip() and not any(t in r["text"] for t in template.control_tokens)
    ]
    if len(usable) < 2:
        return "too_few_responses", None
    values = [_value(row, r, selection) for r in usable]
    order = sorted(range(len(usable)), key=lambda i: (-values[i][1], i))  # ties by position, so that reruns agree
    chosen = next((i for i in order if usable[i]["finished"] and values[i][0]), None)
    if chosen is None:
        return ("none_right" if selection.by == "truth" else "unfinished"), None
    below = [
        i
        for i in order
        if usable[i]["text"] != usable[chosen]["text"]
        and values[i][1] < values[chosen][1]
        and not (selection.by == "truth" and values[i][0])
    ]
    if not below:
        return ("none_wrong" if selection.by == "truth" else "all_equal"), None
    far = [i for i in below if values[chosen][1] - values[i][1] >= selection.min_margin]
    if not far:
        return "small_margin", None
    rejected = far[-1] if selection.rejected == "worst" else random.Random(f"{selection.seed}:{key}").choice(far)
    return "kept", {
        "id": row.get("id", key),
        "prompt": row["messages"],
        "chosen": usable[chosen]["text"],
        "rejected": usable[rejected]["text"],
        "chosen_reward": values[chosen][1],
        "rejected_reward": values[rejected][1],
        "reward_model": row.get("reward_model") if selection.by == "reward" else None,
        "source": row.get("source", "generated"),
        "human": bool(row.get("human", False)),
    }


def _value(row: dict, response: dict, selection: Selection) -> tuple[bool, float]:
    """(may be chosen, reward) of a response; by truth, only a right one may be chosen and its quality is the reward."""
    if selection.by == "reward":
        return True, float(response["reward"])
    verdict = verify(row["task"], response["text"])
    return verdict["correct"], verdict["quality"]


def _split(scored: Path, pairs: list[dict], counts: Counter, selection: Selection) -> Built:
    needed = selection.validation_rows + 1
    if len(pairs) < needed:
        raise refuse(
            scored,
            None,
            f"gives {len(pairs)} pairs, {needed} are needed; buckets: {dict(counts)}",
            "D14",
            "lower pairs.min_margin or pairs.validation_rows, or generate more responses a prompt",
        )
    # A hash of the prompt decides, so that one prompt more or less does not reshuffle the others.
    order = sorted(pairs, key=lambda pair: content_id(selection.seed, pair["prompt"]))
    held_out = {id(pair) for pair in order[: selection.validation_rows]}
    train = [pair for pair in pairs if id(pair) not in held_out]
    validation = [pair for pair in pairs if id(pair) in held_out]
    return Built(train, validation, _facts(pairs, train, validation, counts))


def _facts(pairs: list[dict], train: list[dict], validation: list[dict], counts: Counter) -> dict:
    gaps = sorted(pair["chosen_reward"] - pair["rejected_reward"] for pair in pairs)
    mean = sum(gaps) / len(gaps)
    return {
        "prompts": sum(counts.values()),
        "counts": dict(sorted(counts.items())),
        "train": len(train),
        "validation": len(validation),
        "gap_mean": round(mean, 6),
        "gap_median": round(gaps[len(gaps) // 2], 6),
        "gap_min": round(gaps[0], 6),
        "gap_max": round(gaps[-1], 6),
        "chosen_reward_mean": round(sum(p["chosen_reward"] for p in pairs) / len(pairs), 6),
        "rejected_reward_mean": round(sum(p["rejected_reward"] for p in pairs) / len(pairs), 6),
        "suggested_gt_reward_scale": round(MEAN_TARGET / mean, 4),
    }
