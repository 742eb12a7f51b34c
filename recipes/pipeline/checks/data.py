"""The data rules (data_prep/rules.py) on files from outside the pipeline, before the stage itself applies them.

A pass over all rows, so only `align check` does it, not every `align run`. The cores of this machine are shared: a
small file is one process' work, side by side with others; the rows of a large one are spread over all processes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.external import Checkpoint
from recipes.pipeline.checks.rows import C17, FILES
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.config import Pipeline

if TYPE_CHECKING:
    from data_prep.workers import Workers

# kind of stage -> the kind of rows that data_prep.prepare makes for it
ROWS = {"base": "text", "sft": "sft", "reward": "reward", "preference": "preference"}
WORTH_A_PROCESS = 10**7  # bytes of data; less is read before processes have started
# What the stage's own pass over the rows is told beside it, and what holds where the stage does not have the key
CHOICES = {"over_length": "refuse", "bad_rows": "refuse", "embedded_turns": "refuse", "rewards": "optional"}
SAME = ("template", "model.encoder_seq_length", *(f"data.{key}" for key in CHOICES))  # one pass for equal ones
_File = tuple[Subject, str, Path]  # whose input it is, the input's name, where it is


def check_data(pipeline: Pipeline, names: list[str] | None = None) -> list[Problem]:
    """Check every external training and validation file as its stage would; what was refused.

    names: only of these stages. The problems are in the order of the stages, however many processes there are. Lengths
    and token borders are checked where the tokenizer exists before the run: in a checkpoint from outside.
    """
    files: dict[tuple, _File] = {}
    for stage in pipeline.stages.values():
        subject = Subject(pipeline, stage)
        for name in FILES if stage.kind in ROWS and (names is None or stage.name in names) else ():
            ref = subject.get(f"inputs.{name}")
            if isinstance(ref, str) and references.thaw(ref) is None and Path(ref).is_file():
                key = (ROWS[stage.kind], ref, *map(subject.get, SAME))
                files.setdefault(key, (subject, name, Path(ref)))  # several stages may read the same file
    return [problem for found in _check_all(list(files.values())) for problem in found]


def _check_all(files: list[_File]) -> Iterator[list[Problem]]:
    """What is wrong with each file, in their order."""
    from data_prep.passes import SMALL
    from data_prep.workers import Workers, usable_cores

    sizes = [path.stat().st_size for *_, path in files]
    _shared[:] = files
    with Workers(usable_cores() if sum(sizes) >= WORTH_A_PROCESS else 1) as workers:
        workers.start()  # forked: the files are known to the children as they are, and they have no thread of a bar
        with _progress(sum(sizes)) as done:
            small = [number for number, size in enumerate(sizes) if size <= SMALL]
            found = workers.in_order(_check_shared, small, ahead=len(small))
            for file, size in zip(files, sizes, strict=True):
                yield next(found) if size <= SMALL else _check_file(*file, workers)
                done(size)


_shared: list[_File] = []


def _check_shared(number: int) -> list[Problem]:
    return _check_file(*_shared[number], 1)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, for more than a moment's work: a bar on stderr. Yields what is told of the bytes that are done."""
    if not sys.stderr.isatty() or total < WORTH_A_PROCESS:
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn

    columns = ("checking data", BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda size: bar.advance(task, size)


def _check_file(stage: Subject, name: str, path: Path, workers: Workers | int) -> list[Problem]:
    from data_prep.prepare import usable_rows
    from data_prep.template import Template

    options = {key: stage.get(f"data.{key}", default) for key, default in CHOICES.items()}
    with tempfile.TemporaryDirectory(prefix="align-check-") as scratch:
        try:
            template = Template.load(stage.get("template")) if stage.get("template") else None
            tokenizer = _tokenizer(stage, Path(scratch))
            length = stage.number("model.encoder_seq_length", 0)
            rows = usable_rows(ROWS[stage.kind], path, template, tokenizer, length, **options, workers=workers)
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
