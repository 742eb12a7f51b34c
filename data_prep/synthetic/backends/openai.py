"""Chat completions over HTTP: OpenAI's API and every server that speaks it (vLLM, NIM, SGLang, TGI, ...)."""

from __future__ import annotations

from pathlib import Path

import orjson

from data_prep.synthetic.backends import chat
from data_prep.synthetic.backends.base import Progress, Say, Tally
from data_prep.synthetic.backends.http import Again, HttpBackend, Job, Refused, of_status, one_line
from data_prep.synthetic.endpoint import Endpoint
from data_prep.synthetic.requests import Reply, Request
from recipes.errors import Problem, UserInputError
from recipes.pipeline.merge import did_you_mean


class OpenAI(HttpBackend):
    """A model behind /v1/chat/completions. Raises UserInputError if the server is not there or has no such model."""

    def __init__(self, endpoint: Endpoint, work: Path, say: Say, progress: Progress):
        super().__init__(endpoint, work, say, progress)
        self._key = endpoint.key()
        self._check_server()

    def _client(self):
        import httpx2
        import openai

        at_once = self.endpoint.in_flight
        limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        http = openai.DefaultAsyncHttpxClient(limits=limits, trust_env=not self.endpoint.is_loopback)
        return openai.AsyncOpenAI(
            api_key=self._key or "none",  # the client wants one; a server without keys does not look
            base_url=self.endpoint.url,
            timeout=self._timeouts(),
            max_retries=0,  # attempts are counted here
            http_client=http,
        )

    def _jobs(self, missing: dict[str, Request], tally: Tally) -> list[Job]:
        return [[item] for item in missing.items()]

    async def _attempt(self, client, requests: list[Request]) -> list[Reply]:
        import httpx2
        import openai

        (request,) = requests
        try:
            # `post` for the raw answer: the typed models of chat.completions.create cost half of the throughput
            body = chat.body(self.name, request)
            answer = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            return [chat.reply(orjson.loads(answer.content), request)]
        except openai.APIStatusError as error:
            raise of_status(error.status_code, error.response.headers, self._said(error)) from None
        except openai.APITimeoutError:
            raise Again(f"no answer in {self.endpoint.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise Again(self._scrub(f"connection: {_cause(error)}")) from None
        except orjson.JSONDecodeError:
            raise Again("the answer is not JSON") from None
        except chat.NoAnswer as error:
            raise (Refused if error.for_good else Again)(str(error)) from None

    def _said(self, error) -> str:
        """The server's own words."""
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message")
        return self._scrub(message if isinstance(message, str) else error.response.text)

    def _scrub(self, text: str) -> str:
        """Servers repeat the key that they refuse."""
        return text.replace(self._key, "[key]") if self._key else text

    # -- at the start

    def _check_server(self) -> None:
        import openai

        url = f"{self.endpoint.url}/models"
        try:
            names = _model_names(self.endpoint, self._key)
        except openai.APIConnectionError as error:
            message = self._scrub(f"no server answers at {url}: {_cause(error)}")
            raise UserInputError(Problem("", "endpoint.url", message, "start the server, or correct the url")) from None
        except openai.APIStatusError as error:
            if error.status_code not in (401, 403):
                return  # it is there; not every server lists its models
            message = f"{url} answers HTTP {error.status_code}: {one_line(self._said(error))}"
            fix = f"set the environment variable {self.endpoint.key_from} to a key that this server takes"
            raise UserInputError(Problem("", "endpoint.key_from", message, fix)) from None
        if names and self.name not in names:
            near = did_you_mean(self.name, names) or names[:5]
            fix = f"did you mean {' or '.join(near)}?" if len(names) > 1 else f"it has {names[0]}"
            message = f"the server at {self.endpoint.url} has no model {self.name!r}"
            raise UserInputError(Problem("", "endpoint.model", message, fix))


def _model_names(endpoint: Endpoint, key: str | None) -> list[str]:
    """The names that the server lists, [] if what it answers is no list."""
    import httpx2
    import openai

    http = openai.DefaultHttpxClient(trust_env=not endpoint.is_loopback)
    timeout = min(60.0, endpoint.timeout)
    with openai.OpenAI(
        api_key=key or "none", base_url=endpoint.url, timeout=timeout, max_retries=2, http_client=http
    ) as client:
        answer = client.get("/models", cast_to=httpx2.Response)
    try:
        return [model["id"] for model in orjson.loads(answer.content)["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def _cause(error: Exception) -> str:
    """The client says "Connection error."; what lies below says which."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(f"{type(error).__name__}: {error}")
