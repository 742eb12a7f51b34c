"""The data rules (data_prep/rules.py) on files from outside the pipeline, before the stage itself applies them.

A pass over all rows, so only `align check` does it, not every `align run`. Files are read side by side, row by row.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.external import Checkpoint
from recipes.pipeline.checks.rows import C17, FILES
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.config import Pipeline

# kind of stage -> the kind of rows that data_prep.prepare makes for it
ROWS = {"base": "text", "sft": "sft", "reward": "reward", "preference": "preference"}
WORTH_A_PROCESS = 10**7  # bytes of data; less is read before processes have started
_File = tuple[Subject, str, Path]  # whose input it is, the input's name, where it is


def check_data(pipeline: Pipeline, names: list[str] | None = None) -> list[Problem]:
    """Prepare every external training and validation file as its stage would, in a temporary folder; what was refused.

    names: only of these stages. The problems are in the order of the stages, however many processes there are. Lengths
    and token borders are checked where the tokenizer exists before the run: in a checkpoint from outside.
    """
    files: dict[tuple, _File] = {}
    for stage in pipeline.stages.values():
        subject = Subject(pipeline, stage)
        for name in FILES if stage.kind in ROWS and (names is None or stage.name in names) else ():
            ref = subject.get(f"inputs.{name}")
            if isinstance(ref, str) and references.thaw(ref) is None and Path(ref).is_file():
                key = (ROWS[stage.kind], ref, *map(subject.get, ("template", "data.over_length", "data.rewards")))
                files.setdefault(key, (subject, name, Path(ref)))  # several stages may read the same file
    return [problem for found in _check_all(list(files.values())) for problem in found]


def _check_all(files: list[_File]) -> Iterator[list[Problem]]:
    """What is wrong with each file, in their order. Each is one process' work where they are many and large."""
    sizes = [path.stat().st_size for *_, path in files]
    processes = min(len(files), len(os.sched_getaffinity(0)))
    if processes < 2 or sum(sizes) < WORTH_A_PROCESS:
        with _progress(sum(sizes)) as done:
            for file, size in zip(files, sizes, strict=True):
                yield _check_file(*file)
                done(size)
        return
    # Forked: the files are known to the children as they are, and the bar's thread is started after them.
    with multiprocessing.get_context("fork").Pool(processes, _share, (files,)) as pool, _progress(sum(sizes)) as done:
        for number, problems in enumerate(pool.imap(_check_shared, range(len(files)))):
            yield problems
            done(sizes[number])


_shared: list[_File] = []


def _share(files: list[_File]) -> None:
    _shared[:] = files


def _check_shared(number: int) -> list[Problem]:
    return _check_file(*_shared[number])


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
