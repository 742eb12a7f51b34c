"""Input references: "<stage>/<output>" is what another stage made, anything else is a path on this machine."""

from __future__ import annotations

import os

from recipes.errors import Problem
from recipes.pipeline.merge import MISSING


def split(reference: str, stages) -> tuple[str, str] | None:
    """(stage, path under its outputs/) of a reference to a stage of this pipeline, None for a file-system path."""
    head, _, rest = reference.partition("/")
    return (head, rest) if head in stages else None


def items(value) -> list[str]:
    """The references in one input: none, one, or a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def parents(inputs: dict, stages) -> list[str]:
    """The stages that these inputs come from, each once, in the order of the inputs."""
    found = [split(ref, stages) for value in inputs.values() for ref in items(value)]
    return list(dict.fromkeys(pair[0] for pair in found if pair))


def freeze(value, stages):
    """An input as the frozen config has it: relative to the stage's folder inside the run, otherwise absolute.

    `???`, which only an open pipeline has (config.compose), stays what it is.
    """
    if isinstance(value, list):
        return [freeze(item, stages) for item in value]
    if value in (None, MISSING):
        return value
    pair = split(value, stages)
    return f"../{pair[0]}/outputs/{pair[1]}" if pair else os.path.abspath(os.path.expanduser(value))


def thaw(value: str) -> tuple[str, str] | None:
    """(stage, path under its outputs/) of a frozen input, None for one from outside the run."""
    parts = value.split("/", 3)
    return (parts[1], parts[3]) if len(parts) == 4 and parts[0] == ".." and parts[2] == "outputs" else None


def problems(inputs: dict, base_inputs: dict, stages, where) -> list[Problem]:
    """What is wrong with the shape of the references. `where(name)` says where an input is set."""
    found = []
    for name, value in inputs.items():
        if isinstance(value, list) and not isinstance(base_inputs.get(name, []), list):
            found.append(
                Problem(
                    "",
                    where(name),
                    f"`inputs.{name}` takes one reference, not a list",
                    "give one; blend the files first",
                )
            )
            continue
        for ref in items(value):
            message, fix = _one(name, ref, stages)
            if message:
                found.append(Problem("", where(name), message, fix))
    return found


def _one(name: str, ref, stages) -> tuple[str, str]:
    if not isinstance(ref, str) or not ref:
        return f"`inputs.{name}` is {ref!r}, not a reference", "write <stage>/<output> or a path"
    pair = split(ref, stages)
    if pair and not pair[1]:
        return (
            f"`{ref}` names a stage but none of its outputs",
            f"write for example {ref.rstrip('/')}/model (or ./{ref} for a file)",
        )
    if pair and (pair[1].startswith("outputs/") or ".." in pair[1].split("/")):
        return (
            f"`{ref}` must be relative to the outputs of stage {pair[0]}",
            f"write {pair[0]}/{pair[1].removeprefix('outputs/')}",
        )
    return "", ""
