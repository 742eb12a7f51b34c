"""The audit of judges: the tests and the interval are right, the probes are balanced, and judges whose bias is known
are caught at it and at nothing else, over the real protocol."""

from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest

from data_prep.jsonl import write_rows
from data_prep.synthetic import probes
from data_prep.synthetic.audit import Settings
from data_prep.synthetic.audit_sets import read_set
from data_prep.synthetic.audit_statistics import fisher, share, sign_test
from data_prep.template import Template
from recipes.errors import UserInputError
from recipes.pipeline.files import read_config
from recipes.stages import audit as stage
from tests.real_data import DATA, MISSING
from tests.synthetic import judge_replies
from tests.synthetic.stub_server import stub

REPO = Path(__file__).resolve().parents[2]
LABELLED = [
    {"instruction": f"say {i}", "output_1": f"{i} {'x' * 40}", "output_2": f"{i}", "preference": 1 + i % 2,
     "generator_1": "gpt-4o", "generator_2": "other"}
    for i in range(40)
]  # fmt: skip


def config(url: str, judge: str = "pairwise", **changes) -> dict:
    """The config of the stage as the base has it, with a stub behind it."""
    cfg = read_config(REPO / "configs" / "stage" / "audit.yaml")
    cfg["endpoint"] |= {"url": url, "model": "stub", "failed_share": 1.0, "retries": 0}
    cfg |= {"stage": "audit", "judge": judge, "own_family": {"names": [], "mark": judge_replies.MARK}}
    cfg["inputs"]["sets"] = [str(path) for path in changes.pop("sets", ())]
    return cfg | changes


def audited(tmp_path: Path, reply: str, name: str = "audit", **changes) -> dict:
    with stub(reply=f"tests.synthetic.judge_replies:{reply}") as url:
        (tmp_path / name).mkdir(exist_ok=True)
        stage.main(config(url, **changes), tmp_path / name)
    return json.loads((tmp_path / name / "outputs" / "audit.json").read_text())


# -- statistics


def test_fishers_test_is_the_exact_one():
    def exact(a, b, c, d):
        row, rest, column = a + b, c + d, a + c
        weight = {x: comb(row, x) * comb(rest, column - x) for x in range(max(0, column - rest), min(row, column) + 1)}
        return float(Fraction(sum(w for w in weight.values() if w <= weight[a]), sum(weight.values())))

    tables = [(1, 9, 11, 3), (0, 10, 10, 0), (5, 5, 5, 5), (0, 0, 3, 4), (8, 2, 1, 5), (40, 60, 20, 80), (3, 0, 0, 0)]
    for table in tables:
        assert fisher(*table) == pytest.approx(exact(*table), rel=1e-9), table


def test_the_sign_test_is_the_exact_one():
    for plus, minus in ((0, 0), (1, 0), (5, 5), (9, 1), (30, 60), (4, 3)):
        n, tail = plus + minus, sum(comb(plus + minus, k) for k in range(min(plus, minus) + 1))
        assert sign_test(plus, minus) == pytest.approx(min(1, 2 * tail / 2**n)), (plus, minus)
    assert math.isfinite(sign_test(30_000, 31_000))


def test_wilsons_interval_as_published():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for part, whole, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
                                   (1, 29, 0.0061, 0.1718)):  # fmt: skip
        found = share(part, whole)
        assert (round(found["low"], 4), round(found["high"], 4)) == (low, high)
    assert share(0, 0) is None and share(7, 7)["high"] == 1.0


# -- probes


