"""What is asked of a language model, and what comes back: the types that every backend and every caller share.

A request is identified by its content alone, so that work survives restarts, machines and changes of backend: the same
request is answered once, and two requests that must differ (two samples of one prompt) differ in `sample`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Protocol

from recipes.pipeline.files import canonical_json


@dataclass(frozen=True)
class Sampling:
    """How to decode. temperature 0 is greedy; top_p 1 keeps every token; seed None leaves it to the server."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """One chat completion.

    messages: as in data_prep/template.py, ending in a user turn (what is asked), or in the assistant's turn that a
    reward model is to rate;
    text: sha256 of the prompt template that made the messages, "" where none did (texts.py);
    sample: number of this sample among requests that are otherwise equal.
    """

    messages: tuple[dict, ...]
    sampling: Sampling = Sampling()
    text: str = ""
    sample: int = 0

    def key(self, model: str) -> str:
        """32 hex digits that name this request to this model: the same on every machine, whatever the order."""
        return hashlib.sha256(f"{model}\n{self._content_sha256}".encode()).hexdigest()[:32]

    @cached_property
    def _content_sha256(self) -> str:
        content = canonical_json([list(self.messages), asdict(self.sampling), self.text, self.sample])
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """text: the answer, "" if there is none; finished: it ended by itself, not at max_tokens;
    error: why there is no answer, after all retries ("" if there is one); tokens: as the server counts them, 0 if it
    does not say; model: the name that the server reports."""

    text: str
    finished: bool = True
    error: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    model: str = ""


class Model(Protocol):
    """A model that can be asked. name: what requests are keyed with and rows record; sha256: content hash of the
    checkpoint where it is known, None for a server of somebody else."""

    name: str
    sha256: str | None

    def ask(self, requests: Sequence[Request], what: str = "") -> list[Reply]:
        """The replies, in the order of the requests; `what` names the step in progress messages.

        Failed requests come back with `error` set. Raises StageFailed when more of them failed than the settings
        allow, and Unanswered when the backend works through files and some answers are not there yet.
        """


class Unanswered(Exception):
    """Requests were written to a file that somebody has to run before the work can go on (the batch backend)."""
