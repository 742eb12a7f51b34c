"""One stage of a run while it is being run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from recipes.pipeline.progress import MetricsTail, Progress
from recipes.pipeline.workdir import Decision

# waiting for parents -> queued (ready; waiting for a slot or the engine) -> running -> one of ENDED
WAITING, QUEUED, RUNNING = "waiting", "queued", "running"
DONE, UNCHANGED, FAILED, REFUSED, BLOCKED, STOPPED = "done", "unchanged", "failed", "refused", "blocked", "stopped"
ENDED = (DONE, UNCHANGED, FAILED, REFUSED, BLOCKED, STOPPED)
GOOD = (DONE, UNCHANGED)


@dataclass
class Task:
    """parents: only those that are run too. Times are unix seconds. message: why it failed, lines for a person."""

    name: str
    kind: str
    cfg: dict
    dir: Path
    parents: list[str]
    engine: bool
    state: str = WAITING
    decision: Decision | None = None
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    log_offset: int = 0
    tail: MetricsTail | None = None
    facts: dict = field(default_factory=dict)
    message: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.dir / "logs" / "stage.log"

    @property
    def progress(self) -> Progress:
        return self.tail.progress if self.tail else Progress()

    @property
    def seconds(self) -> float | None:
        """Wall time of this attempt so far, None if it was not started."""
        return None if self.started is None else (self.ended or time.time()) - self.started

    def end(self, state: str, message: list[str] | None = None) -> None:
        self.state, self.message = state, message or []
        if self.started is not None:
            self.ended = time.time()

    def timing(self) -> dict:
        """The stage's entry in timing.json."""
        return {
            "state": self.state,
            "queued": self.queued,
            "started": self.started,
            "first_step": self.progress.first_step,
            "ended": self.ended,
        }
