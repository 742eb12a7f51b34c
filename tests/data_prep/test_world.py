"""The tiny world: reproducible, truthful, without leaks between its files, and short enough for its sequence length."""

from __future__ import annotations

import copy
import random
import time
from collections import Counter

import pytest
import yaml

from data_prep.prepare import prepare
from data_prep.prompts import read_prompts
from data_prep.records import HELPSTEER_SLOTS
from data_prep.verify import verify
from data_prep.world import answers, code, skills
from data_prep.world.splits import core, split_of
from recipes.errors import UserInputError
from recipes.stages.world import main
from tests.data_prep.conftest import REPO

LISTS = skills.Lists.of(6, 8, 3)


def tasks(count=400, seed=5) -> list[dict]:
    rng = random.Random(seed)
    listed = [skills.draw(rng, name, LISTS, 0.5) for name in skills.SKILLS for _ in range(count // len(skills.SKILLS))]
    return listed + [code.draw(rng, 3) for _ in range(count // 4)]


def ids(task: dict) -> str:
    return code.ask(task) if task["type"] == "code" else skills.ask(task)


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, world, world_config):
    main(world_config, tmp_path / "again")
    for path in world.iterdir():
        assert path.read_bytes() == (tmp_path / "again/outputs" / path.name).read_bytes(), path.name
    main(world_config | {"seed": 99}, tmp_path / "other")
    assert (world / "human.jsonl").read_bytes() != (tmp_path / "other/outputs/human.jsonl").read_bytes()


def test_the_size_of_one_file_leaves_the_others_alone(tmp_path, world, world_config):
    config = copy.deepcopy(world_config)
    config["sizes"]["corpus"] = 10
    main(config, tmp_path)
    for name in ("general_sft", "human", "eval_prompts", "prompts_round3"):
        assert (world / f"{name}.jsonl").read_bytes() == (tmp_path / f"outputs/{name}.jsonl").read_bytes()


def test_sizes_are_what_was_asked_for(world, world_config, read):
    sizes = dict(world_config["sizes"])
    rounds, each = sizes.pop("rounds"), sizes.pop("prompts")
    for name, count in {**sizes, **{f"prompts_round{i}": each for i in range(rounds)}}.items():
        assert len(read(world / f"{name}.jsonl")) == count, name


@pytest.mark.parametrize("task", [
    ({"type": "skill", "skill": "reverse", "items": ["a", "b", "c"], "constraint": None}, "c b a"),
    ({"type": "skill", "skill": "reverse", "items": ["a", "b", "c"], "constraint": "reverse_order"}, "a b c"),
    ({"type": "skill", "skill": "sort", "items": ["7", "2", "5"], "constraint": None}, "2 5 7"),
    ({"type": "skill", "skill": "last", "items": ["a", "c"], "constraint": None}, "c"),
    ({"type": "skill", "skill": "first", "items": ["a", "c"], "constraint": None}, "a"),
    ({"type": "skill", "skill": "count", "items": ["a", "c", "b"], "constraint": None}, "3"),
    ({"type": "skill", "skill": "max", "items": ["3", "7"], "constraint": None}, "7"),
    ({"type": "skill", "skill": "min", "items": ["3", "7"], "constraint": None}, "3"),
    ({"type": "skill", "skill": "add", "items": ["7", "7"], "constraint": None}, "14"),
    ({"type": "code", "steps": [["reverse"], ["first", 2]]}, "x [::-1] [:2]"),
    ({"type": "code", "steps": [["sort"], ["last", 3], ["max"]]}, "max ( sorted ( x ) [-3:] )"),
], ids=lambda pair: pair[1])  # fmt: skip
def test_right_answers_worked_out_by_hand(task):
    task, answer = task
    assert " ".join(answers.solution(task)) == answer
    assert verify(task, f"the answer is {answer} .")["correct"]


def test_right_answers_verify_and_corrupted_ones_do_not():
    rng = random.Random(1)
    for task in tasks():
        right, wrong = answers.solution(task), answers.corrupt(task, 0.5, skills.Lists.of(6, 8, 3), rng)
        for say in (answers.good, lambda t, w: answers.ramble(t, w, rng), lambda t, w: answers._wrap(t, " ".join(w))):
            assert verify(task, say(task, right))["correct"], (ids(task), say(task, right))
            assert not verify(task, say(task, wrong))["correct"], (ids(task), say(task, wrong))


def test_code_answers_are_judged_by_what_they_do():
    task = {"type": "code", "steps": [["reverse"], ["first", 2]]}
    for text in ("x[::-1][:2]", "x [-2:] [::-1]", "x[:-3:-1]"):
        assert verify(task, f"the answer is {text} .")["correct"], text
    for text in ("x[:2][::-1]", "x", "x[::-1][:2", "list(reversed(x))[:2]", "x[::-1][:2] + []"):
        assert not verify(task, f"the answer is {text} .")["correct"], text


@pytest.mark.parametrize("text", [
    "__import__('os')", "x.__class__", "(lambda: x)()", "[y for y in x]", "x[10 ** 9]", "x * 9", "sorted(x, key=len)",
    "sorted(*x)", "max(x, x)", "x[0][0]", "len(len(x))", "x[::0]", "max(x[:0])", "sorted(" * 40 + "x" + ")" * 40,
    "(" * 300 + "x" + ")" * 300, "x[100]", "x['a']", "x[True]", "", "x\x00", "x x",
])  # fmt: skip
def test_the_evaluator_refuses_everything_else(text):
    with pytest.raises(code.NotAllowed):
        code.evaluate(text, [3, 1, 2])


def test_manner_prefers_one_polite_clean_sentence():
    task = {"type": "skill", "skill": "reverse", "items": ["a", "b"], "constraint": None}
    quality = {say: verify(task, say)["quality"] for say in (
        "the answer is b a .", "b a", "the answer is b a . again , the answer is b a .", "the answer is b a . of x",
        "the answer is a b .", "")}  # fmt: skip
    best, curt, twice, junk, wrong, nothing = quality.values()
    assert best == 1.0 and best > max(curt, twice, junk) and min(curt, twice, junk) > wrong > nothing == 0.0


def test_a_constraint_must_be_kept():
    task = {"type": "skill", "skill": "last", "items": ["a", "b"], "constraint": "end_done"}
    assert verify(task, "the answer is b . done")["correct"]
    broken = verify(task, "the answer is b .")
    assert broken["answer_right"] and not broken["constraint_met"] and not broken["correct"]


def test_contradicting_answers_are_wrong():
    task = {"type": "skill", "skill": "last", "items": ["a", "b"], "constraint": None}
    assert not verify(task, "the answer is b . again , the answer is a .")["correct"]


def test_any_text_can_be_verified():
    rng = random.Random(3)
    words = ["the", "answer", "is", ".", ",", "sure", "done", "again", "x", "(", "[::-1]", "é", "\n", "b"]
    for task in tasks(80):
        for _ in range(20):
            verdict = verify(task, " ".join(rng.choices(words, k=rng.randint(0, 12))))
            assert 0 <= verdict["quality"] <= 1 and 0 <= verdict["closeness"] <= 1 and 0 <= verdict["manner"] <= 1


def test_no_task_is_in_two_splits_and_prompts_differ(world, world_config):
    files = [f"prompts_round{i}" for i in range(4)] + ["eval_prompts"]
    prompts = {name: read_prompts(world / f"{name}.jsonl") for name in files}
    texts = [row["messages"][-1]["content"] for rows in prompts.values() for row in rows]
    assert len(texts) == len(set(texts))
    held_out = {core(row["task"]) for row in prompts["eval_prompts"]}
    others = {core(row["task"]) for name in files[:-1] for row in prompts[name]}
    assert not held_out & others
    assert {split_of(row["task"], world_config["seed"]) for row in prompts["eval_prompts"]} == {"evaluation"}


def test_evaluation_tasks_are_in_no_training_file(world, read):
    """By wording: the question without opener and constraint. Facts (an addition table) may be stated in the corpus."""
    facts = {name for name, skill in skills.SKILLS.items() if skill.fact}
    tasks = [row["task"] for row in read(world / "eval_prompts.jsonl")]
    procedures = {ids(t | {"constraint": None}) for t in tasks if t.get("skill") not in facts}
    everything = {ids(t | {"constraint": None}) for t in tasks}

    def question(prompt: str) -> str:
        return prompt.split(" ", 1)[1].split(" and end ")[0].split(" and start ")[0].split(" and reply ")[0]

    chat = [
        row["messages"][0]["content"] for name in ("code_sft", "general_sft") for row in read(world / f"{name}.jsonl")
    ]
    chat += [row["prompt"] for row in read(world / "human.jsonl")]
    assert not everything & set(map(question, chat))
    corpus = [line for row in read(world / "corpus.jsonl") for line in row["text"].split("\n")]
    assert not procedures & {question(line) for line in corpus if " " in line}


def test_the_teacher_errs_as_often_as_configured(tmp_path, world_config):
    config = copy.deepcopy(world_config)
    config["sizes"]["general_sft"] = 2000
    facts = main(config, tmp_path)
    faults = config["teacher_faults"]
    # a right answer is spoilt by a wrong one, by a garbled one in three, or by a missed constraint
    missed = faults["missed"] * config["tasks"]["constraint_share"] * 0.8
    expected = (1 - faults["wrong"]) * (1 - faults["garbled"] / 3) * (1 - missed)
    assert facts["answers"]["general_sft"]["correct"] == pytest.approx(expected, abs=0.04)
    config["teacher_faults"] = dict.fromkeys(faults, 0.0)
    perfect = main(config, tmp_path)["answers"]["general_sft"]
    assert perfect == {"correct": 1.0, "manner": 1.0}


def test_ratings_follow_the_truth_through_noise(world, read):
    """Right answers are rated higher, long ones as more verbose; the same row never gets the same noise twice."""
    rows = read(world / "human.jsonl")
    assert all(row["human"] and row["simulated"] for row in rows)
    assert all(row[name] in range(5) for row in rows for name in HELPSTEER_SLOTS)
    assert len(Counter(row["helpfulness"] for row in rows)) == 5
    pairs = list(zip(rows[::2], rows[1::2]))
    assert all(a["prompt"] == b["prompt"] and a["response"] != b["response"] for a, b in pairs)
    longer = [max(p, key=lambda r: len(r["response"]))["verbosity"] for p in pairs]
    shorter = [min(p, key=lambda r: len(r["response"]))["verbosity"] for p in pairs]
    assert sum(longer) > sum(shorter) * 1.3


def test_general_sft_keeps_its_share_of_code(tmp_path, world_config, read):
    config = copy.deepcopy(world_config)
    config["sizes"]["general_sft"] = 3000
    main(config, tmp_path)
    rows = read(tmp_path / "outputs/general_sft.jsonl")
    share = sum(row["source"] == "tiny_teacher_code" for row in rows) / len(rows)
    assert share == pytest.approx(0.02, abs=0.01)


def test_everything_fits_the_sequence_length(world, template, tokenizer, tmp_path):
    """At 64 tokens no row of any file is over-long, and the longest prompt leaves room for 32 new tokens."""
    kinds = {"corpus": "text", "corpus_validation": "text", "code_sft": "sft", "general_sft": "sft", "human": "reward",
             "human_validation": "reward"}  # fmt: skip
    for name, kind in kinds.items():
        done = prepare(kind, world / f"{name}.jsonl", tmp_path, name, template, tokenizer, 64)
        assert done.counts == {"kept": done.rows}
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    for i in range(4):
        for row in read_prompts(world / f"prompts_round{i}.jsonl"):
            assert len(model.encode(template.prompt(row["messages"]))) <= 64 - 32


def test_a_world_without_enough_prompts_says_so(tmp_path, world_config):
    config = copy.deepcopy(world_config)
    config["sizes"]["prompts"] = 5000
    with pytest.raises(UserInputError, match="different prompts"):
        main(config, tmp_path)


def test_the_shipped_world_is_generated_fast(tmp_path):
    """Processor time, so that a busy machine does not fail it. The aim is 3 seconds; the bound is for slow machines."""
    config = yaml.safe_load((REPO / "configs/stage/world.yaml").read_text())
    started = time.process_time()
    facts = main(config, tmp_path)
    assert time.process_time() - started < 8
    assert facts["rows"]["corpus"] == config["sizes"]["corpus"]
    assert facts["human_share"] == pytest.approx(3000 / (6000 + 6000 + 2048 + 3000), abs=1e-3)


def test_every_prompt_is_read_back_into_its_task(world):
    from data_prep.world.reading import read

    rows = [row for name in ("prompts_round0", "eval_prompts") for row in read_prompts(world / f"{name}.jsonl")]
    assert [read(row["messages"][0]["content"]) for row in rows] == [row["task"] for row in rows]


NO_TASKS = [
    "", "add 1 and 2", "please add a and 3", "please add 3", "now sort b a and", "so sort b", "please  sort b a",
    "then max of 1 2 and then stop", "so write code for x : first", "please write code for x : sort 3",
    "now write code for x : count , then add", "now write code for x : first 9",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_TASKS)
def test_what_the_world_would_not_ask_is_no_task(text):
    from data_prep.world.reading import read

    assert read(text) is None
