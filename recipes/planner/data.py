"""Rows and tokens of a stage before it has run: counted, written in a config, assumed, or bounded from above."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from recipes.pipeline import references
from recipes.pipeline.checks.lengths import length_of
from recipes.pipeline.checks.subject import Subject

INPUT = {"generate": "prompts", "evaluate": "prompts", "score": "responses"}  # others: train
COUNTED, ASSUMED, CONFIG, BOUND = "counted", "assumed", "config", "upper bound"


@dataclass(frozen=True)
class Data:
    """rows: of the training file, prompts, or responses to score; tokens: mean of a row; sequence: the longest row.

    rows_from, tokens_from: where the numbers come from; rows is None where nothing tells
    """

    rows: int | None
    rows_from: str
    tokens: int
    tokens_from: str
    sequence: int


def of_stage(stage: Subject) -> Data:
    """What is known about the rows of one stage."""
    assumed = stage.pipeline.assumed.get(stage.name, {})
    rows, rows_from = _rows(stage, assumed.get("rows"))
    sequence = length_of(stage) or stage.pipeline.architecture.get("encoder_seq_length") or 0
    tokens = assumed.get("tokens") or _answered(stage)
    if tokens:
        return Data(rows, rows_from, min(tokens, sequence or tokens), ASSUMED, sequence or tokens)
    new = stage.number("max_new_tokens", 0)
    return Data(rows, rows_from, max(0, sequence - new), BOUND, sequence)


def _rows(stage: Subject, assumed: int | None) -> tuple[int | None, str]:
    if stage.kind == "user_turns":
        return stage.number("count"), CONFIG
    given = references.items(stage.get(f"inputs.{INPUT.get(stage.kind, 'train')}"))
    files = [Path(ref) for ref in given if references.thaw(ref) is None]
    if files and len(files) == len(given) and all(path.is_file() for path in files):
        return sum(map(count, files)), COUNTED
    if assumed:
        return assumed, ASSUMED
    found = [_made(stage, *pair) for pair in map(references.thaw, given) if pair]
    if not found or len(found) < len(given) or any(rows is None for rows, _ in found):
        return None, ""
    return sum(rows for rows, _ in found), max((how for _, how in found), key=(COUNTED, CONFIG, ASSUMED, BOUND).index)


def _generators(stage: Subject) -> list[Subject] | None:
    """The generate stages behind the responses or pairs that a stage reads; None where some come from elsewhere."""
    found, todo = [], _read(stage)
    for ref in todo:
        pair = references.thaw(ref)
        parent = stage.pipeline.stages.get(pair[0]) if pair else None
        if parent is None or parent.kind not in ("generate", "score", "pairs"):
            return None
        source = Subject(stage.pipeline, parent)
        if source.kind == "generate":
            found.append(source)
        else:
            todo += _read(source)
    return found


def _read(stage: Subject) -> list[str]:
    keys = ("responses", "scored", "train")
    return [ref for key in keys for ref in references.items(stage.get(f"inputs.{key}"))]


def _answered(stage: Subject) -> int | None:
    """Tokens of prompt and answer where the prompts' length is assumed: an answer has at most max_new_tokens."""
    makers = _generators(stage) if stage.kind in ("score", "preference") else None
    prompts = [stage.pipeline.assumed.get(maker.name, {}).get("tokens") for maker in makers or ()]
    if not prompts or None in prompts:
        return None
    return max(tokens + maker.number("max_new_tokens", 0) for tokens, maker in zip(prompts, makers))


def _made(stage: Subject, producer: str, output: str) -> tuple[int | None, str]:
    """(rows, where from) of what another stage is configured to write, where its config and its inputs tell."""
    parent = stage.pipeline.stages.get(producer)
    if parent is None:
        return None, ""
    source = Subject(stage.pipeline, parent)
    if source.kind == "world":
        name = re.sub(r"_round\d+$", "", output.removesuffix(".jsonl"))
        return source.number(f"sizes.{name}"), CONFIG
    if source.kind == "generate":
        rows, how = of_prompts(source)
        each = source.number("responses_per_prompt", 1)
        return (None if rows is None else rows * each), how
    if source.kind == "pairs":  # at most one a prompt; the held-out ones are taken off
        return _pairs(source), BOUND
    return None, ""


def of_prompts(stage: Subject) -> tuple[int | None, str]:
    """Prompts of a generate stage."""
    return _rows(stage, stage.pipeline.assumed.get(stage.name, {}).get("rows"))


def _pairs(stage: Subject) -> int | None:
    """Prompts behind a pairs stage, less the held-out ones; several responses to one prompt are one pair."""
    prompts = [of_prompts(maker)[0] for maker in _generators(stage) or ()]
    if not prompts or None in prompts:
        return None
    return max(0, max(prompts) - stage.number("pairs.validation_rows", 0))


def count(path: Path) -> int:
    """Lines of a file, .gz or not; a last line without its end counts."""
    import gzip

    lines, last = 0, b"\n"
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        while block := file.read(1 << 20):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return lines + (last != b"\n")