def test_probes_are_balanced_and_their_answers_are_right_and_wrong():
    made = probes.make(200, "Certainly!", 7)
    cells = Counter((p.right, p.padded == p.right, p.marked == p.right) for p in made)
    assert set(cells.values()) == {25} and len(cells) == 8
    assert len({p.question for p in made}) == 200
    for p in made:
        right, wrong = p.answers[p.right], p.answers[1 - p.right]
        assert len(p.answers[p.padded]) > len(p.answers[1 - p.padded]) + 100
        assert p.answers[p.marked].startswith("Certainly! ")
        assert not p.answers[1 - p.marked].startswith("Certainly!")
        if " + " in p.question or " times " in p.question:
            truth = eval(p.question[len("What is ") : -1].replace("times", "*"))
            assert f" {truth}." in right and f" {truth}." not in wrong
    assert probes.make(200, "Certainly!", 7) == made != probes.make(200, "Certainly!", 8)


def test_probes_that_cannot_be_balanced_are_refused():
    with pytest.raises(UserInputError, match="multiple of 8"):
        probes.make(100, "", 0)


# -- judges whose bias is known


@pytest.mark.parametrize(
    ("reply", "bias", "toward"),
    [("first", "position", "first"), ("longest", "length", "longer"), ("family", "own_family", "own")],
)
def test_a_biased_judge_is_caught_at_its_bias_and_at_no_other(tmp_path, reply, bias, toward):
    found = audited(tmp_path, reply)["biases"]
    assert {name for name, entry in found.items() if entry["verdict"] == "detected"} == {bias}
    assert (found[bias]["toward"], found[bias]["effect"]) == (toward, 1.0)


def test_an_honest_judge_with_random_errors_passes(tmp_path):
    result = audited(tmp_path, "honest")
    assert {entry["verdict"] for entry in result["biases"].values()} == {"not detected"}
    (measured,) = result["sets"]
    assert measured["accuracy_of_decided"]["share"] > 0.95  # wrong only where both orders err: 1 in 82
    assert 0.7 < measured["order_consistency"] < 0.9  # 0.9^2 + 0.1^2 = 0.82
    assert sum(measured["outcomes"].values()) == 200 and result["overall"] is None


def test_unreadable_cut_and_failed_replies_are_counted_and_are_not_right(tmp_path):
    (measured,) = audited(tmp_path, "troubled")["sets"]
    made = probes.make(200, judge_replies.MARK, 1234)
    unreadable = sum(" + " in p.question or " times " in p.question for p in made)
    failed = sum("Which day" in p.question for p in made)
    rest = 200 - unreadable - failed
    assert measured["outcomes"] == {"consistent": rest, "tie": 0, "inconsistent": 0, "unreadable": unreadable,
                                    "failed": failed}  # fmt: skip
    assert (measured["accuracy_of_all"]["part"], measured["accuracy_of_all"]["whole"]) == (rest, 200)
    assert measured["accuracy_of_decided"]["share"] == 1.0
    assert sum(place["none"] for place in measured["labels"].values()) == 2 * (unreadable + failed)


def test_a_resumed_audit_asks_nothing_again_and_writes_the_same(tmp_path):
    """The second start has no server at all: every answer comes from what the first one kept."""
    write_rows(tmp_path / "labelled.jsonl", LABELLED)
    given = {"sets": [tmp_path / "labelled.jsonl"], "own_family": {"names": ["GPT-4*"], "mark": "Certainly!"}}
    audited(tmp_path, "longest", **given)
    written = tmp_path / "audit" / "outputs" / "audit.json"
    before = written.read_bytes()
    written.unlink()
    with stub(reply="tests.synthetic.judge_replies:first") as url:  # other answers, were it asked
        stage.main(config(url, **given), tmp_path / "audit")
    assert written.read_bytes() == before


def test_the_own_family_is_found_by_the_names_in_a_set(tmp_path):
    write_rows(tmp_path / "labelled.jsonl", LABELLED)
    own = {"names": ["GPT-4*"], "mark": ""}
    result = audited(tmp_path, "longest", probes=0, sets=[tmp_path / "labelled.jsonl"], own_family=own)
    (family,) = [test for test in result["tests"] if test["bias"] == "own_family"]
    assert family["counts"] == {"errors_worse": 20, "decided_worse": 20, "errors_better": 0, "decided_better": 20}
    assert family["verdict"] == "detected" and not family["controlled"]  # an observation on a set, no experiment
    assert result["biases"]["own_family"]["verdict"] == "not tested"
    assert result["biases"]["own_family"]["observed_on"] == ["labelled"]
    assert result["overall"]["accuracy_of_all"]["share"] == 0.5


