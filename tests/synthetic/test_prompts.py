"""Makers of prompts one at a time: settings, constraints, colonies, rewards, shared prompts, and what stops a stage."""

from __future__ import annotations

import json
import random
import re

import pytest

from data_prep.first_turns import first_turns
from data_prep.synthetic.constraints import KINDS, compatible
from data_prep.synthetic.prompts import instruction_following
from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.inputs import Given
from data_prep.synthetic.prompts.instruction_following import draw_ids
from data_prep.synthetic.prompts.openings import Opening, Openings
from data_prep.synthetic.requests import Sampling
from data_prep.template import Template
from data_prep.verify import verify
from recipes.errors import StageFailed, UserInputError
from recipes.pipeline.files import read_config
from recipes.stages import prompts
from tests.synthetic.llm_reply import LLM, lines, settings, write
from tests.synthetic.stub_server import stub

# -- constraints: no model is needed for those of one turn

DRAWS = 300


def constrained(only: str, count: int = 20) -> list:
    """Drafts of prompts that have one constraint, of kind `only`."""
    openings = Openings(0)
    openings.add([Opening(f"What is the capital of country number {n}, and why?", f"o{n}") for n in range(count)])
    options = {"rows": count, "fewest": 1, "most": 1, "turns_share": 0.0, "revise_share": 0.0}
    desk = Desk(None, Sampling(), 7, "instruction_following", Template.load())
    return instruction_following.make(desk, options | {"without": [k for k in KINDS if k != only]}, Given(openings))


