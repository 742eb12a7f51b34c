"""The losses written once more, pair by pair, from the papers; Python's `math` only, nothing of torch or NeMo-Aligner.

DPO arXiv 2305.18290 eq. 7, IPO 2310.12036 eq. 17, RPO 2406.11704 section 3.3.2 with its distances D (squared, forward
KL, backward KL). `h` is the implicit gap times the penalty beta, `t` the true reward gap times eta.
"""

from __future__ import annotations

import math


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bernoulli_kl(p: float, q: float) -> float:
    """KL(Bernoulli(p) || Bernoulli(q))"""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


PREFERENCE = {
    "dpo": lambda h, t, beta: -math.log(sigmoid(h)),
    "ipo": lambda h, t, beta: (h / beta - 1 / (2 * beta)) ** 2,
    "rpo_sq": lambda h, t, beta: (h - t) ** 2,
    "rpo_fwd_kl": lambda h, t, beta: bernoulli_kl(sigmoid(h), sigmoid(t)),
    "rpo_bwd_kl": lambda h, t, beta: bernoulli_kl(sigmoid(t), sigmoid(h)),
}


def reduced(logprobs: list[float], labels: list[int], average: bool) -> float:
    """Sum or mean of a row's log-probs over the tokens that carry a label."""
    kept = [p for p, label in zip(logprobs, labels) if label != -100]
    return sum(kept) / (max(1, len(kept)) if average else 1)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
