"""Candidate rows of several models come together by prompt; prompts of an evaluation are refused."""

from __future__ import annotations

import json

import pytest

from data_prep.candidates import read_candidates
from data_prep.first_turns import refuse_shared
from recipes.errors import UserInputError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(prompt, *texts, **extra):
    responses = [{"text": text, "finished": True} for text in texts]
    return {"id": prompt, "messages": [{"role": "user", "content": prompt}], "responses": responses, **extra}


def texts(rows):
    return {row["id"]: [response["text"] for response in row["responses"]] for row in rows}


def test_the_responses_of_all_files_stand_under_their_prompt(tmp_path):
    first = write(tmp_path / "a.jsonl", row("p", "1", "2"), row("q", "3"))
    second = write(tmp_path / "b.jsonl", row("r", "4"), row("p", "5"))
    assert texts(read_candidates([first, second])) == {"p": ["1", "2", "5"], "q": ["3"], "r": ["4"]}
    assert texts(read_candidates(first)) == {"p": ["1", "2"], "q": ["3"]}
    assert texts(read_candidates(write(tmp_path / "failed.jsonl", row("p"), row("q", "1")))) == {"p": [], "q": ["1"]}


BAD = {
    "no messages": ([{"responses": [{"text": "a"}]}], ":1: messages"),
    "no responses": ([{"messages": [{"role": "user", "content": "p"}]}], ":1: responses is no list"),
    "no text": ([row("p", "a"), row("q", "b") | {"responses": [{"finished": True}]}], ":2: responses[0]"),
    "a prompt twice": ([row("p", "a"), row("p", "b")], ":2: messages are the prompt of line 1"),
    "no row": ([], "has no row"),
}


@pytest.mark.parametrize("rows, message", BAD.values(), ids=BAD)
def test_bad_rows_are_refused_with_their_line(tmp_path, rows, message):
    with pytest.raises(UserInputError) as caught:
        read_candidates(write(tmp_path / "a.jsonl", *rows))
    assert message in str(caught.value)


def test_what_was_judged_or_asked_apart_is_not_merged(tmp_path):
    first = write(tmp_path / "a.jsonl", row("p", "1"))
    judged = write(tmp_path / "b.jsonl", row("p", "2", judges={"reward": {}}))
    other = write(tmp_path / "c.jsonl", row("p", "2", task={"type": "number", "family": "f", "answer": "1"}))
    for file, message in ((judged, "merge first, judge then"), (other, "task differs")):
        with pytest.raises(UserInputError, match=message):
            read_candidates([first, file])


def test_prompts_of_an_evaluation_are_refused_whatever_their_case(tmp_path, template):
    prompts = [row("one"), row("Two  words")]
    held_out = write(tmp_path / "eval.jsonl", row("zero"), row("two words"))
    refuse_shared(prompts, "prompts.jsonl", [write(tmp_path / "other.jsonl", row("three"))], template)
    with pytest.raises(UserInputError, match=r"D25.*1 prompts also stand in .*Two  words is its two words"):
        refuse_shared(prompts, "prompts.jsonl", [held_out], template)
