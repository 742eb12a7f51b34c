"""NeMo's text generation server: `PUT /generate` (nemo/collections/nlp/modules/common/text_generation_server.py).

Its ways: parameters that it does not like come back as a JSON string with status 200; sentences come back with the
prompt in front and the end string still there; it does one request at a time, of at most 128 sentences; temperature
must be above 0; tokens are not counted; tokens_to_generate is added to the longest prompt of a request, so the answers
to shorter ones may be longer than max_tokens.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import orjson

from data_prep.rules import BadRow
from data_prep.synthetic.backends.base import Progress, Say, Tally
from data_prep.synthetic.backends.chat import seed_of
from data_prep.synthetic.backends.http import Again, HttpBackend, Job, Refused, of_status, one_line
from data_prep.synthetic.endpoint import Endpoint
from data_prep.synthetic.requests import Reply, Request
from data_prep.template import Template
from recipes.errors import Problem, UserInputError

SENTENCES = 32  # in one request; the server takes 128, and all of them wait for the longest


class NeMo(HttpBackend):
    """A model behind /generate. With a seed an answer also depends on the sentences that share its request, so a run
    that was interrupted draws other samples than one that was not. Raises UserInputError if no server answers."""

    def __init__(self, endpoint: Endpoint, work: Path, say: Say, progress: Progress, template: Template):
        super().__init__(endpoint, work, say, progress)
        self.template = template
        self._url = f"{endpoint.url}/generate"
        self._check_server()

    def _client(self):
        import httpx2

        return httpx2.AsyncClient(timeout=self._timeouts(), trust_env=not self.endpoint.is_loopback)

    def _sentences(self) -> int:
        return min(SENTENCES, self.endpoint.in_flight)

    def _at_once(self) -> int:
        return max(1, self.endpoint.in_flight // self._sentences())

    def _jobs(self, missing: dict[str, Request], tally: Tally) -> list[Job]:
        """Requests with equal settings and seeds share a job, those with prompts of similar length first."""
        fit, lengths = [], {}
        for item in missing.items():
            try:
                lengths[item[0]] = len(self.template.prompt(list(item[1].messages)))
                fit.append(item)
            except BadRow as bad:
                self._give_up(tally, item[0], f"[{bad.rule}] {bad.field} {bad.message}")
        jobs, size = [], self._sentences()
        for _, alike in groupby(sorted(fit, key=_settings), key=_settings):
            alike = sorted(alike, key=lambda item: (lengths[item[0]], item[0]))
            jobs += [alike[start : start + size] for start in range(0, len(alike), size)]
        return jobs

    async def _attempt(self, client, requests: list[Request]) -> list[Reply]:
        import httpx2

        prompts = [self.template.prompt(list(request.messages)) for request in requests]
        try:
            answer = await client.put(self._url, json=self._body(prompts, requests[0]))
        except httpx2.TimeoutException:
            raise Again(f"no answer in {self.endpoint.timeout:g} seconds") from None
        except httpx2.RequestError as error:
            raise Again(one_line(f"connection: {type(error).__name__}: {error}")) from None
        if not answer.is_success:
            raise of_status(answer.status_code, answer.headers, answer.text)
        return [self._reply_of(*pair) for pair in zip(prompts, _sentences(answer.content, len(prompts)))]

    def _body(self, prompts: list[str], request: Request) -> dict:
        sampling, greedy = request.sampling, request.sampling.temperature == 0
        return {
            "sentences": prompts,
            "tokens_to_generate": sampling.max_tokens,
            "temperature": 1.0 if greedy else sampling.temperature,
            "top_k": 0,
            "top_p": sampling.top_p,
            "greedy": greedy,
            "add_BOS": False,
            "all_probs": False,
            "repetition_penalty": 1.0,
            "min_tokens_to_generate": 1,
            "end_strings": [self.template.stop],
            "random_seed": seed_of(request),
        }

    def _reply_of(self, prompt: str, sentence: str) -> Reply:
        """What follows the prompt, up to the stop string."""
        rest = sentence[len(prompt) :] if sentence.startswith(prompt) else self._after_header(prompt, sentence)
        text, stop, _ = rest.partition(self.template.stop)
        return Reply(text.removesuffix(self.template.before_stop) if stop else text, finished=bool(stop))

    def _after_header(self, prompt: str, sentence: str) -> str:
        """The server decodes the prompt's tokens again, which a tokenizer that normalises text does not undo; the
        headers of turns are tokens of their own and stay, so the answer follows the last one that the prompt has."""
        header = self.template.assistant_header
        pieces = sentence.split(header, prompt.count(header))
        if len(pieces) <= prompt.count(header):
            raise Refused(one_line(f"the server's sentence does not begin with the prompt: {sentence[:80]!r}"))
        return pieces[-1]

    def _check_server(self) -> None:
        """Any answer will do: the server has no other method than PUT here."""
        import httpx2

        try:
            with httpx2.Client(timeout=60.0, trust_env=not self.endpoint.is_loopback) as client:
                client.get(self._url)
        except httpx2.TransportError as error:
            message = one_line(f"no server answers at {self.endpoint.url}: {type(error).__name__}: {error}")
            raise UserInputError(Problem("", "endpoint.url", message, "start the server, or correct the url")) from None


def _settings(item: tuple[str, Request]) -> tuple:
    sampling, seed = item[1].sampling, seed_of(item[1])
    return sampling.temperature, sampling.top_p, sampling.max_tokens, seed is not None, seed or 0


def _sentences(content: bytes, count: int) -> list[str]:
    """The sentences of an answer. A string in place of an object is the server's complaint about the request."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise Again("the answer is not JSON") from None
    if isinstance(answer, str):
        raise Refused(one_line(answer))
    sentences = answer.get("sentences") if isinstance(answer, dict) else None
    if not isinstance(sentences, list) or len(sentences) != count or not all(isinstance(s, str) for s in sentences):
        raise Again(f"the answer has no {count} sentences")
    return sentences
