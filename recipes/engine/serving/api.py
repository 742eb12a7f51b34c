"""OpenAI's chat completions and completions: a request's body -> rows to generate, and their answers -> a response.

Every field of a request has an effect, or is one of those that change nothing when they say what is done anyway
(`stream: false`), or is refused by name. Nothing is ignored. Fields and defaults: OpenAI's API reference.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from data_prep.rules import BadRow
from data_prep.template import Template
from recipes.engine.serving.rows import Answer, Refused, Row, number, strings

MOST_ROWS = 128  # sequences of one request, as many as NeMo's own server takes
MOST_STOPS = 16
DEFAULT_COMPLETION_TOKENS = 16  # of completions; a chat may use what the context leaves
_RENDERING = threading.Lock()  # a template remembers its last prompt, and knows of one thread only
_SAMPLING = ("model", "n", "seed", "stop", "temperature", "top_p", "max_tokens", "user")
# Fields that are accepted with a value that asks for nothing.
_NEUTRAL = {
    "stream": (False,), "stream_options": (), "logprobs": (False,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "store": (False,), "metadata": ({},), "service_tier": ("auto", "default"),
}  # fmt: skip
_NEUTRAL_CHAT = _NEUTRAL | {
    "top_logprobs": (0,), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "functions": ([],), "function_call": ("none", "auto"), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "audio": (), "prediction": (), "reasoning_effort": (), "web_search_options": (),
}  # fmt: skip
_NEUTRAL_COMPLETION = _NEUTRAL | {"echo": (False,), "suffix": ("",), "best_of": (1,)}


@dataclass(frozen=True)
class Served:
    """What is served. context: tokens of prompt and answer together; encode: text -> token ids."""

    name: str
    sha256: str
    created: int
    context: int
    template: Template
    encode: Callable[[str], list[int]]


@dataclass(frozen=True)
class Asked:
    """A request that was understood. rows: `n` for each prompt, in order; prompt_tokens: of all prompts together."""

    chat: bool
    rows: list[Row]
    prompt_tokens: int


def chat(data, served: Served) -> Asked:
    """The body of POST /v1/chat/completions. Raises Refused."""
    _known(data, {*_SAMPLING, "messages", "max_completion_tokens"}, _NEUTRAL_CHAT)
    messages = [_message(message) for message in _list(data, "messages")]
    try:
        with _RENDERING:
            prompt = served.template.prompt(messages)
    except BadRow as error:
        raise Refused(f"{error.field}: {error.message}", "messages") from None
    ids = served.encode(prompt)
    limits = [number(data, key, None, 1, served.context, int) for key in ("max_completion_tokens", "max_tokens")]
    if None not in limits and limits[0] != limits[1]:
        raise Refused("max_tokens and max_completion_tokens differ: give one of them", "max_tokens")
    limit = next((value for value in limits if value is not None), max(1, served.context - len(ids)))
    return Asked(True, _rows(data, [ids], limit, served, served.template.before_stop), len(ids))


def completion(data, served: Served) -> Asked:
    """The body of POST /v1/completions: prompts are text that the model goes on with. Raises Refused."""
    _known(data, {*_SAMPLING, "prompt"}, _NEUTRAL_COMPLETION)
    prompts = data.get("prompt")
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
        raise Refused("prompt must be a text or a list of texts; token ids are not taken", "prompt")
    if len(prompts) > MOST_ROWS:
        raise Refused(f"at most {MOST_ROWS} prompts in one request, not {len(prompts)}", "prompt")
    ids = [served.encode(text) for text in prompts]
    limit = number(data, "max_tokens", DEFAULT_COMPLETION_TOKENS, 1, served.context, int)
    return Asked(False, _rows(data, ids, limit, served, ""), sum(map(len, ids)))


def response(asked: Asked, answers: list[Answer], served: Served) -> dict:
    """The response's body, without log probabilities."""
    choices = []
    for index, answer in enumerate(answers):
        content = {"message": {"role": "assistant", "content": answer.text}} if asked.chat else {"text": answer.text}
        reason = "stop" if answer.finished else "length"
        choices.append({"index": index, **content, "logprobs": None, "finish_reason": reason})
    tokens = sum(answer.tokens for answer in answers)
    return {
        "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": "chat.completion" if asked.chat else "text_completion",
        "created": int(time.time()),
        "model": served.name,
        "choices": choices,
        "usage": {
            "prompt_tokens": asked.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": asked.prompt_tokens + tokens,
        },
    }


