"""The respond stage, as it is started: a config, a server, the files that it leaves."""

from __future__ import annotations

import json

import pytest

from recipes.errors import StageFailed
from recipes.pipeline.config import CONFIGS
from recipes.pipeline.files import read_config
from recipes.pipeline.progress import read_progress
from recipes.stages import respond
from tests.synthetic.stub_server import stub

pytest.importorskip("openai")


def config(tmp_path, **endpoint) -> dict:
    cfg = read_config(CONFIGS / "stage" / "respond.yaml")
    rows = [{"id": f"q{i}", "messages": [{"role": "user", "content": f"Question {i}?"}]} for i in range(5)]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg["inputs"]["prompts"] = str(prompts)
    cfg["endpoint"].update(model="stub", **endpoint)
    return cfg | {"stage": "respond", "responses_per_prompt": 2}


def test_prompts_become_candidates(tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    log = tmp_path / "paid.log"
    with stub(log=log) as url:
        facts = respond.main(config(tmp_path, url=url), stage)
        first = (stage / "outputs" / "responses.jsonl").read_bytes()
        again = respond.main(config(tmp_path, url=url), stage)
    rows = [json.loads(line) for line in first.decode().splitlines()]
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(5)]
    for i, row in enumerate(rows):
        assert len(row["responses"]) == 2 and row["human"] is False
        assert row["responses"][0]["text"].startswith(f"You said: Question {i}?")
        assert row["responses"][0]["model"] == "stub" and row["responses"][0]["tokens"] > 2
    assert facts["prompts"] == 5 and facts["responses"] == 10 and facts["finished_share"] == 1.0
    assert (facts["requests_asked"], facts["requests_reused"]) == (10, 0)
    assert (again["requests_asked"], again["requests_reused"]) == (0, 10)
    assert len(log.read_text().split()) == 10 and (stage / "outputs" / "responses.jsonl").read_bytes() == first
    progress = read_progress(stage / "metrics.jsonl")
    assert (progress.step, progress.total, progress.unit) == (10, 10, "row")


def test_a_failed_request_leaves_its_response_out(tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    with stub(faults=0.4, kinds="400") as url:
        facts = respond.main(config(tmp_path, url=url, failed_share=1.0), stage)
    rows = [json.loads(line) for line in (stage / "outputs" / "responses.jsonl").read_text().splitlines()]
    left = sum(len(row["responses"]) for row in rows)
    assert 0 < facts["failed"] == 10 - left and len(rows) == 5


def test_missing_answers_of_a_batch_fail_the_stage_with_the_file_to_run(tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    file = stage / "data" / "batch" / "requests.jsonl"
    with pytest.raises(StageFailed, match=f"10 of 10 requests have no answer yet. Run {file}"):
        respond.main(config(tmp_path, protocol="batch"), stage)
    assert len(file.read_text().splitlines()) == 10
