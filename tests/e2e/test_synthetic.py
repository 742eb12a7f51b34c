"""From checkpoints and an empty directory to a policy trained on pairs that nothing but models and verifiers made."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from data_prep.verify import verify
from tests.e2e.conftest import ROOT
from tests.e2e.stages import facts


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """The directory of `align run synthetic`, started beside a finished run of tiny."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "runs").mkdir()
    (desk / "runs" / "tiny").symlink_to(tiny_run)
    command = [sys.executable, "-m", "recipes.cli", "run", "synthetic"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=desk, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    return desk / "runs" / "synthetic"


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_prompts_are_the_models_own_and_of_no_evaluation(run, tiny_run):
    prompts = {row["messages"][0]["content"] for row in rows(run / "write/outputs/prompts.jsonl")}
    held_out = {row["messages"][0]["content"] for row in rows(tiny_run / "world/outputs/eval_prompts.jsonl")}
    written = facts(run / "write")["counts"]
    assert len(prompts) == written["kept"] >= 256 and sum(written.values()) == 768
    assert written["shared_prompt"] > 0 and not prompts & held_out


def test_every_pair_says_who_wrote_and_who_judged_it(run, tiny_run):
    reward_model = (tiny_run / "reward/outputs/model/CONTENT_SHA256").read_text().strip()
    pairs = rows(run / "pairs/outputs/pairs.jsonl")
    told = facts(run / "pairs")
    assert {pair["judge"]["kind"] for pair in pairs} == {"truth", "reward"} == set(told["judges"])
    tasks = {row["id"]: row["task"] for row in rows(run / "write/outputs/prompts.jsonl")}
    for pair in pairs:
        assert {pair[f"{side}_model"].partition("@")[0] for side in ("chosen", "rejected")} <= {"general_sft", "dpo"}
        assert pair["chosen_reward"] > pair["rejected_reward"] and pair["reward_model"] == "mean_gap"
        if pair["judge"]["kind"] == "truth":
            right = [verify(tasks[pair["id"]], pair[side])["correct"] for side in ("chosen", "rejected")]
            assert right == [True, False]
        else:
            assert pair["judge"]["sha256"] == reward_model and pair["judge"]["template_sha256"]
    assert set(told["models"]) == {pair[f"{side}_model"] for pair in pairs for side in ("chosen", "rejected")}


def test_there_is_a_card_and_the_policy_has_learned_from_the_pairs(run, tiny_run):
    card = (run / "pairs/outputs/card.html").read_text()
    assert "Who judged, who wrote" in card and "general_sft@" in card
    trained, before = facts(run / "evaluate"), facts(tiny_run / "eval_dpo")
    assert facts(run / "rpo")["implicit_gap_mean"] > 0
    assert trained["sampled_accuracy"] > before["sampled_accuracy"] and trained["kl"] > 0
