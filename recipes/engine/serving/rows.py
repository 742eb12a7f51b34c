"""What one generated sequence needs, what comes back, and how a request is turned down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One sequence to generate.

    prompt: token ids, at least one; max_tokens: at most so many new ones, the stop token counted;
    temperature: 0 takes the likeliest token; top_p: in (0, 1], 1 keeps every token;
    seed: text that fixes every random choice of this row; stop: the answer ends before the first of these strings;
    ending: what the template puts before its stop token, not part of the answer's text ("" for plain completions).
    """

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: str
    stop: tuple[str, ...] = ()
    ending: str = ""


@dataclass(frozen=True)
class Answer:
    """text: without what ended it; tokens: generated ones, the stop token counted; finished: False at max_tokens."""

    text: str
    tokens: int
    finished: bool


class Refused(Exception):
    """A request that is not served. status: of HTTP; param: the field to look at; code: as OpenAI names the error."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code

    @property
    def body(self) -> dict:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def number(data: dict, key: str, default, low, high, kind: type = float, open_low: bool = False):
    """data[key], `default` where it is absent or null. Refused unless it is a number in [low, high] or (low, high]."""
    value = data.get(key)
    if value is None:
        return default
    types = (int,) if kind is int else (int, float)
    inside = type(value) in types and (low < value <= high if open_low else low <= value <= high)  # NaN is in no range
    if not inside:
        what = "a whole number" if kind is int else "a number"
        border = f"above {low} and at most {high}" if open_low else f"from {low} to {high}"
        raise Refused(f"{key} must be {what} {border}, not {value!r}", key)
    return kind(value)


def strings(data: dict, key: str, most: int) -> tuple[str, ...]:
    """data[key], a list of at most `most` texts that are not empty; () where it is absent or null."""
    value = data.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most or not all(isinstance(text, str) and text for text in value):
        raise Refused(f"{key} must be a list of at most {most} texts that are not empty", key)
    return tuple(value)
