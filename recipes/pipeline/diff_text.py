"""What `align diff` prints: the first difference and why, then every stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from recipes.pipeline.diff import FOLLOWS, NOT_DONE, ONLY_A, ONLY_B, OUTPUTS, Difference, StageDiff, first
from recipes.pipeline.display import table

COLUMNS = ("stage", "kind", "state", "outputs", "why")


def as_json(rows: list[StageDiff]) -> str:
    found = first(rows)
    content = {
        "equal": found is None,
        "first": found.stage if found else None,
        "stages": [asdict(row) for row in rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, default=str)


def text(rows: list[StageDiff], a: Path, b: Path) -> str:
    found = first(rows)
    lines = [f"A = {a}", f"B = {b}", ""]
    lines += _equal(rows) if found is None else _first(rows, found)
    cells = [[row.stage, row.kind, row.state, row.outputs or "-", row.why or "-"] for row in rows]
    return "\n".join([*lines, "", *table(COLUMNS, cells)])


def _equal(rows: list[StageDiff]) -> list[str]:
    left = sum(row.state == NOT_DONE for row in rows)
    done = f"{len(rows) - left} stages have the same configs, inputs, versions and outputs"
    done += " as recorded (align verify reads the bytes)"
    return [f"equal: {done}" + (f"; {left} are done in neither" if left else "")]


def _first(rows: list[StageDiff], found: StageDiff) -> list[str]:
    """The first divergent stage with all that differs in it; if its outputs are equal, also the first that are not."""
    lines = [f"first difference: stage {found.stage}, {_in_words(found)}"]
    lines += [_line(d) for d in found.differences if d.what == found.state]
    rest = [d for d in found.differences if d.what != found.state]
    lines += [f"  also: {_line(d).strip()}" for d in rest if d.what != OUTPUTS]
    lines += [f"  on other machines: {_line(d).strip()}" for d in found.machine]
    if found.state == OUTPUTS and not found.machine:
        lines.append("  the manifests know of no difference between the machines either")
    outputs = next((row for row in rows if row.outputs == "differ"), None)
    if found.outputs == "equal" and outputs:
        lines.append(f"first outputs that differ: stage {outputs.stage}, {_in_words(outputs)}")
        lines += [_line(d) for d in outputs.differences if d.what == outputs.state]
    elif found.outputs == "equal":
        lines.append("all outputs that both runs have are equal")
    return lines


def _in_words(row: StageDiff) -> str:
    if row.state in (ONLY_A, ONLY_B):
        return row.why
    if row.state == OUTPUTS:
        return "not reproducible: config, inputs and versions are the same, its outputs are not"
    if row.state == FOLLOWS:
        return f"it follows {row.why}"
    return {"config": "its config", "input": "an input from outside", "versions": "what it was made with"}[row.state]


def _line(found: Difference) -> str:
    return f"  {found.key}: {_value(found.a)} in A, {_value(found.b)} in B"


def _value(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text
