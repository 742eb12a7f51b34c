"""This repository's pairs: {"prompt": messages | str, "chosen", "rejected", "chosen_reward"?, "rejected_reward"?}."""

from __future__ import annotations

from data_prep.records import Pair
from data_prep.sources import Context, Schema, as_messages, need, number, split_embedded


def reward(row: dict, key: str) -> float | None:
    """None where the row has no reward or says null; the check of a stage decides whether that is allowed."""
    return None if row.get(key) is None else number(row, key, "D9")


def convert(row: dict, context: Context) -> Pair:
    prompt = as_messages(need(row, "prompt", (str, list)), "prompt")
    if context.embedded_turns == "split":
        prompt = split_embedded(prompt, context.template)
    return Pair(
        prompt=prompt,
        chosen=need(row, "chosen", str),
        rejected=need(row, "rejected", str),
        chosen_reward=reward(row, "chosen_reward"),
        rejected_reward=reward(row, "rejected_reward"),
    )


SCHEMA = Schema(
    "pairs",
    "preference",
    '{"prompt": messages or str, "chosen": str, "rejected": str, "chosen_reward"?: float, "rejected_reward"?: float}',
    lambda row: {"prompt", "chosen", "rejected"} <= set(row),
    convert,
)
