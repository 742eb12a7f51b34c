"""runs/<run>/timing.json: when each stage was ready, started, made its first step and ended, in unix seconds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from recipes.pipeline.files import atomic_write_json
from recipes.pipeline.task import UNCHANGED, Task

FILE = "timing.json"


def read_stages(run_dir: str | Path) -> dict[str, dict]:
    """stage -> {"state", "queued", "started", "first_step", "ended"}; {} if there is no readable file."""
    try:
        return json.loads((Path(run_dir) / FILE).read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class Timing:
    """Writes the file of one run. A stage that is not run again keeps the times of when it was."""

    def __init__(self, run_dir: Path, jobs: int):
        self._path, self._jobs = run_dir / FILE, jobs
        self._earlier, self._began = read_stages(run_dir), time.time()
        self.total: float | None = None  # seconds, once the run has ended

    def write(self, tasks: Iterable[Task], engine_ready: float | None, ended: bool) -> None:
        stages = dict(self._earlier)
        for task in tasks:
            earlier = {k: v for k, v in self._earlier.get(task.name, {}).items() if v is not None}
            stages[task.name] = {**task.timing(), **(earlier if task.state == UNCHANGED else {}), "state": task.state}
        now = time.time()
        self.total = now - self._began if ended else None
        record = {
            "pid": os.getpid(),
            "jobs": self._jobs,
            "started": self._began,
            "engine_ready": engine_ready,
            "ended": now if ended else None,
            "total_seconds": self.total,
            "stages": stages,
        }
        atomic_write_json(self._path, record)
