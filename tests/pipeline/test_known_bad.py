"""Everything in docs/refused.md is built for real, on a recipe that is shipped, and refused by the rule of its row.

The cases are in tests/pipeline/known_bad/: configs.yaml (settings and checkpoints) and rows.yaml (data).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from recipes.errors import UserInputError
from recipes.pipeline.checks import check_data, check_pipeline, check_run_dir, data, failures
from recipes.pipeline.config import compose
from tests.pipeline import checkpoints

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs/refused.md"
CONFIGS, ROWS = (yaml.safe_load((HERE / f"known_bad/{name}.yaml").read_text()) for name in ("configs", "rows"))
STARTS = ("code_sft", "reward")
LONG = " ".join(["some word"] * 3000)

LLAMA3_70B = {
    "num_layers": 80, "hidden_size": 8192, "ffn_hidden_size": 28672, "num_attention_heads": 64, "kv_channels": 128,
    "activation": "fast-swiglu", "normalization": "rmsnorm", "layernorm_zero_centered_gamma": False,
    "rotary_percentage": 1.0, "rotary_base": 500000, "pieces": 128256,
}  # fmt: skip
DAMAGE = {
    "killed save": lambda path: (path / "model_weights-unfinished").touch(),
    "empty shard": lambda path: (path / "model_weights/__0_0.distcp").write_bytes(b""),
    "no index": lambda path: (path / "model_weights/.metadata").unlink(),
    "no tokenizer": lambda path: (path / checkpoints.TOKENIZER).unlink(),
}
USER, BOT = {"role": "user", "content": "reverse the list a b"}, {"role": "assistant", "content": "b a"}
RATING = "<extra_id_0>System\n\n<extra_id_1>User\nhi\n<extra_id_1>Assistant\nyo {}\n<extra_id_2>"
# A sound row of each kind, of which `number` makes another one.
SOUND = {
    "sft": lambda number: {"messages": [USER, {"role": "assistant", "content": f"b a {number}"}]},
    "reward": lambda number: {"text": RATING.format(number), "label": [-100.0] * 4 + [4.0, 3.0, 4.0, 0.0, number % 5]},
    "preference": lambda number: {
        "prompt": [USER], "chosen": f"b a {number}", "rejected": "a b", "chosen_reward": 2.0 + number,
        "rejected_reward": 1.0,
    },
}  # fmt: skip
KIND = {"generate1": "prompts", "code_sft": "sft", "reward": "reward", "dpo": "preference", "rpo": "preference"}


def rows(kind: str, count: int) -> str:
    if kind == "prompts":
        return prompts(count)
    return "".join(json.dumps(SOUND[kind](number)) + "\n" for number in range(count))


def prompts(count: int) -> str:
    rows = ({"id": n, "messages": [{"role": "user", "content": f"reverse the list a {n}"}]} for n in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with every file that the recipes name, and the checkpoints `base` (340B) and `llama`."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("code_sft", "general_sft", "dpo", "reward", "reward_validation"):
        for file in ("train", "validation"):
            path = folder / f"datasets/nemotron4_{name}/{file}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rows("sft" if "sft" in name else "preference" if name == "dpo" else "reward", 300))
    (folder / "datasets/few.jsonl").write_text(rows("preference", 100))
    (folder / "datasets/prompts").mkdir()
    for number in (1, 2, 3):
        (folder / f"datasets/prompts/round{number}.jsonl").write_text(prompts(800))
    (folder / "datasets/prompts/few.jsonl").write_text(prompts(300))
    (folder / "datasets/step=99").mkdir()
    shutil.copy(folder / "datasets/nemotron4_dpo/train.jsonl", folder / "datasets/step=99")
    checkpoints.checkpoint(folder / "base")
    checkpoints.checkpoint(folder / "llama", **LLAMA3_70B)
    (folder / "llama3_70b_nemo.yaml").write_text(
        "name: llama3_70b_nemo\nfrom: llama3_70b\nstages: {base: null, code_sft: {inputs: {init: ./llama}}, "
        "reward: {inputs: {init: ./llama}}}\n"
    )
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    return desk


def composed(name: str, base: Path, overrides: list[str]):
    """A shipped pipeline that starts from `base`, without the question of memory, which has cases of its own."""
    if name == "llama3_70b":
        return compose("llama3_70b_nemo.yaml", ["all.resources.gpu=null", *overrides])
    if name == "tiny":
        return compose(name, overrides)
    inputs = [f"stages.{stage}.inputs.init={base}" for stage in STARTS]
    return compose(name, [*inputs, "all.resources.gpu=null", *overrides])


def refused(name: str, base: Path, overrides: list[str], run_dir: Path) -> list:
    """(rule, place) of everything that must stop this pipeline."""
    try:
        pipeline = composed(name, base, overrides)
    except UserInputError as error:
        return [("schema", problem.message) for problem in error.problems]
    found = check_run_dir(run_dir) + check_pipeline(pipeline)
    return [(problem.rule, problem.where) for problem in failures(found)]


@pytest.mark.parametrize("name", ["nemotron4_340b", "nemotron4_340b_lora", "llama3_70b", "tiny"])
def test_the_recipes_are_not_refused_without_a_fault(at_desk, name):
    assert refused(name, at_desk / "base", [], Path("runs/a")) == []


def start(case: dict, folder: Path, desk: Path) -> Path:
    """The checkpoint of a case."""
    if case.get("form") == "cut tar":
        whole = checkpoints.tar(folder / "whole.nemo")
        (folder / "cut.nemo").write_bytes(whole.read_bytes()[:-12000])
        return folder / "cut.nemo"
    if case.get("form") == "hugging face":
        (folder / "hugging_face").mkdir()
        (folder / "hugging_face/config.json").write_text("{}")
        return folder / "hugging_face"
    if case.get("form") == "nemo 2":
        (folder / "nemo2/context").mkdir(parents=True)
        (folder / "nemo2/weights").mkdir()
        return folder / "nemo2"
    if not {"changes", "pieces", "damage"} & set(case):
        return desk / "base"
    path = checkpoints.checkpoint(folder / "base", pieces=case.get("pieces", 256000), **case.get("changes", {}))
    if "damage" in case:
        DAMAGE[case["damage"]](path)
    return path


@pytest.mark.parametrize("case", CONFIGS, ids=lambda case: case["id"])
def test_a_known_bad_configuration_is_refused_by_its_rule(at_desk, tmp_path, case):
    run_dir = Path(case.get("run_dir", "runs/a"))
    found = refused(case["pipeline"], start(case, tmp_path, at_desk), case["set"], run_dir)
    assert {rule for rule, _ in found} == {case["rule"]}, found
    assert any(case["where"] in place for _, place in found), found


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case["id"])
def test_known_bad_data_is_refused_by_its_rule(at_desk, tmp_path, case):
    stage = "dpo" if case["stage"] == "rpo" else case["stage"]
    text = case.get("text") or "".join(json.dumps(row) + "\n" for row in case.get("rows", ()))
    name = "prompts" if stage == "generate1" else "train"
    sound = "" if case.get("alone") else rows(KIND[case["stage"]], 800 if name == "prompts" else 300)
    file = tmp_path / "rows.jsonl"
    file.write_text(sound + text.replace("@long", LONG), encoding="utf-8")
    base = at_desk / "base"
    if case.get("tokenizer"):
        base = checkpoints.checkpoint(tmp_path / "base", control_tokens=False)
    overrides = [f"stages.{stage}.inputs.{name}={file}", "stages.dpo.inputs.init=base"]
    if case["stage"] == "rpo":
        overrides += ["stages.dpo.model.dpo.preference_loss=rpo_bwd_kl", "stages.dpo.data.rewards=require"]
    found = check_data(composed("nemotron4_340b", base, overrides), [stage])
    if case.get("tokenizer"):
        assert [problem.rule for problem in found] == [case["rule"]] and f"{base}/" in found[0].message, found
        return
    found = [problem for problem in found if str(file) in problem.where]
    assert {problem.rule for problem in found} == {case["rule"]}, found
    assert found[0].where.removeprefix(str(file)) == (f":{case['line']}" if case["line"] else ""), found


def test_files_that_are_checked_side_by_side_say_the_same_in_the_same_order(at_desk, tmp_path, monkeypatch):
    overrides = []
    for stage, file in (("code_sft", "train"), ("code_sft", "validation"), ("general_sft", "train"), ("dpo", "train")):
        path = tmp_path / f"{stage}_{file}.jsonl"
        path.write_text(rows(KIND.get(stage, "sft"), 300) + "{}\n")
        overrides.append(f"stages.{stage}.inputs.{file}={path}")
    pipeline = composed("nemotron4_340b", at_desk / "base", overrides)
    one_by_one = check_data(pipeline)
    monkeypatch.setattr(data, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert check_data(pipeline) == one_by_one and len(one_by_one) == 4


def test_the_document_has_these_cases_and_no_others():
    table = re.findall(r"^\| (\d+) \|.*\| (\w+) \| `([\w-]+)` \|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert [int(number) for number, *_ in table] == list(range(1, len(table) + 1))
    cases = {case["id"]: case["rule"] for case in [*CONFIGS, *ROWS]}
    assert {name: rule for _, rule, name in table} == cases and len(cases) == len(CONFIGS) + len(ROWS) >= 60


def test_every_report_is_answered_and_what_answers_it_is_there():
    text = (DOCUMENT.parent / "reports.md").read_text()
    table = re.findall(r"^\| (\d+) \| ([^|]+) \|.*\| `([^`]+)` \|$", text, flags=re.MULTILINE)
    assert [int(number) for number, *_ in table] == list(range(1, 55))
    tests = "".join(path.read_text() for path in (DOCUMENT.parents[1] / "tests").rglob("test_*.py"))
    for _, report, answer in table:
        there = f"def {answer}(" in tests if answer.startswith("test_") else (DOCUMENT.parents[1] / answer).is_file()
        assert there and (re.search(r"#\d+", report) or "known issues" in report), (report, answer)
