"""Processes that share a piece of work: results come in the order of the tasks, and few of them are under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context

from recipes.errors import StageFailed

MOST = 8  # one process writes what the others make: more of them wait for it


def usable_cores() -> int:
    """Cores this process may run on, of a Slurm job those of the job; at most MOST."""
    return min(MOST, len(os.sched_getaffinity(0)))


class Workers:
    """`count` forked processes, from the first task to the end of the block; with a count of 1 there are none, and
    tasks run in this process. Forked, so that they have what was loaded before without a copy.

    An exception of a task is raised where its result would be; StageFailed if a process is killed. Leaving the block
    gives up the tasks that have not begun.
    """

    def __init__(self, count: int):
        self.count, self._pool = max(1, count), None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def start(self) -> None:
        """Fork now, before something else starts a thread."""
        if self._pool is None and self.count > 1:
            self._pool = ProcessPoolExecutor(self.count, mp_context=get_context("fork"))
            with _quiet_tokenizers():
                self._pool.submit(os.getpid)  # the first task forks all of them

    def in_order(self, function: Callable, items: Iterable, ahead: int | None = None) -> Iterator:
        """function(item) for each item. ahead: how many tasks may be under way or done and not yet asked for (by
        default two a process); so many items are taken at once, the others as results are asked for."""
        if self.count == 1:
            return map(function, items)
        items = iter(items)
        ahead = 2 * self.count if ahead is None else ahead
        return self._results(function, items, deque(self._submit(function, item) for item in islice(items, ahead)))

    def _results(self, function: Callable, items: Iterator, waiting: deque[Future]) -> Iterator:
        while waiting:
            try:
                result = waiting.popleft().result()
            except BrokenProcessPool as error:
                raise _killed() from error
            waiting.extend(self._submit(function, item) for item in islice(items, 1))
            yield result

    def _submit(self, function: Callable, item: object) -> Future:
        self.start()
        try:
            return self._pool.submit(function, item)
        except BrokenProcessPool as error:
            raise _killed() from error


def _killed() -> StageFailed:
    return StageFailed("a worker process was killed, perhaps for want of memory; give the command again to go on")


@contextmanager
def _quiet_tokenizers() -> Iterator[None]:
    """The package tokenizers, if it has used its threads, warns in every fork that does not say how many it may use."""
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
