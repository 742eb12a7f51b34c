"""The data rules (data_prep/rules.py) on files from outside the pipeline, before the stage itself applies them.

A pass over all rows, so only `align check` does it, not every `align run`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.external import Checkpoint
from recipes.pipeline.checks.rows import C17, FILES
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.config import Pipeline

# kind of stage -> the kind of rows that data_prep.prepare makes for it
ROWS = {"base": "text", "sft": "sft", "reward": "reward", "preference": "preference"}


def check_data(pipeline: Pipeline) -> list[Problem]:
    """Prepare every external training and validation file as its stage would, in a temporary folder; what was refused.

    Lengths and token borders are checked where the tokenizer exists before the run: in a checkpoint from outside.
    """
    problems: dict[tuple, list[Problem]] = {}
    for stage in pipeline.stages.values():
        subject = Subject(pipeline, stage)
        for name in FILES if stage.kind in ROWS else ():
            ref = subject.get(f"inputs.{name}")
            if isinstance(ref, str) and references.thaw(ref) is None and Path(ref).is_file():
                key = (ROWS[stage.kind], ref, *map(subject.get, ("template", "data.over_length", "data.rewards")))
                if key not in problems:  # several stages may read the same file
                    problems[key] = _check_file(subject, name, Path(ref))
    return [problem for found in problems.values() for problem in found]


def _check_file(stage: Subject, name: str, path: Path) -> list[Problem]:
    from data_prep.prepare import prepare
    from data_prep.template import Template

    options = {"over_length": stage.get("data.over_length", "refuse"), "rewards": stage.get("data.rewards", "optional")}
    with tempfile.TemporaryDirectory(prefix="align-check-") as scratch:
        try:
            template = Template.load(stage.get("template")) if stage.get("template") else None
            tokenizer = _tokenizer(stage, Path(scratch))
            length = stage.number("model.encoder_seq_length", 0)
            rows = prepare(ROWS[stage.kind], path, Path(scratch), name, template, tokenizer, length, **options).rows
        except UserInputError as error:
            return error.problems
        except (FileNotFoundError, ValueError):
            return []  # an unknown template or choice: rules C13 and C18 say so
    needed = stage.number("model.global_batch_size", 0)
    if rows >= needed:
        return []
    message = f"{path} has {rows} usable rows, one global batch needs {needed}"
    return [Problem(C17.id, stage.where(f"inputs.{name}"), message, C17.fix)]


def _tokenizer(stage: Subject, scratch: Path) -> Path | None:
    """The tokenizer at the root of the stage's chain of checkpoints, if it exists already."""
    own = stage.get("inputs.tokenizer")
    if isinstance(own, str) and references.thaw(own) is None and Path(own).is_file():
        return Path(own)
    for _, source in stage.models():
        if isinstance(source, Checkpoint):
            return source.tokenizer(scratch) if not source.problem else None
        return _tokenizer(source, scratch)
    return None
