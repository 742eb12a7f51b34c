"""A reward model behind a chat endpoint: the conversation ends in the assistant's answer, the reply is its reward.

NVIDIA's NIM serves nemotron-4-340b-reward and its successors this way: POST /v1/chat/completions with the user and
assistant turns, and the content of the answer is text, attributes or one number (reading.py). Rewards of two models are
not on one scale.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.reward_weights import WEIGHTS
from data_prep.synthetic.judges import reading
from data_prep.synthetic.judges.scored import Answer, Score, missing
from data_prep.synthetic.requests import Model, Reply, Request, Sampling
from recipes.errors import Problem, StageFailed, UserInputError


class Reward:
    """Asks `model`; weights: the preset (data_prep/reward_weights.py) that makes a scalar of attributes. A model that
    answers with one number has its own."""

    kind = "reward"

    def __init__(self, model: Model, weights: str, sampling: Sampling):
        if weights not in WEIGHTS:
            raise UserInputError(Problem("", "weights", f"is {weights!r}", f"use one of {', '.join(WEIGHTS)}"))
        self.model, self.name, self.weights, self.sampling = model, weights, WEIGHTS[weights], sampling

    def score(self, answers: Sequence[Answer], what: str = "rewards") -> list[Score]:
        """One score an answer, in their order. Raises what Model.ask does, and StageFailed where the model has other
        attributes than the weights need."""
        requests = [
            Request((*answer.messages, {"role": "assistant", "content": answer.text}), self.sampling)
            for answer in answers
        ]
        return [self._read(reply) for reply in self.model.ask(requests, what)]

    def _read(self, reply: Reply) -> Score:
        value = None if reply.error else reading.reward(reply.text)
        if value is None:
            return missing([reply])
        if isinstance(value, float):
            return Score("scored", value)
        lacking = self.weights.keys() - value.keys()
        if lacking:
            raise StageFailed(
                f"{self.model.name} answered {reply.text[:120]!r}, without {', '.join(sorted(lacking))}: "
                f"the weights {self.name} do not fit this model"
            )
        return Score("scored", sum(w * value[name] for name, w in self.weights.items()), {"attributes": value})
