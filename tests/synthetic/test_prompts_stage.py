"""The prompts stage with every maker on, asked of a server over HTTP: what comes out, whatever happens on the way."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

import pytest

from data_prep.prompts import read_prompts
from data_prep.sources import Context, convert, detect
from data_prep.synthetic.constraints import KINDS
from data_prep.synthetic.prompts.genetic import MUTATIONS
from data_prep.synthetic.texts import PROMPT_DIR
from data_prep.template import Template
from data_prep.verify import verify
from recipes.pipeline.files import read_config
from tests.synthetic.llm_reply import LLM, SIZES, lines, settings, start
from tests.synthetic.stub_server import stub

pytest.importorskip("openai")
FILES = ("prompts.jsonl", "dialogues.jsonl", "code.jsonl", "lineage.jsonl", "ledger.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(outputs directory, requests that were answered) of a run that nothing disturbed."""
    desk = tmp_path_factory.mktemp("prompts")
    with stub(reply=LLM, log=desk / "paid") as url:
        process = start(desk / "stage", settings(desk, url, SIZES))
        assert process.wait(timeout=300) == 0, (desk / "stage" / "log").read_text()[-3000:]
    return desk / "stage" / "outputs", (desk / "paid").read_text().split()


@pytest.fixture(scope="module")
def ledger(run) -> dict:
    return read_config(run[0] / "ledger.json")


def first_turn(row: dict) -> str:
    return next(" ".join(m["content"].lower().split()) for m in row["messages"] if m["role"] == "user")


def test_every_maker_made_something_and_its_buckets_add_up(run, ledger):
    made = Counter(row["source"].removeprefix("synthetic_") for file in FILES[:3] for row in lines(run[0] / file))
    between = {"seeds", "topics", "maths_keywords", "coding_keywords"}
    assert set(SIZES) | between == set(ledger["makers"])
    for maker, books in ledger["makers"].items():
        assert books["made"] > 0 and books["asked"] == sum(books.values()) - books["asked"], maker
        assert books["made"] == made[maker] or maker in between
    buckets = {bucket for books in ledger["makers"].values() for bucket in books}
    assert buckets >= {"unreadable", "missing", "unfinished", "control_token", "only_filler", "too_long",
                       "used_in_dialogue", "off_subject", "duplicate", "no_code", "unfit"}  # fmt: skip
    assert ledger["examples"]["coding_keywords"]["off_subject"]


def test_the_next_stages_read_the_rows(run):
    template = Template.load()
    prompts = read_prompts(run[0] / "prompts.jsonl", template)  # checks turns, tokens, ids and doubles
    assert not any(row["human"] for row in prompts)
    for file in ("dialogues.jsonl", "code.jsonl"):
        rows = lines(run[0] / file)
        schema = detect("sft", rows[0], file)
        for number, row in enumerate(rows, 1):
            record = convert(schema, row, number, Context(template))
            template.conversation([*record.messages, {"role": "assistant", "content": record.chosen.text}])
            assert record.source == row["source"]


def test_rows_say_which_texts_made_them(run):
    known = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in PROMPT_DIR.glob("*.jinja")}
    used: set[str] = set()
    for file in FILES[:3]:
        for row in lines(run[0] / file):
            assert row["made_by"]["model"] == "stub" and row["made_by"]["texts"].items() <= known.items()
            used.update(row["made_by"]["texts"])
    assert used == {name for name in known if not name.startswith("judge_")}


def test_dialogues_share_no_first_turn_with_prompts(run):
    dialogues, prompts = (lines(run[0] / name) for name in FILES[1::-1])
    assert not {first_turn(row) for row in dialogues} & {first_turn(row) for row in prompts}
    for row in dialogues:
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 3
        assert not any("hank" in m["content"] for m in row["messages"] if m["role"] == "user")


def test_shapes_of_conversations(run):
    shapes = {"two_turn": "uau", "topic_following": "suauau"}
    seen = Counter()
    for row in lines(run[0] / "prompts.jsonl"):
        shape, maker = "".join(m["role"][0] for m in row["messages"]), row["source"].removeprefix("synthetic_")
        scope = row["made_by"].get("scope")
        assert shape == shapes.get(maker, "uau" if scope in ("turns", "revise") else "u"), row["id"]
        if maker == "topic_following":
            seen["distractor" if row["made_by"]["distractor"] else "on topic"] += 1
            assert ("topic_following_distractor" in row["made_by"]["texts"]) is row["made_by"]["distractor"]
        seen[scope] += 1
    assert all(seen[name] for name in ("distractor", "on topic", "answer", "turns", "revise"))


def test_constraints_stand_where_they_belong_and_are_verified(run):
    for row in lines(run[0] / "prompts.jsonl"):
        if row["source"] != "synthetic_instruction_following":
            continue
        first, last, scope = row["messages"][0]["content"], row["messages"][-1]["content"], row["made_by"]["scope"]
        for constraint in row["task"]["constraints"]:
            kind, args = KINDS[constraint["id"]], constraint["args"]
            wordings = [wording(**args) for wording in kind.wordings]
            assert any(wording in (last if scope == "revise" else first) for wording in wordings), row["id"]
            if scope == "turns":
                assert not any(wording in last for wording in wordings)
        assert verify(row["task"], " ")["correct"] is False


def test_the_family_tree_of_the_code(run):
    tree = {row["id"]: row for row in lines(run[0] / "lineage.jsonl")}
    code = lines(run[0] / "code.jsonl")
    made = {name for name, row in tree.items() if row["bucket"] == "made"}
    assert {row["id"] for row in code} == made and len(tree) == 2 * 3 * 6
    seeds = {row["id"] for row in lines(run[0] / "prompts.jsonl") if row["source"] == "synthetic_coding"}
    for row in tree.values():
        count = len(row["parents"])
        assert count > 1 if row["operation"] == "crossover" else row["operation"] in MUTATIONS and count == 1
        assert len(set(row["parents"])) == count
        for parent in row["parents"]:
            if parent in tree:
                other = tree[parent]
                assert (other["colony"], other["bucket"]) == (row["colony"], "made") or other["bucket"] == "duplicate"
                assert other["generation"] < row["generation"]
            else:
                assert parent in seeds or parent.startswith("coding-")  # one that became a dialogue's opening
    assert any(parent in tree for row in tree.values() for parent in row["parents"])
    assert {row["generation"] for row in tree.values()} == {1, 2, 3}


def test_killed_and_started_again_it_ends_with_the_same_files_and_asks_nothing_twice(run, tmp_path):
    outputs, paid = run
    stage, log = tmp_path / "stage", tmp_path / "paid"
    log.touch()
    with stub(reply=LLM, log=log, latency=0.005, faults=0.1, kinds="429,500,broken_json", fault_attempts=2) as url:
        cfg = settings(tmp_path, url, SIZES, in_flight=5)
        for share in (0.1, 0.5, 0.8):
            process = start(stage, cfg)
            deadline = time.time() + 240
            while len(log.read_text().split()) < share * len(paid):
                assert process.poll() is None and time.time() < deadline, (stage / "log").read_text()[-3000:]
                time.sleep(0.01)
            process.kill()
            process.wait()
        assert not (stage / "outputs").exists()
        assert start(stage, cfg).wait(timeout=240) == 0, (stage / "log").read_text()[-3000:]
    for name in FILES:
        assert (stage / "outputs" / name).read_bytes() == (outputs / name).read_bytes(), name
    again = Counter(log.read_text().split())
    in_flight = 3 * 5  # answered while the process was being killed
    assert set(again) == set(paid) and sum(again.values()) - len(again) <= in_flight + len(paid) - len(set(paid))
