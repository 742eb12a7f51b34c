"""Batch files: written, run by somebody else, and read again."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from data_prep.synthetic.endpoint import open_model
from data_prep.synthetic.requests import Unanswered
from tests.bench.requests import requests
from tests.synthetic.stub_server import stub

SETTINGS = {"protocol": "batch", "model": "stub"}


def run_batch(url: str, file) -> list[dict]:
    """What a runner of batch files makes of one: OpenAI's output format, in no particular order."""
    rows = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        assert row["method"] == "POST"
        address = url.removesuffix("/v1") + row["url"]
        request = urllib.request.Request(address, json.dumps(row["body"]).encode(), method="POST")
        body = json.load(urllib.request.urlopen(request))
        response = {"status_code": 200, "request_id": "r", "body": body}
        rows.append({"id": "b", "custom_id": row["custom_id"], "response": response, "error": None})
    return rows[::-1]


def write(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def refused(row: dict) -> dict:
    body = {"error": {"message": "too long", "code": 400}}
    return {**row, "response": {"status_code": 400, "body": body}}


def ask_until_unanswered(work, **settings) -> str:
    with pytest.raises(Unanswered) as caught:
        open_model({**SETTINGS, **settings}, work).ask(requests(8), "tea")
    return str(caught.value)


def test_answers_from_files_are_those_of_the_server(tmp_path):
    folder = tmp_path / "work" / "batch"
    with stub() as url:
        expected = open_model({"url": url, "model": "stub"}, tmp_path / "http").ask(requests(8))
        text = ask_until_unanswered(tmp_path / "work")
        assert "tea: 8 of 8 requests have no answer yet" in text
        assert f"vllm run-batch -i {folder}/requests.jsonl" in text
        answers = run_batch(url, folder / "requests.jsonl")
    other = {**answers[0], "custom_id": "not one of ours"}
    changed = json.loads(json.dumps(answers[1]).replace("You said", "Later I said"))
    vllm = {**answers[3], "response": None, "error": {"message": "engine died"}}
    write(folder / "answers-1.jsonl", [other, answers[0], answers[1], changed, refused(answers[2]), vllm])
    with open(folder / "answers-1.jsonl", "a") as file:
        file.write(json.dumps(answers[4])[:100])  # a copy that was cut off
    text = ask_until_unanswered(tmp_path / "work")
    assert "6 of 8 requests have no answer yet" in text and "answers-2.jsonl" in text
    assert "2 new answers, 2 errors (lines of other requests: 1, repeated answers: 1, unreadable lines: 1)" in text
    assert "error, 1 x: HTTP 400: too long" in text and "error, 1 x: engine died" in text
    open_ = [json.loads(line)["custom_id"] for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert sorted(open_) == sorted(row["custom_id"] for row in answers[2:])
    write(folder / "answers-2.jsonl", answers[2:])
    assert open_model(SETTINGS, tmp_path / "work").ask(requests(8), "tea") == expected
    assert not (folder / "requests.jsonl").exists()


def test_errors_that_may_stay_do_not_hold_the_others_up(tmp_path):
    ask_until_unanswered(tmp_path)
    folder = tmp_path / "batch"
    with stub() as url:
        answers = run_batch(url, folder / "requests.jsonl")
    write(folder / "answers.jsonl", [refused(answers[0]), *answers[1:]])
    assert "1 of 8 requests have no answer yet" in ask_until_unanswered(tmp_path, failed_share=0.1)
    replies = open_model({**SETTINGS, "failed_share": 0.2}, tmp_path).ask(requests(8))
    assert [bool(reply.text) for reply in replies] == [True] * 7 + [False]
    assert re.fullmatch("HTTP 400: too long", replies[7].error)
