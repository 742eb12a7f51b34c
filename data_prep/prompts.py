"""Prompt files: {"id", "messages": [...ending in user], "task"?, "source"?, "human"?}, one row a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.records import content_id
from data_prep.rules import BadRow
from data_prep.sources import plain_message
from data_prep.template import Template


def read_prompts(path: Path | str, template: Template | None = None) -> list[dict]:
    """All prompt rows of a file; see `prompt_rows`."""
    return list(prompt_rows(path, template))


def prompt_rows(path: Path | str, template: Template | None = None) -> Iterator[dict]:
    """Each prompt row, checked, with id, source and human filled in. `template` decides what a control token is.

    Raises UserInputError naming file:line when a row has no messages, breaks a rule of turns (D2-D5), repeats an id or
    a prompt of the file (D2), or when the file has no row (D14).
    """
    template = template or Template.load()
    ids: dict[str, int] = {}
    prompts: dict[str, int] = {}
    for line, row in read_rows(path):
        try:
            prompt = _prompt(row, template)
        except BadRow as bad:
            raise refuse(path, line, f"{bad.field} {bad.message}", bad.rule, bad.fix) from None
        for seen, key, what in ((ids, prompt["id"], "id"), (prompts, content_id(prompt["messages"]), "prompt")):
            if key in seen:
                raise refuse(
                    path, line, f"has the {what} of line {seen[key]}", "D2", f"make every {what} of the file different"
                )
            seen[key] = line
        yield prompt
    if not ids:
        raise refuse(path, None, "has no prompt", "D14", "give at least one prompt")


def _prompt(row: dict, template: Template) -> dict:
    messages = row.get("messages")
    if not isinstance(messages, list):
        raise BadRow(
            "D2", "messages", "is missing" if messages is None else f"is {type(messages).__name__}, not a list"
        )
    messages = [plain_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    template.check(messages, last="user")
    task = row.get("task")
    if task is not None:
        from data_prep import verify

        verify.check(task)
    identity = row.get("id", content_id(messages))
    return {
        **row,
        "id": str(identity),
        "messages": messages,
        "source": str(row.get("source", "prompts")),
        "human": bool(row.get("human", False)),
    }
