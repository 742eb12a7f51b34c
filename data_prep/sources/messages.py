"""OpenAI-style conversations: {"messages": [{"role", "content"}, ...]}, ending in an assistant turn."""

from __future__ import annotations

from data_prep.records import Conversation
from data_prep.sources import Context, Schema, as_messages, need, split_embedded


def convert(row: dict, context: Context) -> Conversation:
    messages = as_messages(need(row, "messages", list), "messages")
    if context.embedded_turns == "split":
        messages = split_embedded(messages, context.template)
    return Conversation(messages=messages)


# UltraFeedback rows also carry `messages`, beside `chosen`; as SFT data they are read by it.
SCHEMA = Schema(
    "messages",
    "sft",
    '{"messages": [{"role": "system"|"user"|"assistant", "content": str}]}',
    lambda row: "messages" in row,
    convert,
)
