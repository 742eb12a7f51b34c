"""The data rules (data_prep/rules.py) on files from outside the pipeline, before the stage itself applies them.

A pass over all rows, so only `align check` does it, not every `align run`. The cores of this machine are shared: a
small file is one process' work, side by side with others; the rows of a large one are spread over all processes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.prompts import check_prompts
from recipes.pipeline.checks.rows import C17, FILES, batches, count_up_to
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.checks.tokenizers import Tokenizers, check_templates
from recipes.pipeline.config import Pipeline

if TYPE_CHECKING:
    from data_prep.workers import Workers

# kind of stage -> the kind of rows that data_prep.prepare makes for it
ROWS = {"base": "text", "sft": "sft", "reward": "reward", "preference": "preference"}
WORTH_A_PROCESS = 10**7  # bytes of data; less is read before processes have started
# What the stage's own pass over the rows is told beside it, and what holds where the stage does not have the key
CHOICES = {"over_length": "refuse", "bad_rows": "refuse", "embedded_turns": "refuse", "rewards": "optional"}
SAME = ("template", "model.encoder_seq_length", *(f"data.{key}" for key in CHOICES))  # one pass for equal ones


class _File(NamedTuple):
    """stage, name: whose input it is; tokenizer: of the model, where it is known before the run."""

    stage: Subject
    name: str
    path: Path
    tokenizer: Path | None


def check_data(pipeline: Pipeline, names: list[str] | None = None) -> list[Problem]:
    """Check every external file of rows or prompts as its stage would; what was refused, each problem once.

    names: only of these stages. The problems are in the order of the stages, however many processes there are. Lengths
    and token borders are checked where the tokenizer exists before the run: in a checkpoint from outside.
    """
    stages = [Subject(pipeline, s) for s in pipeline.stages.values() if names is None or s.name in names]
    with tempfile.TemporaryDirectory(prefix="align-check-") as scratch:
        tokenizers = Tokenizers(Path(scratch))
        unfit = check_templates(stages, tokenizers)
        files = [
            file for file in _files(stages, tokenizers) if (file.tokenizer, file.stage.get("template")) not in unfit
        ]
        found = [*unfit.values(), *chain.from_iterable(_check_all(files))]
        found += check_prompts(stages, tokenizers, set(unfit))
    return list(dict.fromkeys(found))


def _files(stages: list[Subject], tokenizers: Tokenizers) -> list[_File]:
    """Training and validation files from outside; several stages may read the same file."""
    files: dict[tuple, _File] = {}
    for stage in stages:
        for name in FILES if stage.kind in ROWS else ():
            ref = stage.get(f"inputs.{name}")
            if isinstance(ref, str) and references.thaw(ref) is None and Path(ref).exists():
                file = _File(stage, name, Path(ref), tokenizers.of(stage))
                files.setdefault((ROWS[stage.kind], ref, file.tokenizer, *map(stage.get, SAME)), file)
    return list(files.values())


def _check_all(files: list[_File]) -> Iterator[list[Problem]]:
    """What is wrong with each file, in their order."""
    from data_prep.passes import SMALL
    from data_prep.workers import Workers, usable_cores

    sizes = [file.path.stat().st_size for file in files]
    _shared[:] = files
    with Workers(usable_cores() if sum(sizes) >= WORTH_A_PROCESS else 1) as workers:
        workers.start()  # forked: the files are known to the children as they are, and they have no thread of a bar
        with _progress(sum(sizes)) as done:
            small = [number for number, size in enumerate(sizes) if size <= SMALL]
            found = workers.in_order(_check_shared, small, ahead=len(small))
            for file, size in zip(files, sizes, strict=True):
                yield next(found) if size <= SMALL else _check_file(file, workers)
                done(size)


_shared: list[_File] = []


def _check_shared(number: int) -> list[Problem]:
    return _check_file(_shared[number], 1)


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


def _check_file(file: _File, workers: Workers | int) -> list[Problem]:
    from data_prep.prepare import usable_rows
    from data_prep.template import Template

    stage, path = file.stage, file.path
    options = {key: stage.get(f"data.{key}", default) for key, default in CHOICES.items()}
    try:
        template = Template.load(stage.get("template")) if stage.get("template") else None
        length = stage.number("model.encoder_seq_length", 0)
        rows = usable_rows(ROWS[stage.kind], path, template, file.tokenizer, length, **options, workers=workers)
    except UserInputError as error:
        return _of_another_template(error.problems, stage.get("template"))
    except (FileNotFoundError, ValueError):
        return []  # an unknown template or choice: rules C13 and C18 say so
    needed = stage.number("model.global_batch_size", 0)
    planned = needed * batches(stage, file.name)
    there = count_up_to(path, planned)
    if rows >= needed or (there is not None and there < planned):  # else rule C17 itself has said it
        return []
    message = f"{path} has {rows} usable rows, one global batch needs {needed}"
    return [Problem(C17.id, stage.where(f"inputs.{file.name}"), message, C17.fix)]


def _of_another_template(problems: list[Problem], template: str) -> list[Problem]:
    """A file that was rendered with another template is told of once, not for its first ten rows."""
    rendered = [problem for problem in problems if problem.rule == "D12"]
    others = [problem for problem in problems if problem.rule != "D12"]
    if len(rendered) < 2 or any(problem.rule for problem in others):
        return problems
    more = "".join(f", {problem.message}" for problem in others)  # "290 more rows are refused"
    message = f"{rendered[0].message}; {len(rendered) - 1} rows like it{more}"
    return [Problem("D12", rendered[0].where, message, f"rebuild it: align data build CONFIG template={template}")]
