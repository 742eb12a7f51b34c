"""When two prompts are the same: case and white space do not count."""

from __future__ import annotations


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def prompt_key(messages: list[dict]) -> str:
    """One string for a whole prompt; an answer at the end of a conversation is no part of it."""
    turns = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return "\x00".join(f"{turn['role']} {normal(turn['content'])}" for turn in turns)


def first_user(messages: list[dict]) -> str:
    """The first user turn, normalised; "" where there is none. What data sets are kept disjoint by."""
    return next((normal(turn["content"]) for turn in messages if turn["role"] == "user"), "")
