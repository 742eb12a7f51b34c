"""What makers are given beside the model: files of the user and what other makers have made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.jsonl import read_rows, refuse
from data_prep.rules import BadRow
from data_prep.sources import need
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
