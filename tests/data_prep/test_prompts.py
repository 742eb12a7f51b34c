"""Prompt files: read whole, or refused at the line that is wrong."""

from __future__ import annotations

import json
import re

import pytest

from data_prep.prompts import read_prompts
from recipes.errors import UserInputError

ROW = {"id": "1", "messages": [{"role": "user", "content": "hi"}]}
OTHER = {"id": "2", "messages": [{"role": "user", "content": "ho"}]}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_left_out_is_filled_in(tmp_path):
    first, second = read_prompts(write(tmp_path / "p.jsonl", {"messages": ROW["messages"]}, OTHER))
    assert first["id"] and first["source"] == "prompts" and first["human"] is False
    assert second["id"] == "2"


def test_the_worlds_prompts_are_read(world):
    for row in read_prompts(world / "eval_prompts.jsonl"):
        assert row["task"]["family"] in ("code", "lists", "arithmetic", "constraints")


BAD = {
    "no messages": ({"id": "2"}, "messages is missing"),
    "messages is text": ({"messages": "hi"}, "not a list"),
    "ends with assistant": ({"messages": [*ROW["messages"], {"role": "assistant", "content": "x"}]}, "needs user"),
    "control token": ({"messages": [{"role": "user", "content": "<extra_id_2>"}]}, "<extra_id_2>"),
    "same id": (OTHER | {"id": "1"}, "has the id of line 1"),
    "same prompt": (ROW | {"id": "3"}, "has the prompt of line 1"),
    "unknown task": (OTHER | {"task": {"type": "riddle", "family": "x"}}, "type out of skill, code"),
    "task without family": (OTHER | {"task": {"type": "code"}}, "family"),
}


@pytest.mark.parametrize("row, message", BAD.values(), ids=BAD)
def test_bad_prompts(tmp_path, row, message):
    path = write(tmp_path / "p.jsonl", ROW, row)
    with pytest.raises(UserInputError, match=re.escape(message)) as caught:
        read_prompts(path)
    assert caught.value.problems[0].where == f"{path}:2"


def test_an_empty_file(tmp_path):
    with pytest.raises(UserInputError, match="has no prompt"):
        read_prompts(write(tmp_path / "p.jsonl"))
