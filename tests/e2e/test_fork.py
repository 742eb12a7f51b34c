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


def test_a_run_comes_out_again_from_its_own_folder(tmp_path):
    """Every hash, weights included, from the frozen configs alone; then one byte of one stage is named."""
    align(tmp_path, "new", "mine", "--from", "nemotron4_15b")
    align(tmp_path, "run", "mine/smoke.yaml", "--until", "rpo1")
    align(tmp_path, "run", "runs/mine-smoke", "--run", "again", "--until", "rpo1")
    rows = json.loads(align(tmp_path, "diff", "mine-smoke", "again", "--json"))["stages"]
    assert {row["state"] for row in rows} <= {"same", "not done"} and len(rows) == 19
    weights = next((tmp_path / "runs/again/dpo/outputs/model/model_weights").glob("*.distcp"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    command = [sys.executable, "-m", "recipes.cli", "verify", "again"]
    said = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert said.returncode == 1 and str(weights.relative_to(tmp_path)) in (said.stdout + said.stderr).splitlines()[0]
