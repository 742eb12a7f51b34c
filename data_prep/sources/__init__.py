"""One adapter per schema: a row of a file -> a record. The schema is recognised from the first row of the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep.jsonl import refuse
from data_prep.records import Record, content_id
from data_prep.rules import BadRow
from data_prep.template import Template

KINDS = ("sft", "preference", "reward", "text")


@dataclass(frozen=True)
class Context:
    """What an adapter may need beside the row.

    embedded_turns: "refuse" | "split": rendered turns inside the text of a message (data that was glued together for
    another trainer) are an error, or become messages.
    """

    template: Template | None
    embedded_turns: str = "refuse"


@dataclass(frozen=True)
class Schema:
    """One layout of rows.

    kind: of the stage that reads it; fields: for error messages; fits: first row -> bool; convert: row -> record.
    """

    name: str
    kind: str
    fields: str
    fits: Callable[[dict], bool]
    convert: Callable[[dict, Context], Record]
    human: bool = False  # default for rows that do not say


def schemas(kind: str) -> list[Schema]:
    """The schemas that a kind of stage reads, the most specific first."""
    from data_prep.sources import helpsteer2, messages, nemo_chat, nemo_dpo, nemo_rm, pairs, plain_text, ultrafeedback

    known = [
        nemo_chat.SCHEMA,
        messages.SCHEMA,
        nemo_dpo.SCHEMA,
        ultrafeedback.SCHEMA,
        pairs.SCHEMA,
        nemo_rm.SCHEMA,
        helpsteer2.SCHEMA,
        plain_text.SCHEMA,
    ]
    return [schema for schema in known if schema.kind == kind]


def detect(kind: str, row: dict, path: Path | str) -> Schema:
    """The schema of a file by its first row. Raises UserInputError (D2) that lists the known ones if none fits."""
    for schema in schemas(kind):
        if schema.fits(row):
            return schema
    known = "".join(f"\n      {s.name}: {s.fields}" for s in schemas(kind))
    raise refuse(
        path,
        1,
        f"has the keys {sorted(row)}, which is no schema known for a stage of kind {kind}; known:{known}",
        "D2",
        "convert the file to one of these schemas",
    )


def convert(schema: Schema, row: dict, line: int, context: Context) -> Record:
    """Row -> record with id, source, human and line filled in. Raises BadRow."""
    record = schema.convert(row, context)
    record.line = line
    identity = row.get("id", row.get("prompt_id"))
    record.id = str(identity) if identity is not None else content_id(row)
    record.source = str(row.get("source") or row.get("dataset") or schema.name)
    record.human = row.get("human", schema.human)
    if not isinstance(record.human, bool):
        raise BadRow("D2", "human", f"is {record.human!r}, not true or false")
    return record


def need(row: dict, key: str, kind: type | tuple[type, ...]) -> object:
    """row[key] of the given type, or BadRow D2. A bool is not a number here."""
    if key not in row:
        raise BadRow("D2", key, "is missing")
    value = row[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise BadRow("D2", key, f"is {type(value).__name__}, not {wanted}")
    return value


def number(row: dict, key: str, rule: str) -> float:
    """row[key] as a float, or BadRow of the given rule; a bool or a text is not a number."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRow(rule, key, "is missing" if key not in row else f"is {value!r}, not a number")
    return float(value)


def as_messages(value: object, key: str) -> list[dict]:
    """A prompt given as text or as a list of messages -> messages."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list):
        return [plain_message(m, f"{key}[{i}]") for i, m in enumerate(value)]
    raise BadRow("D2", key, f"is {type(value).__name__}, not text or a list of messages")


def plain_message(message: object, field: str) -> dict:
    """{role, content} without other keys, or BadRow D2."""
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise BadRow("D2", field, "is not an object with role and content")
    return {"role": message["role"], "content": message["content"]}


def split_embedded(messages: list[dict], template: Template) -> list[dict]:
    """Text with rendered turns in it -> messages: "hi\\n<extra_id_1>Assistant\\nyo" -> user "hi", assistant "yo"."""
    out: list[dict] = []
    for message in messages:
        if message["role"] == "user" and isinstance(message["content"], str):
            out.extend(template.parse_turns(message["content"]))
        else:
            out.append(message)
    return out
