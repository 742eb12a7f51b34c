"""The one thread that generates, on every rank: rank 0 collects rows into batches, the others follow it.

Rank 0 says what comes next over a gloo group of its own, so that waiting ranks keep no accelerator busy; it says so
every HEARTBEAT seconds also when there is nothing to do, which is how a rank that is gone is noticed. A request is
checked before it gets here. What fails here all the same may have left the ranks out of step: it ends the server.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy
from nemo.collections.nlp.modules.common.text_generation_utils import generate

from recipes.engine.serving import decoding
from recipes.engine.serving.rows import Refused, Row

HEARTBEAT = 2.0
LOST = timedelta(minutes=5)  # without a word from rank 0, for as long as its machine can stand still
BATCH, WHOLE, IDLE, STOP = "batch", "whole", "idle", "stop"


class Control:
    """Messages from rank 0 to all others; nothing is sent where it is alone."""

    def __init__(self):
        self.group = dist.new_group(backend="gloo", timeout=LOST) if dist.get_world_size() > 1 else None

    def send(self, kind: str, content=None) -> None:
        if self.group is not None:
            dist.broadcast_object_list([kind, content], 0, self.group, torch.device("cpu"))

    def receive(self) -> tuple[str, object]:
        message = [None, None]
        dist.broadcast_object_list(message, 0, self.group, torch.device("cpu"))
        return tuple(message)


def follow(model, control: Control, stop: str) -> None:
    """What a rank other than the first does until it is told to stop. RuntimeError when the first one is gone."""
    strategy = GPTModelTextGenerationStrategy(model)
    while True:
        kind, content = control.receive()
        if kind == STOP:
            return
        if kind == BATCH:
            decoding.generate(model, content, stop)
        elif kind == WHOLE:
            torch.manual_seed(content)
            choice = torch.cuda.LongTensor(1)
            dist.broadcast(choice, 0)  # what NeMo's handler sends on its own
            generate(model, strategy=strategy)


@dataclass
class _Waiting:
    row: Row
    future: Future


@dataclass
class _Whole:
    """A call that generates by itself, NeMo's handler of PUT /generate."""

    call: Callable
    future: Future


@dataclass
class Counts:
    """What was done so far. rows: answers; batches: calls of the model for them; whole: calls of PUT /generate."""

    rows: int = 0
    batches: int = 0
    tokens: int = 0
    whole: int = 0
    largest_batch: int = 0
    seconds: float = 0.0


@dataclass
class Worker:
    """Rank 0's queue. `submit` and `call` are for other threads, `work` is for the one that generates.

    batch_size: rows in one batch; length_spread: by how many tokens their prompts may differ, since NeMo reads what
    goes beyond the shortest one token by token; collect_seconds: a batch that is not full waits as long for one more,
    unless the last one was of a single row: a client alone shall not wait for others.
    """

    model: object
    control: Control
    stop: str
    batch_size: int
    length_spread: int
    collect_seconds: float
    counts: Counts = field(default_factory=Counts)
    stopping: bool = False
    inbox: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    waiting: list = field(default_factory=list)
    _company: bool = False

    def submit(self, rows: list[Row]) -> list[Future]:
        """Futures of the rows' answers. Their exceptions: Refused with status 503 when the server stops."""
        jobs = [_Waiting(row, Future()) for row in rows]
        self._put(jobs)
        return [job.future for job in jobs]

    def call(self, function: Callable) -> Future:
        job = _Whole(function, Future())
        self._put([job])
        return job.future

    def _put(self, jobs: list) -> None:
        if self.stopping:
            raise _stopping()
        self.inbox.put(jobs)

    def end(self) -> None:
        """Stop after the batch at work. For signal handlers too: nothing here takes a lock."""
        self.stopping = True
        self.inbox.put([])

    def work(self) -> None:
        """Generate until `end` is called; then turn down whatever still waits."""
        try:
            while not self.stopping:
                self._receive(HEARTBEAT)
                if self.waiting and not self.stopping:
                    self._next()
                else:
                    self._send(IDLE)
            self._send(STOP)
        finally:
            self.stopping = True
            self._turn_down()

    def _send(self, kind: str, content=None) -> None:
        """Tell the other ranks, which may have been sent the same signal as this one, and be gone."""
        with suppress(RuntimeError) if self.stopping else nullcontext():
            self.control.send(kind, content)

    def _receive(self, seconds: float) -> None:
        """Move what has come to `waiting`; with nothing there wait at most `seconds` for the first."""
        with suppress(queue.Empty):
            if not self.waiting:
                self.waiting += self.inbox.get(timeout=seconds)
            while True:
                self.waiting += self.inbox.get_nowait()

    def _next(self) -> None:
        """Work on the job that has waited longest, and on the rows that can go with it."""
        first = self.waiting[0]
        if isinstance(first, _Whole):
            self.waiting.pop(0)
            self._whole(first)
        else:
            self._batch(self._companions(first))

    def _companions(self, first: _Waiting) -> list[_Waiting]:
        """Rows for one batch with `first`, taken from `waiting`. A batch that is not full waits as long as it grows."""
        size = 0
        while True:
            batch = [job for job in self.waiting if self._fits(job, first)][: self.batch_size]
            alone = len(batch) == 1 and not self._company
            if len(batch) in (size, self.batch_size) or alone:
                self._company = len(batch) > 1
                taken = set(map(id, batch))
                self.waiting = [job for job in self.waiting if id(job) not in taken]
                return batch
            size = len(batch)
            with suppress(queue.Empty):
                self.waiting += self.inbox.get(timeout=self.collect_seconds)

    def _fits(self, job, first: _Waiting) -> bool:
        if not isinstance(job, _Waiting):
            return False
        return abs(len(job.row.prompt) - len(first.row.prompt)) <= self.length_spread / 2

    def _batch(self, jobs: list[_Waiting]) -> None:
        started = time.monotonic()
        rows = [job.row for job in jobs]
        try:
            self.control.send(BATCH, rows)
            answers = decoding.generate(self.model, rows, self.stop)
        except BaseException:
            _fail(jobs)
            raise
        counts = self.counts
        counts.rows += len(rows)
        counts.batches += 1
        counts.tokens += sum(answer.tokens for answer in answers)
        counts.largest_batch = max(counts.largest_batch, len(rows))
        counts.seconds += time.monotonic() - started
        for job, answer in zip(jobs, answers):
            job.future.set_result(answer)

    def _whole(self, job: _Whole) -> None:
        """NeMo seeds nothing unless it is asked to, but tensor-parallel ranks must draw the same numbers."""
        seed = secrets.randbits(31)
        try:
            self.control.send(WHOLE, seed)
            torch.manual_seed(seed)
            result = job.call()
        except BaseException:
            _fail([job])
            raise
        self.counts.whole += 1
        job.future.set_result(result)

    def _turn_down(self) -> None:
        self._receive(0)
        for job in self.waiting:
            job.future.set_exception(_stopping())


def _fail(jobs: list) -> None:
    for job in jobs:
        job.future.set_exception(Refused("generation failed; the server stops, its log says why", status=500))


def _stopping() -> Refused:
    return Refused("the server is being stopped", status=503)
