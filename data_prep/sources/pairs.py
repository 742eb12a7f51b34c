"""This repository's pairs: {"prompt": messages | str, "chosen", "rejected", "chosen_reward"?, "rejected_reward"?,
"reward_model"?}."""

from __future__ import annotations

from data_prep.records import Record, Response
from data_prep.sources import PAIRED, Context, Schema, as_messages, need, number, split_embedded


def reward(row: dict, key: str) -> float | None:
    """None where the row has no reward or says null; the check of a stage decides whether that is allowed."""
    return None if row.get(key) is None else number(row, key, "D9")


def convert(row: dict, context: Context) -> Record:
    prompt = as_messages(need(row, "prompt", (str, list)), "prompt")
    if context.embedded_turns == "split":
        prompt = split_embedded(prompt, context.template)
    chosen = Response(need(row, "chosen", str), reward(row, "chosen_reward"))
    rejected = Response(need(row, "rejected", str), reward(row, "rejected_reward"))
    return Record(prompt, [chosen, rejected], preferred=0, judge=judge(row))


def judge(row: dict) -> str:
    """Whose rewards the row has: its "reward_model"."""
    return "" if row.get("reward_model") is None else need(row, "reward_model", str)


SCHEMA = Schema(
    "pairs",
    (*PAIRED, "sft"),
    '{"prompt": messages or str, "chosen": str, "rejected": str, "chosen_reward"?: float, "rejected_reward"?: float, '
    '"reward_model"?: str}',
    lambda row: {"prompt", "chosen", "rejected"} <= set(row),
    convert,
    order=60,
)
