"""Prompts that must not be trained on: refuse those that also stand in an evaluation's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.sources import as_messages
from data_prep.synthetic.prompts.keys import first_user


def refuse_shared(prompts: list[dict], source: Path | str, others: Sequence[Path | str]) -> None:
    """UserInputError (D25) if a prompt of `source` begins with the first user turn of a row of another file.

    Case and white space do not make another prompt; rewritten prompts are not found. others: rows with "messages".
    """
    mine: dict[str, str] = {}
    for prompt in prompts:
        mine.setdefault(first_user(prompt["messages"]), prompt["id"])
    for other in others:
        shared = [
            (line, mine[turn])
            for line, row in read_rows(other)
            if (turn := first_user(as_messages(row.get("messages"), "messages"))) in mine
        ]
        if shared:
            line, name = shared[0]
            message = f"{len(shared)} prompts also stand in {other}: {name} is its line {line}"
            raise refuse(source, None, message, "D25", "leave these prompts out: they are kept for evaluation")
