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
