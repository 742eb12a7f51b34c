"""The first user turns of a file, whatever its layout: what prompts are told apart and kept disjoint by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.keys import first_user, normal
from data_prep.rules import BadRow
from data_prep.sources import Context, Schema, adjacent, all_schemas, convert, need, plain_message
from data_prep.template import Template


def refuse_shared(
    prompts: Iterable[dict], source: Path | str, others: Sequence[Path | str], template: Template
) -> None:
    """UserInputError (D25) if a prompt of `source` begins with the first user turn of a row of another file.

    Case and white space do not make another prompt; rewritten prompts are not found.
    """
    mine: dict[str, str] = {}
    for prompt in prompts:
        mine.setdefault(first_user(prompt["messages"]), prompt["id"])
    for other in others:
        shared = [(mine[key], name) for name, turn in first_turns(other, template) if (key := normal(turn)) in mine]
        if shared:
            message = f"{len(shared)} prompts also stand in {other}: {shared[0][0]} is its {shared[0][1]}"
            raise refuse(source, None, message, "D25", "leave these prompts out: they are kept for evaluation")


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