def models(served: Served) -> dict:
    """The body of GET /v1/models."""
    model = {"id": served.name, "object": "model", "created": served.created, "owned_by": "local"}
    return {"object": "list", "data": [model | {"sha256": served.sha256, "max_model_len": served.context}]}


def _rows(data: dict, prompts: list[list[int]], limit: int, served: Served, ending: str) -> list[Row]:
    """The sequences of a request: choice i of prompt p is number p * n + i, and has random choices of its own."""
    if data.get("model") != served.name:
        raise Refused(f"model must be {served.name!r}, what is served here", "model", 404, "model_not_found")
    if not isinstance(data.get("user", ""), (str, type(None))):
        raise Refused("user must be a text", "user")
    for ids in prompts:
        if not ids:
            raise Refused("the prompt is empty", "prompt")
        if len(ids) + limit > served.context:
            message = f"{len(ids)} prompt tokens + {limit} new ones exceed the context of {served.context}"
            raise Refused(message, "max_tokens", code="context_length_exceeded")
    n = number(data, "n", 1, 1, MOST_ROWS, int)
    if n * len(prompts) > MOST_ROWS:
        raise Refused(f"{n} choices of {len(prompts)} prompts are more than {MOST_ROWS} answers", "n")
    seed = number(data, "seed", None, -(2**63), 2**63 - 1, int)
    seed = secrets.token_hex(16) if seed is None else seed
    temperature, top_p = number(data, "temperature", 1.0, 0, 100), number(data, "top_p", 1.0, 0, 1, open_low=True)
    stop = data.get("stop")
    stop = strings({"stop": [stop] if isinstance(stop, str) else stop}, "stop", MOST_STOPS)
    repeated = [ids for ids in prompts for _ in range(n)]
    return [
        Row(ids, limit, temperature, top_p, f"{seed}/{number}", stop, ending) for number, ids in enumerate(repeated)
    ]


def _known(data, fields: set[str], neutral: dict[str, tuple]) -> None:
    if not isinstance(data, dict):
        raise Refused("the body must be a JSON object")
    for key, value in data.items():
        if key in neutral:
            # == alone would take 0 for False and 1 for True
            if value is not None and not any(value == ok and type(value) in _like(ok) for ok in neutral[key]):
                raise Refused(f"{key} is not supported here; leave it out", key, code="unsupported_parameter")
        elif key not in fields:
            raise Refused(f"{key} is not supported here", key, code="unknown_parameter")


def _like(value) -> tuple[type, ...]:
    return (int, float) if type(value) is int else (type(value),)


def _list(data: dict, key: str) -> list:
    value = data.get(key)
    if not isinstance(value, list) or not value:
        raise Refused(f"{key} must be a list that is not empty", key)
    return value


def _message(message) -> dict:
    """{"role", "content"} with text as content; OpenAI's list of text parts is joined."""
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise Refused("a message must be an object with role and content", "messages")
    if extra := [key for key in message if key not in ("role", "content") and message[key] is not None]:
        raise Refused(f"messages with {', '.join(extra)} are not supported", "messages", code="unsupported_parameter")
    content = message["content"]
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
                   for part in content):  # fmt: skip
            raise Refused("the parts of a message must be {type: text, text}", "messages")
        content = "".join(part["text"] for part in content)
    return {"role": message["role"], "content": content}
