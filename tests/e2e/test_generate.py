"""The batch stages: work that was done is not done again, an array shares it, and the output is the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.e2e.conftest import ROOT
from tests.e2e.stages import derive, facts, log, metrics
from tests.e2e.test_parity import LAYOUTS

SMALL = ["batch_size=64", "responses_per_prompt=2"]  # 16 batches of the round's 512 prompts


def start(stage_dir, **environment) -> subprocess.Popen:
    kind = yaml.safe_load((stage_dir / "config.yaml").read_text())["kind"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    (stage_dir / "logs").mkdir(exist_ok=True)
    with (stage_dir / "logs" / "stage.log").open("a") as out:
        command = [sys.executable, "-m", f"recipes.stages.{kind}", str(stage_dir / "config.yaml")]
        return subprocess.Popen(command, env=env, stdout=out, stderr=out)


def done_rows(stage_dir) -> list[int]:
    """The counter of every progress line."""
    return [row["done"] for row in metrics(stage_dir, "progress")]


@pytest.fixture(scope="module")
def undisturbed(tiny_run, engine, tmp_path_factory):
    stage = derive(tiny_run / "generate1", tmp_path_factory.mktemp("generate") / "whole", *SMALL)
    assert engine.run(stage) == 0, log(stage)[-3000:]
    return stage


def output(stage_dir) -> bytes:
    return (stage_dir / "outputs" / "responses.jsonl").read_bytes()


def test_a_killed_stage_goes_on_where_it_was(tiny_run, undisturbed, engine, tmp_path):
    stage = derive(tiny_run / "generate1", tmp_path / "killed", *SMALL)
    process = start(stage)
    deadline = time.time() + 120
    while not (stage / "metrics.jsonl").exists() or max(done_rows(stage), default=0) < 256:
        assert process.poll() is None and time.time() < deadline, log(stage)[-3000:]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (partial,) = (stage / "data" / "batches").glob("*/0-0.jsonl")
    partial.write_bytes(partial.read_bytes()[:-20])  # and the last line was torn
    finished = partial.read_bytes().count(b'\n{"batch"')
    assert not (stage / "outputs").exists() and finished >= 3
    (stage / "metrics.jsonl").unlink()
    assert engine.run(stage) == 0, log(stage)[-3000:]
    assert done_rows(stage)[0] == finished * 64
    assert output(stage) == output(undisturbed)


def test_three_tasks_of_an_array_write_what_one_process_writes(tiny_run, undisturbed, tmp_path):
    stage = derive(tiny_run / "generate1", tmp_path / "array", *SMALL, "array_tasks=3")
    for task in ("2", "0"):
        assert start(stage, ALIGN_ARRAY_TASK=task).wait() == 0, log(stage)[-3000:]
        assert not (stage / "manifest.json").exists()
    assert start(stage, ALIGN_ARRAY_TASK="1").wait() == 0, log(stage)[-3000:]
    assert output(stage) == output(undisturbed)
    assert facts(stage)["responses"] == facts(undisturbed)["responses"] == 1024


def test_other_settings_do_not_take_over_work_that_was_begun(tiny_run, undisturbed, engine, tmp_path):
    stage = derive(tiny_run / "generate1", tmp_path / "other", *SMALL)
    (stage / "data").mkdir()
    os.symlink(undisturbed / "data" / "batches", stage / "data" / "batches")
    derive(stage, stage, "temperature=0.5")
    assert engine.run(stage) == 0, log(stage)[-3000:]
    assert done_rows(stage)[0] == 0 and output(stage) != output(undisturbed)


def test_prompts_of_an_evaluation_are_refused_before_anything_is_loaded(tiny_run, engine, tmp_path):
    stage = derive(tiny_run / "generate1", tmp_path / "shared", *SMALL)
    prompts = tmp_path / "prompts.jsonl"
    rows = (tiny_run / "world/outputs/eval_prompts.jsonl").read_text().splitlines()[:3]
    prompts.write_text(
        "".join(
            json.dumps({"id": str(i), "messages": [{"role": "user", "content": content.upper() + "  "}]}) + "\n"
            for i, content in enumerate(json.loads(row)["messages"][0]["content"] for row in rows)
        )
    )
    derive(stage, stage, f"inputs.prompts={prompts}")
    assert engine.run(stage) == 2
    assert "[D25]" in log(stage) and "3 prompts also stand in" in log(stage)


def test_scores_of_several_models_responses_are_those_of_each_alone(tiny_run, undisturbed, engine, tmp_path):
    """Two files with responses to the same prompts become one row a prompt, all judged on one scale."""
    other = derive(tiny_run / "generate1", tmp_path / "other", *SMALL, f"inputs.policy={tiny_run}/rpo1/outputs/model")
    assert engine.run(other) == 0, log(other)[-3000:]
    files = [str(stage / "outputs/responses.jsonl") for stage in (undisturbed, other)]
    scored = {}
    for name, inputs in (("first", files[:1]), ("both", files)):
        stage = derive(tiny_run / "score1", tmp_path / name, f"inputs.responses={json.dumps(inputs)}")
        assert engine.run(stage) == 0, log(stage)[-3000:]
        scored[name] = [json.loads(line) for line in (stage / "outputs/scored.jsonl").read_text().splitlines()]
    for alone, row in zip(scored["first"], scored["both"], strict=True):
        assert [r["model"].partition("@")[0] for r in row["responses"]] == ["dpo", "dpo", "rpo1", "rpo1"]
        rewards = [r["reward"] for r in row["responses"]]
        assert rewards[:2] == pytest.approx([r["reward"] for r in alone["responses"]], abs=1e-5)


def test_a_stage_asks_a_checkpoint_that_it_serves_itself(tiny_run, engine, tmp_path):
    """Stage respond with inputs.model says what the batch stage says: one template, one model."""
    greedy = derive(tiny_run / "generate1", tmp_path / "greedy", *SMALL[:1], "responses_per_prompt=1", "greedy=true")
    assert engine.run(greedy) == 0, log(greedy)[-3000:]
    cfg = yaml.safe_load((ROOT / "configs/stage/respond.yaml").read_text()) | {"stage": "respond"}
    inputs = yaml.safe_load((greedy / "config.yaml").read_text())["inputs"]
    cfg["inputs"] |= {"prompts": inputs["prompts"], "model": inputs["policy"]}
    cfg["sampling"] |= {"temperature": 0.0, "max_tokens": 32}
    stage = tmp_path / "respond"
    stage.mkdir()
    (stage / "config.yaml").write_text(yaml.safe_dump(cfg))
    assert start(stage).wait() == 0, log(stage)[-3000:]
    said = [[json.loads(line)["responses"][0] for line in output(d).splitlines()] for d in (greedy, stage)]
    same = [(a["text"], a["tokens"]) == (b["text"], b["tokens"]) for a, b in zip(*said, strict=True)]
    assert sum(same) / len(same) >= 0.99  # logits that are equal up to the last bit may be ordered otherwise
    model = (tiny_run / "dpo/outputs/model/CONTENT_SHA256").read_text().strip()
    assert {response["model"] for response in said[1]} == {model} and facts(stage)["model_sha256"] == model


def test_the_shift_from_a_policy_to_itself_is_nothing(tiny_run, engine, tmp_path):
    same = derive(tiny_run / "eval_dpo", tmp_path / "same", f"inputs.reference={tiny_run}/dpo/outputs/model")
    assert engine.run(same) == 0, log(same)[-3000:]
    assert facts(same)["kl"] == 0.0
    assert 0 < facts(tiny_run / "eval_dpo")["kl"] < facts(tiny_run / "eval_rpo1")["kl"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_shift_does_not_depend_on_the_layout(tiny_run, engine, tmp_path, layout):
    two = derive(tiny_run / "eval_dpo", tmp_path / "two", *LAYOUTS[layout])
    assert engine.run(two) == 0, log(two)[-3000:]
    assert facts(two)["kl"] == pytest.approx(facts(tiny_run / "eval_dpo")["kl"], rel=1e-3)


@pytest.mark.parametrize("kind, row", [("generate", "prompt-1"), ("score", "prompt-1")])
def test_texts_that_do_not_fit_are_refused_before_anything_is_loaded(tiny_run, engine, tmp_path, kind, row):
    long = {"id": row, "messages": [{"role": "user", "content": "now sort " + "b a " * 60}]}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(long | {"responses": [{"text": "x", "finished": True}]}) + "\n")
    stage = derive(tiny_run / f"{kind}1", tmp_path / kind)
    derive(stage, stage, {"generate": f"inputs.prompts={rows}", "score": f"inputs.responses=[{rows}]"}[kind])
    assert engine.run(stage) == 2
    assert "[D6]" in log(stage) and "prompt-1 has" in log(stage)
