"""Candidate rows: a prompt and the responses of one or more models to it, as they travel from stage to stage.

    {"id", "messages", "task"?, "source", "human", "responses": [{"text", "finished", "tokens", "model", ...}]}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.records import content_id
from data_prep.rules import BadRow
from data_prep.sources import as_messages

_PER_FILE = ("responses", "comparisons", "judges")  # what a row of one file says about its own responses


def read_candidates(paths: Path | str | Sequence[Path | str]) -> list[dict]:
    """The rows of one file, or of several merged by prompt: the responses of all models, in the order of the files.

    Rows of the first file come first; a later file may bring prompts of its own. Raises UserInputError naming file:line
    for a row without messages or responses (D2), a prompt twice in a file (D2), a prompt that comes with another task
    (D2), judged rows that would be merged (D2: merge first, judge then), and a file without rows (D14).
    """
    paths = [Path(p) for p in (paths if isinstance(paths, (list, tuple)) else [paths])]
    merged: dict[str, dict] = {}
    for path in paths:
        seen: dict[str, int] = {}
        for line, row in read_rows(path):
            try:
                key = _check(row)
                if key in seen:
                    raise BadRow("D2", "messages", f"are the prompt of line {seen[key]}", "give every prompt once")
                seen[key] = line
                merged[key] = _join(merged[key], row) if key in merged else row
            except BadRow as bad:
                raise refuse(path, line, f"{bad.field} {bad.message}", bad.rule, bad.fix) from None
        if not seen:
            raise refuse(path, None, "has no row", "D14", "look at the stage that wrote it")
    return list(merged.values())


def _check(row: dict) -> str:
    """The prompt's key. BadRow if the row is no candidate row."""
    row["messages"] = as_messages(row.get("messages"), "messages")
    responses = row.get("responses")
    if not isinstance(responses, list):  # an empty one: all requests for it failed, which its stage has counted
        raise BadRow("D2", "responses", "is no list", "give what a stage of kind generate or respond wrote")
    for i, response in enumerate(responses):
        if not isinstance(response, dict) or not isinstance(response.get("text"), str):
            raise BadRow("D2", f"responses[{i}]", "is not an object with a text")
    return content_id(row["messages"])


def _join(first: dict, other: dict) -> dict:
    if first.get("task") != other.get("task"):
        raise BadRow("D2", "task", "differs from that of the same prompt in an earlier file", "use one prompt file")
    for row in (first, other):
        if row.get("judges") or row.get("comparisons"):
            raise BadRow("D2", "judges", "is set: these responses are judged already", "merge first, judge then")
    kept = {key: value for key, value in first.items() if key not in _PER_FILE}
    return {**kept, "responses": first["responses"] + other["responses"]}
