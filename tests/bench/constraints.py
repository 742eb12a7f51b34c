"""Our verdicts on constraints against IFEval's own, on 9,197 real responses (17 models, 541 prompts); responses/s.

    python -m tests.bench.constraints [--differences KIND]

Needs the real data (ALIGN_SHARED_DATA, else ../shared/data): M-IFEval's English prompts and the strict and loose
verdicts that its own program gave on the responses. Time is that of the strict verdicts, with the check of arguments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_prep.jsonl import read_rows
from data_prep.synthetic.constraints import KINDS, find, loosely_met
from tests.real_data import DATA, MISSING

WHY = {
    "keywords:letter_frequency": "two prompts ask for # and !; IFEval replaces what is no letter by a random letter",
    "language:response_language": "another detector: IFEval asks langdetect; they differ on mixed and very short text",
    "change_case:english_capital": "another detector: langdetect takes names and short text for other languages",
    "change_case:english_lowercase": "another detector: langdetect takes names and short text for other languages",
}


@dataclass
class Tally:
    """Of one kind: verdicts, how many differ from IFEval's, seconds, and the responses with a different verdict."""

    verdicts: int = 0
    strict: int = 0
    loose: int = 0
    seconds: float = 0.0
    different: list[tuple[dict, bool, str]] = field(default_factory=list)


def responses() -> Iterator[tuple[dict, list[dict]]]:
    """(row, arguments of its constraints). No response at all (43 rows) reads as an empty one."""
    prompts = read_rows(DATA / "bench/m_ifeval_en_input_data.jsonl.gz")
    arguments = {row["prompt"]: row["kwargs"] for _, row in prompts}
    for _, row in read_rows(DATA / "pref_truth/m_ifeval_en_verified_responses.jsonl.gz"):
        yield row | {"response": row["response"] or ""}, arguments[row["prompt"]]


def measure() -> tuple[dict[str, Tally], Counter]:
    """(tally of each kind; counts: rows, and rows whose strict_all and loose_all are IFEval's)."""
    tallies, rows = {name: Tally() for name in KINDS}, Counter()
    for row, arguments in responses():
        strict, loose = [], []
        for name, args, theirs, theirs_loose in zip(row["instruction_id_list"], arguments, row["strict"], row["loose"]):
            kind = find(name)
            start = time.perf_counter()
            strict.append(kind.met(row["response"], args))
            tally = tallies[kind.id]
            tally.seconds += time.perf_counter() - start
            loose.append(loosely_met(kind, row["response"], args))
            tally.verdicts += 1
            tally.loose += loose[-1] != theirs_loose
            if strict[-1] != theirs:
                tally.strict += 1
                tally.different.append((args, strict[-1], row["response"]))
        rows["all"] += 1
        rows["strict"] += all(strict) == row["strict_all"]
        rows["loose"] += all(loose) == row["loose_all"]
    return tallies, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--differences", choices=KINDS, metavar="KIND", help="print the responses of one kind")
    given = parser.parse_args()
    if MISSING:
        sys.exit(MISSING)
    tallies, rows = measure()
    if given.differences:
        for args, ours, response in tallies[given.differences].different:
            print(f"{args} ours {ours}: {response[:300]!r}")
        return
    print(f"{'kind':46}{'verdicts':>9}{'strict':>9}{'loose':>9}{'responses/s':>13}")
    for name, tally in sorted(tallies.items()):
        strict, loose = (1 - wrong / tally.verdicts for wrong in (tally.strict, tally.loose))
        print(f"{name:46}{tally.verdicts:9,}{strict:9.4f}{loose:9.4f}{tally.verdicts / tally.seconds:13,.0f}")
    for name, why in WHY.items():
        print(f"{name}: {tallies[name].strict} differ; {why}")
    seconds = sum(tally.seconds for tally in tallies.values())
    print(f"rows with IFEval's strict verdict on all constraints: {rows['strict']:,} of {rows['all']:,}", end="")
    print(f" ({rows['strict'] / rows['all']:.4f}), loose: {rows['loose']:,} ({rows['loose'] / rows['all']:.4f})")
    print(f"{rows['all'] / seconds:,.0f} responses/s, all their constraints, one process")


if __name__ == "__main__":
    main()
