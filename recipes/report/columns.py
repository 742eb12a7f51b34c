"""What the name of a metric says about it: which direction is better, and whether it is a share of something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.report.numbers import fmt

LOWER = {
    "loss", "nll", "perplexity", "ppl", "error", "errors", "repetition", "repeated", "toxicity", "toxic",
    "unsafe", "violations", "wrong", "unfinished", "truncated", "invalid", "empty", "incorrect",
}  # fmt: skip
HIGHER = {
    "reward", "accuracy", "acc", "correct", "score", "quality", "win", "pass", "strict", "loose", "helpfulness",
    "correctness", "coherence", "finished", "exact", "match", "f1", "mmlu", "gsm8k", "humaneval", "ifeval", "bench",
    "verified", "valid", "spearman", "safe",
}  # fmt: skip
# Counts, spreads and attributes that are not good or bad by themselves.
NEUTRAL = {
    "kl", "count", "n", "num", "prompts", "rows", "samples", "responses", "tokens", "length", "len", "chars",
    "words", "seconds", "time", "std", "stdev", "stderr", "sem", "se", "low", "high", "ci", "verbosity", "complexity",
    "steps", "bytes",
}  # fmt: skip
SHARE = {
    "accuracy", "acc", "correct", "rate", "share", "fraction", "win", "pass", "finished", "unfinished", "truncated",
    "strict", "loose", "valid", "invalid", "verified", "exact", "match", "empty", "repetition", "repeated", "wrong",
}  # fmt: skip


# These come first, wherever metrics stand in a row.
FIRST = ("reward", "accuracy", "quality", "sampled_accuracy")


def rank(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


@dataclass(frozen=True)
class Column:
    """direction: 1 higher is better, -1 lower is better, 0 not judged. share: lies in 0..1, printed as percent."""

    name: str
    direction: int
    share: bool

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    @property
    def arrow(self) -> str:
        return {1: "↑", -1: "↓", 0: ""}[self.direction]

    def show(self, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if self.share else fmt(value)

    def show_delta(self, delta: float) -> str:
        text = self.show(abs(delta))
        if float(text.replace(",", "").replace("−", "-")) == 0:
            return "±0"
        return ("+" if delta > 0 else "−") + text

    def best(self, values: Sequence[float | None]) -> set[int]:
        """Indices of the best values; none where the column is not judged or all values are the same."""
        known = [v for v in values if v is not None]
        if not self.direction or len(known) < 2 or min(known) == max(known):
            return set()
        top = max(known) if self.direction > 0 else min(known)
        return {i for i, v in enumerate(values) if v == top}


def column(name: str, values: Sequence[float]) -> Column:
    """The column of a metric, from its name; `values` only tell whether a share really lies in 0..1."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()))
    direction = 0 if words & NEUTRAL else -1 if words & LOWER else 1 if words & HIGHER else 0
    share = bool(words & SHARE) and not words & {"count", "n", "num"} and all(0 <= v <= 1 for v in values)
    return Column(name, direction, share)


def columns(rows: Sequence[dict[str, float]]) -> list[Column]:
    """Columns of several metrics.json: judged ones first, of these the main ones, else in the order of the files."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = [column(name, [row[name] for row in rows if name in row]) for name in names]
    return sorted(found, key=lambda c: (c.direction == 0, rank(c.name)))
