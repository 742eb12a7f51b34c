"""What a record must satisfy beyond its schema, and how many tokens it will take. Each check raises BadRow.

A check gets the record and the trainer's row made of it (formats.py), whose rendering has already refused malformed
messages, so that every text is rendered once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from data_prep.records import UNKNOWN, Conversation, Pair, Rating, Record, Text
from data_prep.rules import BadRow
from data_prep.template import Template
from data_prep.tokens import Tokenizer

# NeMo's text data set puts a separator between its empty input and the text, and an end token behind it.
TEXT_EXTRA_TOKENS = 2


@dataclass(frozen=True)
class Rules:
    """The strictness of one stage.

    rewards: "require" (RPO) | "optional" (DPO uses none); max_length: tokens of a rendered row, 0 = any.
    """

    rewards: str = "optional"
    max_length: int = 0


@dataclass(frozen=True)
class Rendering:
    """How a file is rendered. template: None for plain text only; tokenizer: None = lengths and borders unchecked."""

    template: Template | None
    tokenizer: Tokenizer | None


def check_conversation(record: Conversation, row: dict, how: Rendering, rules: Rules) -> int:
    if how.tokenizer is None:
        return 0
    text, segments = how.template.conversation(record.messages), how.template.segments(record.messages)
    return how.tokenizer.check_segments(text, segments, "messages")


def check_pair(record: Pair, row: dict, how: Rendering, rules: Rules) -> int:
    if record.chosen == record.rejected:
        raise BadRow("D8", "chosen", f"is the same text as rejected: {record.chosen[:60]!r}")
    _check_rewards(record, rules)
    if how.tokenizer is None:
        return 0
    return max(
        how.tokenizer.check_prefix(row["prompt"], row["chosen_response"], "chosen"),
        how.tokenizer.check_prefix(row["prompt"], row["rejected_response"], "rejected"),
    )


def _check_rewards(record: Pair, rules: Rules) -> None:
    values = {"chosen_reward": record.chosen_reward, "rejected_reward": record.rejected_reward}
    missing = [key for key, value in values.items() if value is None]
    if len(missing) == 1 or (missing and rules.rewards == "require"):
        raise BadRow("D9", missing[0], "is missing")
    if missing:
        return
    for key, value in values.items():
        if not math.isfinite(value):
            raise BadRow("D9", key, f"is {value}")
    if rules.rewards == "require" and record.chosen_reward < record.rejected_reward:
        raise BadRow(
            "D10", "chosen_reward", f"is {record.chosen_reward:g}, below rejected_reward {record.rejected_reward:g}"
        )


def check_rating(record: Rating, row: dict, how: Rendering, rules: Rules) -> int:
    how.template.check_text(record.response, "response")
    for i, value in enumerate(record.label):
        if not math.isfinite(value):
            raise BadRow("D11", f"label[{i}]", f"is {value}")
    if all(value == UNKNOWN for value in record.label):
        raise BadRow("D11", "label", "has no known attribute")
    if how.tokenizer is None:
        return 0
    prompt = how.template.prompt(record.prompt)
    return how.tokenizer.check_prefix(prompt, row["text"][len(prompt) :], "response")


def check_text(record: Text, row: dict, how: Rendering, rules: Rules) -> int:
    if not record.text.strip():
        raise BadRow("D4", "text", "is empty")
    if how.template is not None:
        how.template.check_control(record.text, "text")
    return 0 if how.tokenizer is None else len(how.tokenizer.encode(record.text)) + TEXT_EXTRA_TOKENS


CHECKS = {"sft": check_conversation, "preference": check_pair, "reward": check_rating, "text": check_text}


def check(kind: str, record: Record, row: dict, how: Rendering, rules: Rules) -> int:
    """All checks of one record; returns its length in tokens (0 without a tokenizer). Raises BadRow; D6 comes last."""
    tokens = CHECKS[kind](record, row, how, rules)
    if rules.max_length and tokens > rules.max_length:
        raise BadRow("D6", "row", f"takes {tokens} tokens, the limit is {rules.max_length}")
    return tokens
