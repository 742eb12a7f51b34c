"""What the audit says of judges whose bias is known, on probes and on labelled sets.

    python -m tests.bench.judges [--pairs 0]      ALIGN_SHARED_DATA: where the sets are (tests/real_data.py)

The judges are replies of the stub server (tests/synthetic/judge_replies.py), asked over HTTP like any other.
--pairs: at most so many comparisons of each set, 0: all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.real_data import DATA, MISSING
from tests.synthetic.test_audit import audited

SETS = (
    "pref_human/llmbar_all.jsonl.gz",
    "pref_human/pandalm_testset_v1.json.gz",
    "pref_human/hh_rlhf_harmless_base_test.jsonl.gz",
    "pref_truth/m_ifeval_en_verified_responses.jsonl.gz",
)
ON_SETS, ON_PROBES = ("first", "longest"), ("family", "honest")  # these two know what the probes are about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=0)
    options = parser.parse_args()
    sets = [] if MISSING else [DATA / name for name in SETS]
    if MISSING:
        print(f"without labelled sets: {MISSING}")
    with tempfile.TemporaryDirectory() as scratch:
        for judge in ON_SETS + ON_PROBES:
            mine = sets if judge in ON_SETS else []
            show(judge, audited(Path(scratch), judge, judge, sets=mine, pairs_per_set=options.pairs))


def show(judge: str, result: dict) -> None:
    found = {bias: entry["verdict"] for bias, entry in result["biases"].items()}
    print(f"{judge}: " + ", ".join(f"{bias} {verdict}" for bias, verdict in found.items()))
    for entry in result["sets"]:
        right = entry["accuracy_of_all"]
        print(
            f"    {entry['name']:40} {entry['pairs']:5} pairs  right {100 * right['share']:5.1f} % "
            f"({100 * right['low']:.1f}-{100 * right['high']:.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
