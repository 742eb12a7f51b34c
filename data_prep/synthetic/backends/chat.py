"""OpenAI's chat completions as JSON: the body of a request and the reply in an answer, over HTTP or in batch files."""

from __future__ import annotations

from data_prep.synthetic.requests import Reply, Request

# NeMo's server sends numbers to its other ranks as float32, exact up to here; other servers take at least as much.
LARGEST_SEED = 2**24


class NoAnswer(ValueError):
    """The server's JSON holds no answer. for_good: asking again would not help."""

    def __init__(self, message: str, for_good: bool = False):
        self.for_good = for_good
        super().__init__(message)


def seed_of(request: Request) -> int | None:
    """The seed that the server gets: another one for each sample, or all samples would be the same text."""
    seed = request.sampling.seed
    return None if seed is None else (seed + request.sample) % LARGEST_SEED


def body(model: str, request: Request) -> dict:
    """What is posted to /v1/chat/completions."""
    sampling, seed = request.sampling, seed_of(request)
    return {
        "model": model,
        "messages": list(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        **({} if seed is None else {"seed": seed}),
    }


def reply(answer: object, request: Request) -> Reply:
    """The first choice of an answer's JSON. Raises NoAnswer."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
    except (TypeError, KeyError, IndexError, AttributeError):
        raise NoAnswer("the answer has no choices[0].message") from None
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise NoAnswer("the server's content filter withheld the answer", for_good=True)
    text = refusal if text is None and isinstance(refusal, str) else text
    if not isinstance(text, str | None):
        raise NoAnswer(f"the content of the answer is {type(text).__name__}, not text")
    tokens = _count(answer, "completion_tokens")
    return Reply(
        text or "",
        finished=_finished(reason, tokens, request.sampling.max_tokens),
        prompt_tokens=_count(answer, "prompt_tokens"),
        tokens=tokens,
        model=str(answer.get("model") or ""),
    )


def _count(answer: dict, name: str) -> int:
    """One of the counts of `usage`, 0 if the server does not say."""
    usage = answer.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int else 0


def _finished(reason: str | None, tokens: int, max_tokens: int) -> bool:
    """Did the answer end by itself? Some servers (NeMo's) leave the reason empty; then the count of tokens says it."""
    return tokens < max_tokens if not reason else reason != "length"
