"""What both directions share: waiting for the first rank, and the last act."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from recipes.pipeline.artifacts import atomic_write_json
from recipes.ranks import attempt

WRITTEN = "written.json"


def say_written(stage_dir: Path, facts: dict) -> None:
    """The first rank has converted; the others may load the result."""
    (stage_dir / "data").mkdir(exist_ok=True)
    atomic_write_json(stage_dir / "data" / WRITTEN, {**facts, "attempt": attempt()})


def wait_written(stage_dir: Path) -> dict:
    """What say_written said. There is no process group before a model is loaded, only the shared file system."""
    ready = stage_dir / "data" / WRITTEN
    while True:
        if ready.exists() and (found := json.loads(ready.read_text()))["attempt"] == attempt():
            return found
        time.sleep(0.2)


class Unpublished:
    """A directory under a temporary name: renamed to its own at the end, removed if anything goes wrong."""

    def __init__(self, target: Path):
        self.target, self.path = target, target.with_name(f".{target.name}.tmp")

    def start(self) -> Path:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        return self.path

    def publish(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        self.path.rename(self.target)

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
