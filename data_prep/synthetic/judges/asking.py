"""A judge from the settings of a stage: `judge`, `text`, `samples`, `weights` and `sampling`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_prep.synthetic.judges.pairwise import Pairwise
from data_prep.synthetic.judges.points import Points
from data_prep.synthetic.judges.reward import Reward
from data_prep.synthetic.requests import Model, Reply, Request, Sampling
from data_prep.synthetic.texts import Text
from recipes.errors import Problem, UserInputError

ASKING = ("pairwise", "points", "reward")
Judge = Pairwise | Points | Reward


class Metered:
    """A model whose tokens are counted, as its server counts them; answers taken from the journal count too.

    begin: told the number of requests before they are asked."""

    def __init__(self, model: Model, begin: Callable[[int], None]):
        self.model, self.begin, self.name, self.sha256 = model, begin, model.name, model.sha256
        self.requests = self.prompt_tokens = self.tokens = 0

    def ask(self, requests: Sequence[Request], what: str = "") -> list[Reply]:
        self.begin(len(requests))
        replies = self.model.ask(requests, what)
        self.requests += len(replies)
        self.prompt_tokens += sum(reply.prompt_tokens for reply in replies)
        self.tokens += sum(reply.tokens for reply in replies)
        return replies

    def facts(self) -> dict[str, int]:
        return {"requests": self.requests, "prompt_tokens": self.prompt_tokens, "tokens": self.tokens}


def check_kind(kind: str, known: Sequence[str]) -> None:
    """Raises UserInputError for a kind of judge that there is not."""
    if kind not in known:
        raise UserInputError(Problem("", "judge", f"is {kind!r}", f"use one of {', '.join(known)}"))


def make_judge(cfg: dict, model: Model) -> Judge:
    """The judge of kind cfg["judge"]. Raises UserInputError for a setting that does not fit it."""
    check_kind(cfg["judge"], ASKING)
    sampling = Sampling(**cfg["sampling"])
    if cfg["judge"] == "reward":
        _refuse_nemo(cfg)
        return Reward(model, cfg["weights"], sampling)
    text = Text.load(cfg["text"] or f"judge_{cfg['judge']}")
    if cfg["judge"] == "pairwise":
        return Pairwise(model, text, sampling)
    return Points(model, text, sampling, cfg["samples"])


def _refuse_nemo(cfg: dict) -> None:
    """A checkpoint that a stage serves writes texts, and so does NeMo's server."""
    if cfg["endpoint"]["protocol"] == "nemo" or cfg["inputs"]["model"]:
        message = "a reward model is asked over chat completions of its own server"
        fix = "use a stage of kind score for a reward model of the pipeline, or name an endpoint of protocol openai"
        raise UserInputError(Problem("", "judge", message, fix))


def identity(judge: Judge) -> dict:
    """Who judged, for rows and reports: name and content hash of the model (None where nobody knows it), and the prompt
    template by name and hash, or the weights of the attributes."""
    who = {"name": judge.model.name, "sha256": judge.model.sha256}
    if isinstance(judge, Reward):
        return who | {"weights": judge.name}
    asked = who | {"text": judge.text.name, "text_sha256": judge.text.sha256}
    return asked | {"samples": judge.samples} if isinstance(judge, Points) else asked
