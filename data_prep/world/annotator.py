"""SIMULATED annotators: ratings in HelpSteer2's schema without any people.

Each of three annotators sees the truth through noise: a rubric computed from the verifier's verdict, plus a normal
error, rounded to 0..4; the row carries the rounded mean, as HelpSteer2 does. The rubric is what a reward model can
learn; the noise is why it cannot learn it perfectly.
"""

from __future__ import annotations

import random

from data_prep.records import HELPSTEER_SLOTS
from data_prep.verify import verify


def rubric(task: dict, response: str) -> dict[str, float]:
    """Attributes 0..4 without noise."""
    v = verify(task, response)
    length = len(response.split())
    helpful = (
        0.55 * v["correct"] + 0.15 * v["closeness"] + 0.2 * v["polite"] + 0.1 * (v["clean"] and v["concise"] > 0.9)
    )
    return {
        "helpfulness": 4 * helpful,
        "correctness": 4 * (1.0 if v["correct"] else 0.4 * v["closeness"]),
        "coherence": 4 * (0.5 * v["clean"] + 0.3 * v["polite"] + 0.2 * v["concise"]),
        "complexity": 1.0,  # no task of this world needs more expertise than another; only the noise varies
        "verbosity": min(4.0, max(0.0, length / 5)),
    }


def annotate(task: dict, response: str, rng: random.Random, noise: float, annotators: int) -> dict[str, int]:
    """Rounded mean of `annotators` noisy ratings of each attribute; noise: standard deviation in points."""
    truth, rated = rubric(task, response), {}
    for name in HELPSTEER_SLOTS:
        votes = [min(4, max(0, round(truth[name] + rng.gauss(0, noise)))) for _ in range(annotators)]
        rated[name] = int(sum(votes) / annotators + 0.5)
    return rated
