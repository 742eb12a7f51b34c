"""Rows and tokens of a stage before it has run: counted, written in a config, assumed, or bounded from above."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from recipes.errors import UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.lengths import length_of
from recipes.pipeline.checks.subject import Subject

INPUT = {  # others: train
    "generate": "prompts", "respond": "prompts", "evaluate": "prompts", "score": "responses", "judge": "responses",
}  # fmt: skip
COUNTED, ASSUMED, CONFIG, BOUND = "counted", "assumed", "config", "upper bound"
WORST = (COUNTED, CONFIG, ASSUMED, BOUND)  # last: what a sum of several is


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
    counts = [count(path) if path.is_file() else None for path in files]
    if files and len(files) == len(given) and None not in counts:
        return sum(counts), COUNTED
    found = [_made(stage, *pair) for pair in map(references.thaw, given) if pair]
    known = found and len(found) == len(given) and not any(rows is None for rows, _, _ in found)
    rows = sum(rows for rows, _, _ in found) if known else None
    how = max((how for _, how, _ in found), key=WORST.index) if known else ""
    if assumed and not (known and all(counted for _, _, counted in found) and (how == COUNTED or rows < assumed)):
        return assumed, ASSUMED  # a bound from counted files that is below it shows that it cannot be
    return rows, how


def _generators(stage: Subject) -> list[Subject] | None:
    """The stages that answered the prompts behind what a stage reads; None where some of it comes from elsewhere."""
    found, todo = [], _read(stage)
    for ref in todo:
        pair = references.thaw(ref)
        parent = stage.pipeline.stages.get(pair[0]) if pair else None
        if parent is None or parent.kind not in ("generate", "respond", "score", "judge", "pairs"):
            return None
        source = Subject(stage.pipeline, parent)
        if source.kind in ("generate", "respond"):
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
    if any(maker.kind != "generate" for maker in makers or ()):
        return None
    prompts = [stage.pipeline.assumed.get(maker.name, {}).get("tokens") for maker in makers or ()]
    if not prompts or None in prompts:
        return None
    return max(tokens + maker.number("max_new_tokens", 0) for tokens, maker in zip(prompts, makers))


def _made(stage: Subject, producer: str, output: str) -> tuple[int | None, str, bool]:
    """(rows, where from, from counted files?) of what another stage is configured to write, where its config and its
    inputs tell."""
    parent = stage.pipeline.stages.get(producer)
    if parent is None:
        return None, "", False
    source = Subject(stage.pipeline, parent)
    if source.kind == "world":
        name = re.sub(r"_round\d+$", "", output.removesuffix(".jsonl"))
        return source.number(f"sizes.{name}"), CONFIG, False
    if source.kind == "user_turns" and output == "prompts.jsonl":  # unusable ones are left out
        return source.number("count"), BOUND, False
    if source.kind in ("generate", "respond"):
        rows, how = of_prompts(source)
        each = source.number("responses_per_prompt", 1)
        return (None if rows is None else rows * each), how, how == COUNTED
    if source.kind in ("score", "judge"):
        rows, how = _rows(source, None)
        return rows, how, how == COUNTED
    if source.kind == "pairs":
        rows, how = prompts_behind(source)
        left = None if rows is None else max(0, rows - source.number("pairs.validation_rows", 0))
        return left, BOUND, how == COUNTED
    return None, "", False


def of_prompts(stage: Subject) -> tuple[int | None, str]:
    """Prompts of a generate or respond stage."""
    return _rows(stage, stage.pipeline.assumed.get(stage.name, {}).get("rows"))


def prompts_behind(stage: Subject) -> tuple[int | None, str]:
    """(prompts behind a pairs stage, which makes at most one pair of each, where from); stages may share a file."""
    prompts = {maker.get("inputs.prompts"): of_prompts(maker) for maker in _generators(stage) or ()}
    if not prompts or any(rows is None for rows, _ in prompts.values()):
        return None, ""
    how = max((how for _, how in prompts.values()), key=WORST.index)
    return sum(rows for rows, _ in prompts.values()), how


def count(path: Path) -> int | None:
    """Rows of a file of any format that is read here, lines of JSONL without a look at them; None where it is torn."""
    known = path.stat()
    return _count(path.absolute(), known.st_mtime_ns, known.st_size)


@lru_cache(256)
def _count(path: Path, changed: int, size: int) -> int | None:
    """Many rules and stages ask for the same file."""
    import gzip
    import zlib

    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        return _slowly(path)
    lines, last = 0, b"\n"
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            while block := file.read(1 << 20):
                lines, last = lines + block.count(b"\n"), block[-1:]
    except (EOFError, OSError, zlib.error):
        return None
    return lines + (last != b"\n")


def _slowly(path: Path) -> int | None:
    from data_prep.jsonl import read_rows

    try:
        return sum(1 for _ in read_rows(path))
    except UserInputError:
        return None
