"""The report of a run that was submitted to a cluster: its starts, and how a stage without an artifact ended."""

from __future__ import annotations

import pytest

from recipes.report.jobs import starts
from recipes.report.load import load_run
from recipes.slurm.run_files import RunFiles


@pytest.fixture
def submitted(tmp_path):
    stages = "stages: {sft: {stage: sft, kind: sft}, dpo: {stage: dpo, kind: preference}}"
    (tmp_path / "pipeline.yaml").write_text(f"name: x\n{stages}\n")
    files = RunFiles(tmp_path)
    files.add_event("sft", "submitted", jobs=["7"], why="")
    files.add_event("sft", "began", job="7", attempt="7.0", nodes="node[1-2]", mark=[-1], why="starts")
    files.add_event("sft", "ended", job="7", attempt="7.0", result="again", why="its time was up")
    files.add_event("sft", "began", job="7", attempt="7.1", nodes="node3", mark=[20], why="goes on")
    return tmp_path


def test_every_start_has_a_line(submitted):
    first, second = starts(load_run(submitted))
    assert (first["stage"], first["job"], first["start"], first["nodes"]) == ("sft", "7", "0", "node[1-2]")
    assert (first["result"], first["why"]) == ("again", "its time was up") and first["seconds"] >= 0
    assert (second["start"], second["result"], second["seconds"]) == ("1", "no word", None)


@pytest.mark.parametrize(("result", "status"), [("failed", "failed"), ("blocked", "blocked"), ("again", "not started")])
def test_a_stage_without_an_artifact_says_how_its_job_ended(submitted, result, status):
    RunFiles(submitted).add_event("dpo", "ended", job="8", attempt="8.0", result=result, why="")
    assert load_run(submitted).stages["dpo"].status == status