# kind: (an answer that meets it, one that does not), from its arguments and the prompt's text
ANSWERS = {
    "punctuation:no_comma": lambda a: ("No comma here.", "Here, there."),
    "change_case:english_lowercase": lambda a: ("it is all small letters here.", "It is not all small."),
    "keywords:existence": lambda a: (" and ".join(a["keywords"]), "Nothing of it."),
    "keywords:forbidden_words": lambda a: ("Zzz.", f"It is {a['forbidden_words'][0]}."),
    "length_constraints:number_words": lambda a: ("word " * a["num_words"], "w " * (a["num_words"] - 1))[
        :: 1 if a["relation"] == "at least" else -1
    ],
    "detectable_format:number_bullet_lists": lambda a: ("* x\n" * a["num_bullets"], "* x\n" * (a["num_bullets"] + 1)),
    "detectable_format:json_format": lambda a: ('{"a": [1, 2]}', "a: 1"),
    "detectable_format:title": lambda a: ("<<A title>>\nText.", "A title\nText."),
    "startend:end_checker": lambda a: (f"Well. {a['end_phrase']}", f"{a['end_phrase']} Well."),
    "startend:quotation": lambda a: ('"All of it."', 'Only "this".'),
    "combination:repeat_prompt": lambda a: (f"{a['prompt_to_repeat']}\nParis.", "Paris."),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_by_hand_is_verified(kind):
    for draft in constrained(kind):
        args = draft.task["constraints"][0]["args"]
        assert draft.details["opening"] in {f"o{n}" for n in range(20)} and len(draft.messages) == 1
        for number in re.findall(r"\d+", json.dumps(args)):
            assert number in draft.messages[0]["content"]  # the user is told every number that counts
        right, wrong = ANSWERS[kind](args)
        assert verify(draft.task, right)["correct"] is True and verify(draft.task, wrong)["correct"] is False


def test_constraints_of_a_prompt_do_not_exclude_each_other():
    sizes = set()
    for seed in range(DRAWS):
        for scope in ("answer", "turns", "revise"):
            ids = draw_ids(random.Random(f"{seed} {scope}"), 4, scope, ["startend:quotation"])
            sizes.add(len(ids))
            assert all(compatible(a, b) for a in ids for b in ids if a != b) and len(set(ids)) == len(ids)
            assert "startend:quotation" not in ids
            assert scope == "answer" or not any(KINDS[name].of_one_prompt for name in ids)
    assert max(sizes) == 4


# -- one or two makers, asked of a server

pytest.importorskip("openai")


@pytest.fixture(scope="module")
def llm():
    with stub(reply=LLM) as url:
        yield url


def run(path, url, sizes, change=lambda cfg: None, **endpoint) -> tuple[dict, dict]:
    """(facts, rows by file)"""
    path.mkdir(exist_ok=True)
    cfg = settings(path, url, sizes, **endpoint)
    change(cfg)
    facts = prompts.main(cfg, path)
    return facts, {file.name: lines(file) for file in (path / "outputs").glob("*.jsonl")}


def test_a_colony_does_not_know_of_the_others(tmp_path, llm):
    def colonies(count):
        sizes = {"genetic_instruct": {"colonies": count, "generations": 2, "children": 8}}
        texts = [{"text": f"Write a function that adds {n}."} for n in range(6)]
        seeds = str(write(tmp_path / "code.jsonl", texts))
        facts, rows = run(tmp_path / str(count), llm, sizes, lambda cfg: cfg["inputs"].update(code_seeds=seeds))
        return {row["id"]: row for row in rows["code.jsonl"]}, rows["lineage.jsonl"], facts

    (one, tree, _), (three, trees, facts) = colonies(1), colonies(3)
    assert one and one.items() <= three.items() and [row for row in trees if row["colony"] == 0] == tree
    assert {parent for row in tree for parent in row["parents"]} & {f"seed:line-{n}" for n in range(1, 7)}
    texts = [row["messages"][0]["content"] for row in three.values()]
    assert len(set(texts)) == len(texts) and facts["counts"]["genetic_instruct"]["asked"] == 48


def test_a_prompt_of_another_data_set_is_dropped(tmp_path, llm):
    sizes = {"user_turns": {"rows": 10}}
    facts, rows = run(tmp_path / "a", llm, sizes)
    shared = rows["prompts.jsonl"][2]["messages"][0]["content"]
    helpsteer = {"prompt": f" {shared.upper()}", "response": "x", "helpfulness": 1, "correctness": 1, "coherence": 1,
                 "complexity": 1, "verbosity": 1}  # fmt: skip
    other = str(write(tmp_path / "other.jsonl", [helpsteer]))
    again, left = run(tmp_path / "b", llm, sizes, lambda cfg: cfg["inputs"].update(disjoint_from=[other]))
    assert again["counts"]["user_turns"]["shared_prompt"] == 1
    assert left["prompts.jsonl"] == [row for row in rows["prompts.jsonl"] if row["messages"][0]["content"] != shared]


def test_dialogues_below_the_reward_are_dropped(tmp_path, llm):
    sizes = {"dialogue": {"rows": 8, "user_turns": 1, "minimum_reward": 0.0}}
    with stub(reply="tests.synthetic.llm_reply:reward", model="judge") as url:
        give = {"url": url, "model": "judge"}
        facts, rows = run(tmp_path, llm, sizes, lambda cfg: cfg["reward"]["endpoint"].update(give))
    counts = facts["counts"]["dialogue"]
    assert counts["low_reward"] > 0 and counts["made"] + counts["low_reward"] == 8
    assert all(row["made_by"]["reward"] >= 0 for row in rows["dialogues.jsonl"])


def test_more_rows_than_first_turns(tmp_path, llm):
    facts, rows = run(tmp_path, llm, {"dialogue": {"rows": 6, "user_turns": 1}, "two_turn": {"rows": 5}})
    assert facts["counts"]["seeds"] == {"asked": 9, "duplicate": 1, "made": 8}
    assert facts["counts"]["dialogue"]["made"] == 6 and facts["counts"]["two_turn"]["no_opening"] == 3
    used = [row["made_by"]["opening"] for file in rows.values() for row in file]
    assert len(set(used)) == len(used)


def test_revisions_take_the_place_of_what_they_revise(tmp_path, llm):
    sizes = {"topics": {"macro": 4, "sub": 0}, "open_qa": {"per_topic": 2, "revisions": 2, "original": True}}
    facts, rows = run(tmp_path, llm, sizes)
    by_id = {row["id"]: row for row in rows["prompts.jsonl"]}
    originals = [name for name, row in by_id.items() if "angle" not in row["made_by"]]
    assert originals and facts["counts"]["open_qa"]["asked"] == 3 * 2 * facts["counts"]["topics"]["made"]
    for name in originals:
        number = int(name.removeprefix("open_qa-"))
        versions = [by_id.get(f"open_qa-{number + k:06d}") for k in (1, 2)]
        assert number % 3 == 0
        for version in filter(None, versions):
            assert version["messages"][0]["content"].startswith(by_id[name]["messages"][0]["content"])
            assert version["made_by"]["texts"].keys() > by_id[name]["made_by"]["texts"].keys()


def test_a_dialogue_of_one_turn_takes_its_opening_out_of_the_prompts(tmp_path, llm):
    sizes = {"user_turns": {"rows": 8}, "dialogue": {"rows": 4, "user_turns": 1}}
    facts, rows = run(tmp_path, llm, sizes, lambda cfg: cfg["inputs"].update(seeds=None))
    counts = facts["counts"]["user_turns"]
    assert facts["counts"]["dialogue"]["made"] == 4 == counts["used_in_dialogue"]
    first = {row["messages"][0]["content"] for row in rows["dialogues.jsonl"]}
    assert not first & {row["messages"][0]["content"] for row in rows["prompts.jsonl"]}


def test_requests_that_fail_for_good_have_their_bucket(tmp_path):
    sizes = {"user_turns": {"rows": 20}}
    with stub(reply=LLM, faults=0.3, kinds="400", seed=3) as url:
        facts, _ = run(tmp_path, url, sizes, failed_share=1.0)
    counts = facts["counts"]["user_turns"]
    assert counts["failed"] > 0 and counts["asked"] == 20 == sum(counts.values()) - 20
    ledger = read_config(tmp_path / "outputs" / "ledger.json")
    assert "400" in ledger["examples"]["user_turns"]["failed"][0]


def test_a_model_that_gives_no_lists_stops_the_stage(tmp_path):
    with stub() as url, pytest.raises(StageFailed, match=r"topics: nothing could be used.*'unreadable': 8"):
        run(tmp_path, url, {"topics": {"macro": 4, "sub": 0}, "open_qa": {"per_topic": 1}})


def test_a_batch_stops_at_each_step_with_the_file_to_run(tmp_path):
    with pytest.raises(StageFailed, match="6 of 6 requests have no answer yet"):
        run(tmp_path, None, {"user_turns": {"rows": 6}}, protocol="batch")


WRONG = {
    "nothing is on": ({}, {}, "every maker is off"),
    "no topics": ({"open_qa": {"per_topic": 2}}, {}, "make.open_qa.per_topic: needs topics"),
    "no keywords": ({"maths": {"per_keyword": 1, "macro": 0}}, {}, "set make.maths.macro"),
    "no documents": ({"closed_qa": {"documents": 3}}, {"documents": None}, "set inputs.documents"),
    "no first turns": ({"two_turn": {"rows": 1}}, {"seeds": None}, "make.two_turn.rows: needs first turns"),
    "no code": ({"genetic_instruct": {"colonies": 1}}, {}, "make.genetic_instruct.colonies: needs seeds"),
    "negative": ({"two_turn": {"rows": -1}}, {}, "make.two_turn.rows: is -1"),
    "no children": ({"genetic_instruct": {"colonies": 1, "children": 0}}, {}, "children: is 0"),
    "one parent": ({"genetic_instruct": {"colonies": 1, "parents": 1}}, {}, "parents: is 1"),
    "a share": ({"topic_following": {"on_topic_share": 2}}, {}, "on_topic_share: is 2"),
    "shares": ({"instruction_following": {"turns_share": 0.8, "revise_share": 0.8}}, {}, "more than 1 together"),
    "a kind": ({"instruction_following": {"without": ["startend:quotatoin"]}}, {}, "known: startend:quotation"),
    "a level": ({"coding": {"levels": ["guru"]}}, {}, "names 'guru'"),
    "no levels": ({"maths": {"per_keyword": 1, "levels": []}}, {}, "make.maths.levels: is []"),
}


@pytest.mark.parametrize("sizes, inputs, message", WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused_before_anything_is_asked(tmp_path, sizes, inputs, message):
    with pytest.raises(UserInputError, match=re.escape(message)):
        run(tmp_path, "http://127.0.0.1:9/v1", sizes, lambda cfg: cfg["inputs"].update(inputs))
    assert not (tmp_path / "data").exists()


ROWS = {
    "prompts": {"id": "p", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]},
    "texts": {"id": "p", "text": "hi"},
    "NeMo's chats": {"id": "p", "system": "", "mask": "User",
                     "conversations": [{"from": "User", "value": "hi"}, {"from": "Assistant", "value": "ho"}]},
    "pairs": {"id": "p", "prompt": "hi", "chosen": "a", "rejected": "b", "chosen_reward": 1, "rejected_reward": 0},
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_first_turns_of_any_layout(tmp_path, row):
    assert list(first_turns(write(tmp_path / "rows.jsonl", [row, row]), Template.load())) == [("p", "hi")] * 2


@pytest.mark.parametrize("row", [{"messages": []}, {"messages": [{"role": "user"}]}, {"text": "<extra_id_1>"}])
def test_a_row_without_a_usable_first_turn_is_refused_at_its_line(tmp_path, row):
    path = write(tmp_path / "rows.jsonl", [ROWS["prompts"] if "messages" in row else ROWS["texts"], row])
    with pytest.raises(UserInputError) as caught:
        list(first_turns(path, Template.load()))
    assert caught.value.problems[0].where == f"{path}:2"
