"""Enough rows for one global batch, in files that exist before the run."""

from __future__ import annotations

from pathlib import Path

from recipes.pipeline import references
from recipes.pipeline.checks.registry import Rule

D8 = Rule(
    "D8",
    title="Training and validation files have at least one global batch of rows",
    explanation="With fewer training rows the sampler divides by zero. With fewer validation rows NeMo-Aligner "
    "switches validation off without a word and names the checkpoint val_loss=0.000.",
    fix="more rows or a smaller model.global_batch_size",
)
C14 = Rule(
    "C14",
    title="Settings that do less than they seem to",
    explanation="limit_val_batches: 1 is one batch, not all (1.0). NeMo switches sequence parallelism off without a"
    " word where TP is 1.",
    fix="say what is meant",
    severity="warn",
)


@D8
def one_global_batch(stage):
    needed = stage.number("model.global_batch_size")
    if not needed or not stage.loop:
        return
    for name in ("train", "validation"):
        for ref in references.items(stage.get(f"inputs.{name}")):
            if references.thaw(ref) is None and ref.endswith((".jsonl", ".jsonl.gz")) and Path(ref).is_file():
                rows = _count(Path(ref), needed)
                if rows < needed:
                    yield (
                        f"inputs.{name}",
                        f"{ref} has {rows} rows, one global batch needs {needed}",
                        "add rows or lower model.global_batch_size",
                    )


def _count(path: Path, limit: int) -> int:
    """Rows of a file, counted no further than `limit`."""
    import gzip

    rows = 0
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as lines:
        for line in lines:
            rows += bool(line.strip())
            if rows >= limit:
                break
    return rows


@C14
def one_batch_of_validation(stage):
    key = f"{stage.loop}.limit_val_batches"
    value = stage.get(key)
    if stage.loop and isinstance(value, int) and not isinstance(value, bool) and value == 1:
        yield key, "1 is one batch", "write 1.0 for all of them"


@C14
def sequence_parallel_alone(stage):
    if stage.get("model.sequence_parallel") and stage.number("model.tensor_model_parallel_size", 1) == 1:
        yield "model.sequence_parallel", "has no effect where TP is 1", "raise TP or switch it off"
