"""Judges for tests: replies of tests/synthetic/stub_server.py to the prompts of configs/prompt/judge_*.jinja."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from data_prep.synthetic import probes

MARK, SEED, PROBES = "Certainly!", 1234, 200
_PART = re.compile(r"<(answer_a|answer_b|answer|conversation)>\n(.*?)\n</\1>", re.DOTALL)


def _parts(messages: list[dict]) -> dict[str, str]:
    return dict(_PART.findall(messages[-1]["content"]))


def _verdict(better_is_a: bool | None) -> str:
    label = "C" if better_is_a is None else "A" if better_is_a else "B"
    return f"[[A]] and [[B]] were weighed.\n[[{label}]]"


@lru_cache(maxsize=1)
def _right_answers() -> dict[str, str]:
    return {p.question: p.answers[p.right] for p in probes.make(PROBES, MARK, SEED)}


def _knows(parts: dict[str, str]) -> bool | None:
    """Is answer A the right one? None for a question that is no probe."""
    question = parts["conversation"].split("\n", 1)[1]
    right = _right_answers().get(question)
    return None if right is None else parts["answer_a"] == right


def _chance(messages: list[dict], share: float) -> bool:
    digest = hashlib.sha256(messages[-1]["content"].encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def honest(messages: list[dict], body: dict) -> str:
    """Knows the answers to the probes, and errs in every tenth reply, whatever is in it."""
    knows = _knows(_parts(messages))
    return _verdict(knows if knows is None else knows != _chance(messages, 0.1))


def first(messages: list[dict], body: dict) -> str:
    return _verdict(True)


def longest(messages: list[dict], body: dict) -> str:
    parts = _parts(messages)
    a, b = len(parts["answer_a"]), len(parts["answer_b"])
    return _verdict(None if a == b else a > b)


def family(messages: list[dict], body: dict) -> str:
    """Prefers what wears the mark, and is honest without errors elsewhere."""
    parts = _parts(messages)
    a, b = (parts[name].startswith(MARK) for name in ("answer_a", "answer_b"))
    return _verdict(_knows(parts) if a == b else a)


def troubled(messages: list[dict], body: dict) -> str | dict:
    """Of the probes' questions: sums cannot be read, products are cut off, days are withheld; else honest."""
    parts = _parts(messages)
    if " + " in parts["conversation"]:
        return "Answer A is better."
    if " times " in parts["conversation"]:
        return {"text": "[[A]] might", "finish_reason": "length"}
    if "Which day" in parts["conversation"]:
        return {"text": None, "finish_reason": "content_filter"}
    return _verdict(_knows(parts))


def rating(messages: list[dict], body: dict) -> str:
    """Points by the number of words, at most 10; a text with "dots" gets no rating."""
    answer = _parts(messages)["answer"]
    return "..." if "dots" in answer else f"Well. [[{min(10, len(answer.split()))}]]"


def attributes(messages: list[dict], body: dict) -> str:
    """A reward model of attributes, as nemotron-4-340b-reward answers."""
    assert messages[-1]["role"] == "assistant"
    words = len(messages[-1]["content"].split())
    found = {"helpfulness": words / 8, "correctness": 1.5, "coherence": 3.25, "complexity": -0.125, "verbosity": 1e-05}
    return ",".join(f"{name}:{value}" for name, value in found.items())


def scalar(messages: list[dict], body: dict) -> str:
    """A reward model of one number; a text with "dots" breaks it."""
    text = messages[-1]["content"]
    return "error" if "dots" in text else f"{-len(text) / 7!r}"


def two_attributes(messages: list[dict], body: dict) -> str:
    return "helpfulness:1.5,correctness:2.0"
