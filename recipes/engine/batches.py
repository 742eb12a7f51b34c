"""Work through the rows of a job in batches: dealt to ranks and to the tasks of an array job, kept on disk once done.

Batch b of a job always holds the same rows and is seeded with (seed, b), so a row depends on the job's config and not
on how many ranks or array tasks worked, or how often they were interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from megatron.core import parallel_state as mcore_state
from nemo_aligner.utils import parallel_state

from recipes.pipeline.files import canonical_json

Work = Callable[[int, range], list]
ABSENT = -1


class Done:
    """The finished batches of a job: files `<task>-<rank>.jsonl` in a folder named by what decides the rows.

    A batch is one line a row and a closing line; what a kill left open is not counted and its batch is done again.
    identity: everything that the rows depend on, JSON; work begun with another identity is not mixed in.
    """

    def __init__(self, directory: Path, identity: object, count: int, size: int):
        name = hashlib.sha256(canonical_json([identity, count, size]).encode()).hexdigest()[:16]
        self.directory = directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.count, self.size = count, size
        self.batches: set[int] = set()
        self._files: list[Path] = []
        self._file, self._offset = array("i", [ABSENT]) * count, array("q", [0]) * count
        self._open: dict[int, object] = {}

    def read(self) -> None:
        """Look at what all tasks and ranks have finished."""
        self.batches, self._files = set(), sorted(self.directory.glob("*.jsonl"))
        for number, path in enumerate(self._files):
            with path.open("rb") as lines:
                self._index(number, lines)

    def _index(self, number: int, lines) -> None:
        start, offset = [], 0
        for line in lines:
            if not line.endswith(b"\n"):
                return  # torn by a kill
            if line.startswith(b'{"batch"'):
                batch = json.loads(line)["batch"]
                self.batches.add(batch)
                for row, where in zip(self.rows_of(batch), start, strict=True):
                    self._file[row], self._offset[row] = number, where
                start = []
            else:
                start.append(offset)
            offset += len(line)

    def rows_of(self, batch: int) -> range:
        return range(batch * self.size, min((batch + 1) * self.size, self.count))

    @property
    def complete(self) -> bool:
        return len(self.batches) == -(-self.count // self.size)

    def writer(self, task: int, rank: int) -> Callable[[int, list], None]:
        """A function (batch, rows) that adds one batch to this rank's file, in one write."""
        path = self.directory / f"{task}-{rank}.jsonl"
        _cut_torn_batch(path)
        file = path.open("ab", buffering=0)

        def add(batch: int, rows: list) -> None:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows] + [json.dumps({"batch": batch})]
            file.write("".join(line + "\n" for line in lines).encode())
            os.fsync(file.fileno())

        return add

    def __getitem__(self, row: int):
        """The result of one row, read from its file."""
        number = self._file[row]
        if number not in self._open:
            self._open[number] = self._files[number].open("rb")
        file = self._open[number]
        file.seek(self._offset[row])
        return json.loads(file.readline())


def _cut_torn_batch(path: Path) -> None:
    """Remove what follows the last closed batch, so that what is appended starts on a line of its own."""
    if not path.exists():
        return
    end = offset = 0
    with path.open("r+b") as file:
        for line in file:
            offset += len(line)
            if line.startswith(b'{"batch"') and line.endswith(b"\n"):
                end = offset
        file.truncate(end)


def array_task(tasks: int) -> int | None:
    """Which of `tasks` array tasks this process belongs to (ALIGN_ARRAY_TASK); None: it works on all of them."""
    given = os.environ.get("ALIGN_ARRAY_TASK")
    if given is None or tasks == 1:
        return None
    if not given.isdigit() or int(given) >= tasks:
        raise ValueError(f"ALIGN_ARRAY_TASK is {given}, resources.array is {tasks}: the tasks are 0..{tasks - 1}")
    return int(given)


def dealt(numbers: Sequence[int], task: int | None = None, tasks: int = 1) -> list[int]:
    """The batches of `numbers` that this array task and this data-parallel rank work on."""
    mine = [n for n in numbers if task is None or n % tasks == task]
    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    return mine[rank::ranks]


def in_memory(count: int, size: int, work: Work, progress: Callable[[int], None]) -> list:
    """All rows, worked on by the data-parallel ranks together; every rank gets all of them, in order."""
    numbers = range(-(-count // size))
    mine = list(_results(dealt(numbers), count, size, work, progress))
    gathered = [None] * parallel_state.get_data_parallel_world_size()
    torch.distributed.all_gather_object(gathered, mine, group=parallel_state.get_data_parallel_group())
    batches = dict(batch for part in gathered for batch in part)
    return [row for number in sorted(batches) for row in batches[number]]


def on_disk(done: Done, work: Work, progress: Callable[[int], None], tasks: int = 1) -> bool:
    """Finish what is not in `done` yet, or this array task's part of it. True when all batches of the job are there.

    Rows are read from `done` afterwards; nothing is kept in memory.
    """
    task = array_task(tasks)
    done.read()
    torch.distributed.barrier()  # nobody adds a batch before all have seen the same ones
    progress(len(done.batches) * done.size)
    left = [n for n in range(-(-done.count // done.size)) if n not in done.batches]
    # All ranks of one copy of the model hold the same rows: the first of them writes.
    writes = mcore_state.get_tensor_model_parallel_rank() == mcore_state.get_pipeline_model_parallel_rank() == 0
    add = done.writer(task or 0, parallel_state.get_data_parallel_rank()) if writes else None
    for number, rows in _results(dealt(left, task, tasks), done.count, done.size, work, progress):
        if add:
            add(number, rows)
    torch.distributed.barrier()
    done.read()
    return done.complete


def _results(numbers: Sequence[int], count: int, size: int, work: Work, progress) -> Iterator[tuple[int, list]]:
    for number in numbers:
        rows = range(number * size, min((number + 1) * size, count))
        yield number, work(number, rows)
        progress(len(rows) * parallel_state.get_data_parallel_world_size())
