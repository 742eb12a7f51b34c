"""Enough rows for one global batch, as far as the configs and the files that exist before the run tell."""

from __future__ import annotations

import math
from pathlib import Path

from recipes.pipeline import references
from recipes.pipeline.checks.registry import Rule

C17 = Rule(
    "C17",
    title="Training and validation files have at least one global batch of rows",
    explanation="With fewer training rows the sampler divides by zero. With fewer validation rows NeMo-Aligner "
    "switches validation off without a word and names the checkpoint val_loss=0.000. A pairs stage makes at most one "
    "pair of a prompt and keeps some out of training: too few prompts would be noticed when all are answered.",
    fix="more rows or a smaller model.global_batch_size",
)
FILES = ("train", "validation")


@C17
def one_global_batch(stage):
    batch = stage.number("model.global_batch_size")
    for name in FILES if batch and stage.loop else ():
        needed = batch * batches(stage, name)
        for ref in references.items(stage.get(f"inputs.{name}")):
            pair = references.thaw(ref)
            rows, where = _planned(stage, *pair) if pair else (count_up_to(Path(ref), needed), ref)
            if rows is not None and rows < needed:
                message = f"{where} has {rows} rows, one global batch of stage {stage.name} needs {needed}"
                if needed > batch:
                    message += f" with limit_val_batches {stage.get(f'{stage.loop}.limit_val_batches')}"
                yield f"inputs.{name}", message, "make it larger or lower model.global_batch_size"


@C17
def prompts_for_one_global_batch(stage):
    """Of pairs that this pipeline makes, as far as their prompts can be counted."""
    from recipes.pipeline.checks.subject import Subject
    from recipes.planner.data import ASSUMED, prompts_behind

    batch = stage.number("model.global_batch_size")
    for ref in references.items(stage.get("inputs.train")) if batch and stage.loop else ():
        pair = references.thaw(ref)
        parent = stage.pipeline.stages.get(pair[0]) if pair else None
        if parent is None or parent.kind != "pairs" or pair[1] != "pairs.jsonl":
            continue
        source = Subject(stage.pipeline, parent)
        (prompts, how), held_out = prompts_behind(source), source.number("pairs.validation_rows", 0)
        if prompts is not None and how != ASSUMED and prompts - held_out < batch:
            message = f"{prompts} prompts give at most one pair each, and pairs.validation_rows keeps {held_out} out"
            message += f": {max(0, prompts - held_out)} are left, one global batch needs {batch}"
            yield "inputs.train", message, f"give at least {held_out + batch} prompts, or lower pairs.validation_rows"


def batches(stage, name: str) -> int:
    """Global batches that a file must have: a share of the validation batches is rounded down, perhaps to none."""
    share = stage.get(f"{stage.loop}.limit_val_batches")
    return math.ceil(1 / share) if name == "validation" and isinstance(share, float) and 0 < share < 1 else 1


def _planned(stage, producer: str, output: str) -> tuple[int | None, str]:
    """Rows that a stage of this pipeline is configured to write to one of its outputs, where its config says so."""
    from recipes.pipeline.checks.subject import Subject

    parent = stage.pipeline.stages.get(producer)
    source = Subject(stage.pipeline, parent) if parent else None
    if source and source.kind == "pairs" and output == "pairs_validation.jsonl":
        return source.number("pairs.validation_rows"), f"{producer}.pairs.validation_rows: {output}"
    if source and source.kind == "data" and output == "validation.jsonl":
        return source.number("validation.rows"), f"{producer}.validation.rows: {output}"
    if source and source.kind == "world":
        key = f"sizes.{output.removesuffix('.jsonl')}"
        return source.number(key), f"{producer}.{key}: {output}"
    return None, ""


def count_up_to(path: Path, limit: int) -> int | None:
    """Rows of a JSONL file, counted no further than `limit`; None for what is not there, torn, or of another format."""
    import gzip
    import zlib

    if not path.name.endswith((".jsonl", ".jsonl.gz")) or not path.is_file():
        return None
    rows = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as lines:
            for line in lines:
                rows += bool(line.strip())
                if rows >= limit:
                    break
    except (EOFError, OSError, zlib.error):
        return None  # the data rules say so
    return rows
