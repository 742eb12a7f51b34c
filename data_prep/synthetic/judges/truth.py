"""Ground truth as a judge: the verifier of a row's task on each of its responses. No model, no opinion."""

from __future__ import annotations

from collections import Counter

from data_prep.verify import verify


def judge(rows: list[dict]) -> dict:
    """Put "verified" into the responses of every row with a task, in place; the others stay as they are.

    Returns the facts: rows judged, rows without a task (`without_task`), responses right and wrong, and the rows that
    give a pair (`mixed`), and those that do not: `all_right`, `all_wrong` (also a row without responses).
    """
    counts: Counter = Counter()
    for row in rows:
        if not row.get("task"):
            counts["without_task"] += 1
            continue
        for response in row["responses"]:
            response["verified"] = verify(row["task"], response["text"])
        row.setdefault("judges", {})["truth"] = {"name": f"verify:{row['task']['type']}", "sha256": None}
        right = sum(response["verified"]["correct"] for response in row["responses"])
        counts["right"] += right
        counts["wrong"] += len(row["responses"]) - right
        counts["all_wrong" if not right else "all_right" if right == len(row["responses"]) else "mixed"] += 1
    names = ("mixed", "all_right", "all_wrong", "without_task")
    return {"prompts": {name: counts[name] for name in names}, "responses": {k: counts[k] for k in ("right", "wrong")}}
