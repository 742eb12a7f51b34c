"""A language model gives each response 1 to 10 points, alone; several samples are averaged."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.synthetic.judges import reading
from data_prep.synthetic.judges.scored import Answer, Score, missing
from data_prep.synthetic.requests import Model, Reply, Request, Sampling
from data_prep.synthetic.texts import Text
from recipes.errors import Problem, UserInputError


class Points:
    """Asks `model` `samples` times for each response with the template `text`, whose values are messages and answer."""

    kind = "points"

    def __init__(self, model: Model, text: Text, sampling: Sampling, samples: int = 1):
        if samples < 1 or (samples > 1 and sampling.temperature == 0):
            message = f"is {samples}, at temperature {sampling.temperature:g}"
            fix = "use at least 1; more than 1 only with sampling.temperature over 0: greedy samples are all the same"
            raise UserInputError(Problem("", "samples", message, fix))
        self.model, self.text, self.sampling, self.samples = model, text, sampling, samples

    def score(self, answers: Sequence[Answer], what: str = "points") -> list[Score]:
        """One score an answer, in their order. Raises what Model.ask does."""
        requests = []
        for answer in answers:
            content = self.text.render(messages=answer.messages, answer=answer.text)
            message = ({"role": "user", "content": content},)
            requests += [Request(message, self.sampling, self.text.sha256, i) for i in range(self.samples)]
        replies = self.model.ask(requests, what)
        return [mean(replies[i : i + self.samples]) for i in range(0, len(replies), self.samples)]


def mean(replies: Sequence[Reply]) -> Score:
    """The mean of the samples that can be read. A response of which fewer than half can be read has no points: those
    that remain would be the ones that suit the parser. found["points_samples"]: of every sample, null where unread."""
    read = [reading.points(r.text) if r.finished and not r.error else None for r in replies]
    known = [value for value in read if value is not None]
    if 2 * len(known) < len(read):
        return missing(replies, {"points_samples": read})
    return Score("scored", sum(known) / len(known), {"points_samples": read})
