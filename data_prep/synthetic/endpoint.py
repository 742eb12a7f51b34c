"""The `endpoint` settings, checked, and the model behind them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.synthetic.requests import Model
from data_prep.template import Template
from recipes.errors import Problem, UserInputError
from recipes.pipeline.merge import did_you_mean

PROTOCOLS = ("openai", "batch", "nemo")


@dataclass(frozen=True)
class Endpoint:
    """The model that is asked; the comments in configs/stage/respond.yaml describe each setting.

    sha256: content hash of the checkpoint behind the server, where the stage that serves it knows it.
    """

    protocol: str = "openai"
    url: str | None = None
    model: str | None = None
    key_from: str | None = "OPENAI_API_KEY"
    in_flight: int = 64
    timeout: float = 600.0
    retries: int = 8
    failed_share: float = 0.0
    sha256: str | None = None

    @classmethod
    def of(cls, settings: dict) -> Endpoint:
        """Raises UserInputError with everything that is wrong."""
        known = [field.name for field in fields(cls)]
        unknown = [_unknown(f"endpoint.{name}", "setting", name, known) for name in settings if name not in known]
        if unknown:
            raise UserInputError(unknown)
        endpoint = cls(**settings)
        problems = list(endpoint._problems())
        if problems:
            raise UserInputError(problems)
        return replace(endpoint, url=endpoint.url and endpoint.url.rstrip("/"))

    def _problems(self):
        if self.protocol not in PROTOCOLS:
            yield _unknown("endpoint.protocol", "protocol", str(self.protocol), PROTOCOLS)
        elif self.protocol != "batch":
            yield from self._url_problems()
        if not isinstance(self.model, str) or not self.model:
            yield _wrong("model", "is missing", "name the model as its server knows it; rows record the name")
        for name, holds, wanted in (
            ("in_flight", lambda value: type(value) is int and value >= 1, "a whole number from 1 on"),
            ("retries", lambda value: type(value) is int and value >= 0, "a whole number from 0 on"),
            ("timeout", lambda value: _number(value) and value > 0, "seconds above 0"),
            ("failed_share", lambda value: _number(value) and 0 <= value <= 1, "a share from 0 to 1"),
        ):
            if not holds(getattr(self, name)):
                yield _wrong(name, f"is {getattr(self, name)!r}", f"give {wanted}")

    def _url_problems(self):
        example = "http://127.0.0.1:1424" if self.protocol == "nemo" else "http://127.0.0.1:8000/v1"
        if not self.url:
            yield _wrong("url", "is missing", f"name the server, for example {example}")
            return
        try:
            parts = urlsplit(str(self.url))
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, half an IPv6 address
            is_address = False
        if not is_address:
            yield _wrong("url", f"is {self.url!r}, no address of a server", f"write it like {example}")
        elif parts.username or parts.password or parts.query:
            fix = "put the key into an environment variable and its name into endpoint.key_from"
            yield _wrong("url", "holds a user name, a password or a query, which would be written to files", fix)

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.url or "").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def key(self) -> str | None:
        """The API key; None where the settings or a missing variable say that a local server wants none.

        Raises UserInputError if there has to be one and there is none. No message shows any of it.
        """
        if not self.key_from:
            return None
        value = os.environ.get(self.key_from)
        if not value:
            if self.is_loopback:
                return None
            fix = "set it, or write key_from: null for a server without keys"
            raise UserInputError(
                Problem("", "endpoint.key_from", f"the environment variable {self.key_from} is not set", fix)
            )
        if not value.isascii() or not value.isprintable() or " " in value:
            message = f"the key in {self.key_from} holds a space, a line break or a character outside ASCII"
            raise UserInputError(Problem("", "endpoint.key_from", message, "set it to the bare key"))
        return value


def open_model(
    endpoint: dict,
    work: Path | str,
    template: Template | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Model:
    """The model that the settings name, ready to be asked.

    work: folder of the journal, kept over restarts; template: the chat template, for a server that takes plain text
    (nemo); say: takes lines about what goes on (printed if None); progress: takes how many more requests are done.
    Raises UserInputError for wrong settings, a server that is not there, or a model that it does not have.
    """
    settings = Endpoint.of(endpoint)
    rest = settings, Path(work), say or _print, progress or (lambda count: None)
    try:
        if settings.protocol == "openai":
            from data_prep.synthetic.backends.openai import OpenAI

            return OpenAI(*rest)
        if settings.protocol == "batch":
            from data_prep.synthetic.backends.batch import Batch

            return Batch(*rest)
        if template is None:
            raise UserInputError(_wrong("protocol", "nemo needs a chat template", "set `template` beside `endpoint`"))
        from data_prep.synthetic.backends.nemo import NeMo

        return NeMo(*rest, template)
    except ModuleNotFoundError as error:
        fix = "pip install --no-deps -r requirements/llm.lock"
        message = f"protocol {settings.protocol} needs the package {error.name}, which is not installed"
        raise UserInputError(Problem("", "endpoint.protocol", message, fix)) from None


def _print(text: str) -> None:
    print(text, flush=True)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(name: str, message: str, fix: str) -> Problem:
    return Problem("", f"endpoint.{name}", message, fix)


def _unknown(where: str, what: str, name: str, known) -> Problem:
    near = did_you_mean(name, known)
    fix = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return Problem("", where, f"there is no {what} {name!r}", fix)
