"""The card of a round's pairs: card.html, who wrote and who judged them, how far apart they are, and some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep.card import charts
from data_prep.card.counts import Spread
from data_prep.jsonl import read_rows
from data_prep.pairs import TRAIN, VALIDATION
from data_prep.pairs.select import KEPT

SHOWN = 3
MEANING = {
    KEPT: "gives a pair",
    "too_few_responses": "fewer than two responses with text and without control tokens",
    "unfinished": "no response ended by itself",
    "none_right": "no response is right",
    "none_wrong": "no response is wrong",
    "all_equal": "no two different responses with different values",
    "small_margin": "the gap is below pairs.min_margin",
    "chosen_too_low": "the best response is below pairs.chosen_quantile of all",
    "chosen_wrong": "no response that could win is right",
    "not_judged": "no judge of pairs.by has judged its responses",
}


def html(cfg: dict, facts: dict, outputs: Path) -> str:
    """The page. cfg: the stage's; facts: what `data_prep.pairs.build` returned; outputs: the folder of the pairs."""
    from data_prep.card.page import render

    pairs = Spreads(outputs)
    return render(
        Path(__file__).with_name("card.html.j2"),
        cfg=cfg,
        facts=facts,
        buckets=sorted(facts["counts"].items(), key=lambda entry: (entry[0] != KEPT, -entry[1])),
        meaning=MEANING,
        sources=pairs.sources.most_common(),
        figures=[figure for figure in pairs.figures() if figure],
        samples=list(samples(outputs / TRAIN, pairs.margins)),
    )


class Spreads:
    """What one pass over the pairs counts."""

    def __init__(self, outputs: Path):
        self.margins, self.rewards, self.lengths, self.sources = Counter(), (Counter(), Counter()), Counter(), Counter()
        for name in (TRAIN, VALIDATION):
            for _, pair in rows(outputs / name):
                self.margins[round(pair["chosen_reward"] - pair["rejected_reward"], 3)] += 1
                self.rewards[0][round(pair["chosen_reward"], 3)] += 1
                self.rewards[1][round(pair["rejected_reward"], 3)] += 1
                self.lengths[len(pair["chosen"]) - len(pair["rejected"])] += 1
                self.sources[pair["source"]] += 1

    def figures(self) -> Iterator[dict | None]:
        yield charts.histogram("Reward gap, chosen − rejected", [("pairs", "pref", Spread(self.margins))], "reward")
        both = [(n, css, Spread(c)) for n, css, c in zip(("chosen", "rejected"), ("train", "val"), self.rewards)]
        yield charts.histogram("Reward", both, "reward")
        yield charts.histogram("Length, chosen − rejected", [("pairs", "metric", Spread(self.lengths))], "characters")


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of a file that may be empty (validation_rows=0)."""
    return read_rows(path) if path.stat().st_size else iter(())


def samples(path: Path, margins: Counter) -> Iterator[tuple[str, dict]]:
    """(which, pair) of the smallest, a middle and the largest gap."""
    found = sorted((pair["chosen_reward"] - pair["rejected_reward"], line) for line, pair in rows(path))
    wanted = {found[0][1]: "smallest gap", found[len(found) // 2][1]: "median gap", found[-1][1]: "largest gap"}
    picked = {line: pair for line, pair in rows(path) if line in wanted}
    for line, which in wanted.items():
        yield which, picked[line]
