"""What `PUT /generate` may hold: the rules of NeMo's handler, and those that it lacks, before it sees the request.

NeMo 2.1.0 (nemo/collections/nlp/modules/common/text_generation_server.py) tells the other ranks to generate and only
then touches most fields, answers some errors with a text and status 200, and goes on with values that fail later, on
one rank or on all. What passes here reaches its handler unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recipes.engine.serving.rows import Refused, number, strings

MOST_SENTENCES = 128
# NeMo sends all numbers to the other ranks as float32: whole numbers up to here arrive as they are.
LARGEST_EXACT = 2**24
_FLAGS = ("add_BOS", "greedy", "all_probs", "compute_logprob")
_FIELDS = {
    "sentences", "tokens_to_generate", "temperature", "top_k", "top_p", "repetition_penalty", "end_strings",
    "min_tokens_to_generate", "random_seed", *_FLAGS,
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """context: tokens of prompt and answer; vocabulary: number of tokens; encode: text -> ids; bos: there is one."""

    context: int
    vocabulary: int
    encode: Callable[[str], list[int]]
    bos: bool


def check(data, limits: Limits) -> None:
    """Raise Refused unless NeMo's handler can serve this body of PUT /generate on all ranks."""
    if not isinstance(data, dict):
        raise Refused("the body must be a JSON object")
    for key, value in data.items():
        if key not in _FIELDS:
            raise Refused(f"{key} is not supported here", key)
        if value is None and key != "random_seed":
            raise Refused(f"{key} must not be null: leave it out", key)
    for key in _FLAGS:
        if not isinstance(data.get(key, False), bool):
            raise Refused(f"{key} must be true or false", key)
    tokens = number(data, "tokens_to_generate", 64, 1, limits.context, int)
    number(data, "temperature", 1.0, 0, 100, open_low=True)
    number(data, "top_p", 0.9, 0, 1)
    number(data, "top_k", 0, 0, limits.vocabulary, int)
    number(data, "min_tokens_to_generate", 0, 0, tokens, int)
    number(data, "random_seed", None, 0, LARGEST_EXACT, int)
    strings(data, "end_strings", 64)
    _log_probabilities(data)
    _sentences(data, tokens, limits)


def _log_probabilities(data: dict) -> None:
    """NeMo looks at these two only while it computes log probabilities; all_probs without them fails on every rank."""
    wanted = data.get("compute_logprob", False)
    if data.get("all_probs") and not wanted:
        raise Refused("all_probs needs compute_logprob: true", "all_probs")
    if number(data, "repetition_penalty", 1.0, 1, 1e4) != 1.0 and not wanted:
        raise Refused("repetition_penalty has an effect only with compute_logprob: true", "repetition_penalty")


def _sentences(data: dict, tokens: int, limits: Limits) -> None:
    sentences = strings(data, "sentences", MOST_SENTENCES)
    if not sentences:
        raise Refused("sentences must be a list of prompts", "sentences")
    begin = data.get("add_BOS", False)
    if begin and not limits.bos:
        raise Refused("the tokenizer has no token for the beginning of a text", "add_BOS")
    longest = max(len(limits.encode(text)) + begin for text in sentences)
    if longest + tokens > limits.context:
        # NeMo would go on past the context of a model with rotary embeddings, where it was never trained.
        message = f"{longest} prompt tokens + {tokens} new ones exceed the context of {limits.context}"
        raise Refused(message, "tokens_to_generate")
