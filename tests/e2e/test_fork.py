"""`align new`: a fork of a full-scale recipe runs whole on a CPU, before anybody waits for a GPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def align(folder, *words: str) -> str:
    command = [sys.executable, "-m", "recipes.cli", *words]
    result = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=1800)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result.stdout


# The recipe of the 340B, and one with another architecture, another template and adapters
@pytest.mark.parametrize("recipe", ["nemotron4_340b", "llama3_8b_lora"])
def test_every_stage_of_a_fork_runs_on_a_cpu(recipe, tmp_path):
    align(tmp_path, "new", "mine", "--from", recipe)
    align(tmp_path, "check", "mine/smoke.yaml")
    align(tmp_path, "run", "mine/smoke.yaml")
    rows = json.loads(align(tmp_path, "status", "mine-smoke", "--json"))
    assert {row["state"] for row in rows} == {"done"}
    trained = {row["stage"] for row in rows if row["kind"] in ("sft", "reward", "preference")}
    assert trained == {"code_sft", "general_sft", "reward", "dpo", "rpo1", "rpo2", "rpo3"}
    align(tmp_path, "verify", "mine-smoke")
