"""What commands print: tables, values, problems; as text or as JSON."""

from __future__ import annotations

import itertools
import json
import textwrap
from pathlib import Path

from recipes.errors import Problem


def first_sentence(path: Path, width: int) -> str:
    """The first sentence of a config's header, for a list of configs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
    return textwrap.shorten(comment.partition(". ")[0], width, placeholder=" ...")


def print_rows(rows: list[dict], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from recipes.pipeline.display import table

    for line in table(columns, [[cell(row[column]) for column in columns] for row in rows]):
        print(line)


def cell(value) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(cell, value)) or "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def counted(things, name: str) -> str:
    """1 stage, 2 stages."""
    return f"{len(things)} {name}" + ("" if len(things) == 1 else "s")


def print_problems(problems: list[Problem], as_json: bool) -> None:
    if as_json:
        print(json.dumps([vars(problem) for problem in problems], indent=1, ensure_ascii=False))
    else:
        for problem in problems:
            print(problem)