def test_few_pairs_are_said_to_be_few(tmp_path):
    found = audited(tmp_path, "longest", probes=8)["biases"]
    assert {entry["verdict"] for entry in found.values()} == {"too few pairs"}


def test_a_judge_of_points_is_audited_too(tmp_path):
    """rating() gives a point for each word, so it follows length; it sees no order."""
    result = audited(tmp_path, "rating", judge="points")
    (measured,) = result["sets"]
    assert "labels" not in measured and "position" not in {test["bias"] for test in result["tests"]}
    assert result["biases"]["length"]["toward"] == "longer" and result["biases"]["position"]["verdict"] == "not tested"


# -- sets


def test_what_a_set_cannot_give_is_counted(tmp_path):
    rows = [*LABELLED[:6], LABELLED[0] | {"preference": 1.5}, LABELLED[0] | {"preference": 0},
            LABELLED[0] | {"output_2": LABELLED[0]["output_1"]}]  # fmt: skip
    write_rows(tmp_path / "set.jsonl", rows)
    found = read_set(tmp_path / "set.jsonl", "set", [], 4, 0, Template.load())
    assert found.left_out == {"bad_label": 1, "identical": 1, "label_tie": 1}
    assert (len(found.pairs), found.not_drawn) == (4, 2)


def test_settings_that_make_no_test_are_refused():
    with pytest.raises(UserInputError, match="significance"):
        Settings(significance=0)


def test_rows_of_a_truth_judge_are_a_labelled_set(tmp_path):
    def row(number: int, *right: bool) -> dict:
        responses = [{"text": f"{number} {i}", "verified": {"correct": r}} for i, r in enumerate(right)]
        return {"messages": [{"role": "user", "content": f"task {number}"}], "responses": responses}

    no_task = {"messages": [{"role": "user", "content": "hi"}], "responses": [{"text": "a"}, {"text": "b"}]}
    rows = [no_task, row(1, True, False), row(2, True, True), row(3, False, False), row(4, False, True, True)]
    write_rows(tmp_path / "judged.jsonl", rows)
    found = read_set(tmp_path / "judged.jsonl", "judged", [], 0, 0, Template.load())
    assert found.left_out == {"all_right": 1, "all_wrong": 1, "not_verified": 1}
    assert [pair.responses[pair.right] for pair in found.pairs][0] == "1 0"
    assert found.pairs[1].responses[1 - found.pairs[1].right] == "4 0"


@pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
def test_real_sets(tmp_path):
    """What two judges without judgement reach on real labels."""
    sets = [
        DATA / "pref_human" / "llmbar_all.jsonl.gz",
        DATA / "pref_human" / "pandalm_testset_v1.json.gz",
        DATA / "pref_human" / "hh_rlhf_harmless_base_test.jsonl.gz",
        DATA / "pref_truth" / "m_ifeval_en_verified_responses.jsonl.gz",
    ]
    longest = audited(tmp_path, "longest", "longest", probes=0, pairs_per_set=100, sets=sets)
    assert [entry["pairs"] for entry in longest["sets"]] == [100] * 4
    for entry in longest["sets"]:
        assert entry["order_consistency"] == 1.0 and entry["outcomes"]["inconsistent"] == 0
    first = audited(tmp_path, "first", "first", probes=0, pairs_per_set=100, sets=sets)
    for entry in first["sets"]:
        assert entry["outcomes"]["inconsistent"] == 100 and entry["accuracy_of_all"]["part"] == 0
    assert first["biases"]["position"]["toward"] == "first"
