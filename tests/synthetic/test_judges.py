"""Judges over the real protocol: what is read and what is not, what the rows carry, and that stages chain."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from data_prep.jsonl import write_rows
from data_prep.reward_weights import WEIGHTS
from data_prep.synthetic.judges import pairwise, reading
from data_prep.synthetic.judges.points import mean
from data_prep.synthetic.requests import Reply
from recipes.errors import StageFailed, UserInputError
from recipes.pipeline.files import read_config
from recipes.stages import judge as stage
from tests.synthetic.stub_server import stub

REPO = Path(__file__).resolve().parents[2]
TASK = {"type": "skill", "family": "list", "skill": "reverse", "items": ["a", "b"], "constraint": None}


def candidate(name: str, *texts: str, task: dict | None = None) -> dict:
    responses = [{"text": text, "finished": True, "tokens": 3, "model": "m"} for text in texts]
    row = {"id": name, "messages": [{"role": "user", "content": f"question {name}"}], "responses": responses}
    return row | ({"task": task} if task else {})


ROWS = [
    candidate("p0", "one", "one and two", "one and two and three"),
    candidate("p1", "same", "same", "dots dots", task=TASK),
    candidate("p2", "the answer is b a .", "the answer is a b .", task=TASK),
    candidate("p3", "alone"),
]


def judged(folder: Path, rows: list[dict] | Path, reply: str | None, **changes) -> tuple[list[dict], dict]:
    """(the rows that the stage wrote, its facts); reply None: no server."""
    folder.mkdir(parents=True, exist_ok=True)
    source = rows if isinstance(rows, Path) else folder / "candidates.jsonl"
    if source is not rows:
        write_rows(source, rows)
    cfg = read_config(REPO / "configs" / "stage" / "judge.yaml") | changes
    cfg["inputs"] |= {"responses": [str(source)]}
    if reply is None:
        facts = stage.main(cfg, folder)
    else:
        with stub(reply=f"tests.synthetic.judge_replies:{reply}") as url:
            cfg["endpoint"] |= {"url": url, "model": "stub", "retries": 0}
            facts = stage.main(cfg, folder)
    lines = (folder / "outputs" / "judged.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], facts


@pytest.mark.parametrize(
    ("text", "label"),
    [("[[A]]", "A"), ("[[A]] loses: [[ B ]]", "B"), ("it is a tie: [[C]]\n", "C"), ("[[B]], or rather [[none]]", None),
     ("A is better", None), ("[A]", None), ("[[a]]", None), ("[[AB]]", None), ("", None)],
)  # fmt: skip
def test_a_label_is_the_last_mark_or_nothing(text, label):
    assert reading.label(text) == label


@pytest.mark.parametrize(
    ("text", "points"),
    [("[[7]]", 7), ("[[3]] no, [[10]]", 10), ("[[0]]", None), ("[[11]]", None), ("[[7.5]]", None), ("7/10", None)],
)
def test_points_are_a_whole_number_in_the_last_mark(text, points):
    assert reading.points(text) == points


@pytest.mark.parametrize(
    ("text", "value"),
    [("-12.4375", -12.4375), (" 1e-07\n", 1e-7),
     ("helpfulness:1.2578,correctness:-0.1", {"helpfulness": 1.2578, "correctness": -0.1}),
     ("helpfulness: 1.0, correctness: 2", {"helpfulness": 1.0, "correctness": 2.0}),
     ("1e999", None), ("nan", None), ("reward: high", None), ("a:1,a:2", None), ("1.5 of 4", None)],
)  # fmt: skip
def test_a_reward_is_one_number_or_named_attributes(text, value):
    assert reading.reward(text) == value


def test_only_a_verdict_that_survives_the_swap_is_a_winner():
    def outcome(first: Reply, second: Reply) -> tuple[str, int | None]:
        found = pairwise.verdict(first, second)
        return found.outcome, found.winner

    a, b, c, none = (Reply(f"[[{x}]]") for x in "ABCD")
    cut, failed = Reply("[[A]] is", finished=False), Reply("", error="HTTP 500")
    assert (outcome(a, b), outcome(b, a), outcome(c, c)) == (("consistent", 0), ("consistent", 1), ("tie", None))
    assert {outcome(*pair) for pair in ((a, a), (b, b), (a, c), (c, b))} == {("inconsistent", None)}
    assert {outcome(*pair) for pair in ((a, none), (cut, b))} == {("unreadable", None)}
    assert outcome(failed, none) == outcome(b, failed) == ("failed", None)


def test_points_need_half_of_the_samples():
    seven, none, failed = Reply("[[7]]"), Reply("?"), Reply("", error="HTTP 500")
    assert mean([seven, Reply("[[4]]"), none, failed]).value == 5.5
    assert (mean([seven, none, none]).value, mean([seven, none, none]).outcome) == (None, "unreadable")
    assert mean([failed, failed]).outcome == "failed"


def test_pairwise_compares_every_pair_in_both_orders(tmp_path):
    rows, facts = judged(tmp_path, ROWS, "longest", judge="pairwise")
    assert [[(c["a"], c["b"], c["winner"]) for c in row["comparisons"]] for row in rows] == [
        [(0, 1, 1), (0, 2, 2), (1, 2, 2)], [(0, 2, 2), (1, 2, 2)], [(0, 1, None)], []]  # fmt: skip
    first, second = rows[0]["comparisons"][1]["verdicts"]
    assert (first["first"], first["label"], second["first"], second["label"]) == (0, "B", 2, "A")
    assert rows[2]["comparisons"][0]["outcome"] == "tie"
    assert facts["outcomes"] == {"consistent": 5, "tie": 1, "inconsistent": 0, "unreadable": 0, "failed": 0}
    assert (facts["identical"], facts["prompts_without_comparison"], facts["requests"]) == (1, 1, 12)
    assert (facts["order_consistency"], facts["first_share"]) == (1.0, 0.5)
    text = REPO / "configs" / "prompt" / "judge_pairwise.jinja"
    who = rows[0]["judges"]["pairwise"]
    assert who == {"name": "stub", "sha256": None, "text": "judge_pairwise",
                   "text_sha256": hashlib.sha256(text.read_bytes()).hexdigest()}  # fmt: skip


def test_pairs_can_be_fewer_and_are_drawn_by_seed_and_prompt(tmp_path):
    many = [candidate(f"q{i}", *"abcde") for i in range(6)]
    first, _ = judged(tmp_path / "first", many, "first", judge="pairwise", compare="first")
    assert {(c["a"], c["b"]) for row in first for c in row["comparisons"]} == {(0, i) for i in range(1, 5)}
    drawn, _ = judged(tmp_path / "drawn", many, "first", judge="pairwise", pairs_per_prompt=2)
    alone, _ = judged(tmp_path / "alone", many[3:], "first", judge="pairwise", pairs_per_prompt=2)
    assert {len(row["comparisons"]) for row in drawn} == {2} and drawn[3:] == alone
    assert len({tuple((c["a"], c["b"]) for c in row["comparisons"]) for row in drawn}) > 1


def test_rewards_of_attributes_and_of_one_number_are_exact(tmp_path):
    rows, facts = judged(tmp_path / "attributes", ROWS, "attributes", judge="reward", weights="llama3_70b")
    response = rows[0]["responses"][1]
    assert response["attributes"] == {"helpfulness": 0.375, "correctness": 1.5, "coherence": 3.25, "complexity": -0.125,
                                      "verbosity": 1e-05}  # fmt: skip
    weights = WEIGHTS["llama3_70b"]
    assert response["reward"] == sum(w * response["attributes"][name] for name, w in weights.items())
    assert rows[0]["judges"]["reward"] == {"name": "stub", "sha256": None, "weights": "llama3_70b"}
    rows, facts = judged(tmp_path / "scalar", ROWS, "scalar", judge="reward")
    assert [r["reward"] for r in rows[0]["responses"]] == [-len(r["text"]) / 7 for r in ROWS[0]["responses"]]
    assert facts["responses"] == {"scored": 8, "unreadable": 1, "failed": 0}
    assert facts["prompts"] == {"complete": 3, "incomplete": 1, "without_response": 0}
    assert "reward" not in rows[1]["responses"][2]


def test_judges_chain_and_leave_the_rows_of_others_alone(tmp_path):
    judged(tmp_path / "truth", ROWS, None, judge="truth")
    judged(tmp_path / "pairwise", tmp_path / "truth" / "outputs" / "judged.jsonl", "longest", judge="pairwise")
    source = tmp_path / "pairwise" / "outputs" / "judged.jsonl"
    rows, facts = judged(tmp_path / "points", source, "rating", judge="points")
    assert ["truth" in row["judges"] for row in rows] == [False, True, True, False]
    assert all({"pairwise", "points"} <= row["judges"].keys() for row in rows)
    assert [r["verified"]["correct"] for r in rows[2]["responses"]] == [True, False]
    assert [r["points"] for r in rows[0]["responses"]] == [1, 3, 5] and "points" not in rows[1]["responses"][2]
    assert rows[1]["responses"][2]["points_samples"] == [None] and facts["responses"]["unreadable"] == 1
    stripped = [{k: v for k, v in row.items() if k not in ("judges", "comparisons")} for row in rows]
    assert [row["id"] for row in stripped] == [row["id"] for row in ROWS]
    with pytest.raises(UserInputError, match="row 1 \\(p0\\): judges have points already"):
        judged(tmp_path / "again", rows, "rating", judge="points")


def test_the_truth_says_which_rows_give_a_pair(tmp_path):
    _, facts = judged(tmp_path, ROWS, None, judge="truth")
    assert facts["prompts"] == {"mixed": 1, "all_right": 0, "all_wrong": 1, "without_task": 2}
    assert facts["responses"] == {"right": 1, "wrong": 4}


def test_a_model_that_is_no_judge_stops_the_stage(tmp_path):
    with pytest.raises(StageFailed, match="not one reply of stub holds a judgement"):
        judged(tmp_path / "a", ROWS, "scalar", judge="pairwise")
    assert not (tmp_path / "a" / "outputs").exists()
    with pytest.raises(StageFailed, match="without coherence, complexity, verbosity"):
        judged(tmp_path / "b", ROWS, "two_attributes", judge="reward")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"judge": "oracle"}, "use one of truth, pairwise"), ({"judge": "points", "samples": 3}, "greedy samples"),
     ({"judge": "reward", "weights": "mine"}, "nemotron4_340b"),
     ({"judge": "pairwise", "compare": "best"}, "all or first"),
     ({"judge": "pairwise", "text": "no_such"}, "no such prompt template")],
)  # fmt: skip
def test_settings_that_fit_no_judge_are_refused(tmp_path, changes, message):
    with pytest.raises(UserInputError, match=message):
        judged(tmp_path, ROWS, "longest", **changes)
