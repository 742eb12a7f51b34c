"""What makers are given beside the model: files of the user and what other makers have made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.rules import BadRow
from data_prep.sources import Context, Schema, adjacent, all_schemas, convert, need, plain_message
from data_prep.synthetic.prompts.draft import Subject
from data_prep.synthetic.prompts.openings import Openings
from data_prep.template import Template

Reward = Callable[[list[list[dict]]], list[float | None]]


@dataclass
class Given:
    """keywords: by maker; code_seeds: (id, instruction); reward: of conversations that end with an answer, None where
    there is no reward model."""

    openings: Openings
    topics: list[Subject] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    keywords: dict[str, list[Subject]] = field(default_factory=dict)
    code_seeds: list[tuple[str, str]] = field(default_factory=list)
    reward: Reward | None = None


def texts(path: Path | str | None, template: Template) -> list[str]:
    """The texts of a file of {"text"} rows; [] without a file.

    Raises UserInputError naming file:line for a row without text or with a control token of the template in it.
    """
    found = []
    for line, row in read_rows(path) if path else ():
        try:
            text = need(row, "text", str)
            template.check_text(text, "text")
        except BadRow as bad:
            raise refuse(path, line, f"{bad.field} {bad.message}", bad.rule, bad.fix) from None
        found.append(text.strip())
    return found


def first_turns(path: Path | str, template: Template) -> Iterator[tuple[str, str]]:
    """(id, first user turn) of every row: of a prompt file, of {"text"} rows, whose text is the turn, or of any layout
    of `align data schemas`. The id is the row's own or line-<n>.

    Raises UserInputError naming file:line for a row that is none of these or has no user turn.
    """
    rows = read_rows(path)
    first = list(islice(rows, 1))
    if not first:
        return
    schema = _schema(path, first[0][1])
    rows = chain(first, rows)
    for line, row in adjacent(schema, rows) if schema else rows:
        try:
            turn = _first_turn(convert(schema, row, line, Context(template, "split")).messages if schema else row)
            template.check_text(turn, "the first user turn")
        except BadRow as bad:
            raise refuse(path, line, f"{bad.field} {bad.message}", bad.rule, bad.fix) from None
        own = row[0] if isinstance(row, list) else row
        yield str(own.get("id", f"line-{line}")), turn


def _schema(path: Path | str, row: dict) -> Schema | None:
    """The layout of a file by its first row; None for prompts and plain texts, which are read here."""
    if isinstance(row.get("messages"), list):
        return None
    schema = next((schema for schema in all_schemas() if schema.fits(row)), None)
    if schema is None:
        fix = 'give rows of {"messages"}, of {"text"}, or of a layout that `align data schemas` lists'
        raise refuse(path, 1, f"has the keys {sorted(row)}, which is no known layout", "D2", fix)
    return None if schema.kinds == ("text",) else schema


def _first_turn(row: dict | list[dict]) -> str:
    """Of a list of messages, or of a row with `messages` or `text`."""
    if isinstance(row, dict) and "messages" not in row:
        return need(row, "text", str)
    messages = row if isinstance(row, list) else need(row, "messages", list)
    for i, message in enumerate(messages):
        if plain_message(message, f"messages[{i}]")["role"] == "user":
            return message["content"]
    raise BadRow("D3", "messages", "have no user turn")
