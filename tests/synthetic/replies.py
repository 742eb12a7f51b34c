"""What the stub server says in the tests of the backends; a module of its own, so that the server starts fast."""

from __future__ import annotations


def ends(messages: list[dict], body: dict) -> str | dict:
    """How the answer ends is the question itself; "seed" asks for the seed that came with it."""
    said = messages[-1]["content"]
    if said == "seed":
        return str(body.get("seed"))
    text = None if said == "nothing" else "three words here"
    return {"text": text, "finish_reason": "" if said == "silent" else said}


def rating(messages: list[dict], body: dict) -> str:
    """A reward model's text; it wants the answer that it rates as the last turn."""
    return "helpfulness:1.25,correctness:2.5" if messages[-1]["role"] == "assistant" else "no answer to rate"
