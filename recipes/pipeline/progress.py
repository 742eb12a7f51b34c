"""How far a stage is, read from its metrics.jsonl while the stage writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Progress:
    """step and total are in `unit` ("step" or "row"); None where the stage has not said so yet."""

    step: int | None = None
    total: int | None = None
    unit: str = "step"
    loss: float | None = None
    resumed_at: int = 0
    first_step: float | None = None  # unix time of the first train line
    ended: bool = False

    def add(self, event: dict) -> None:
        """Take in one line of metrics.jsonl."""
        what = event.get("event")
        if what == "start":
            self.total, self.unit = event.get("total", self.total), event.get("unit", self.unit)
            self.resumed_at = event.get("resumed_at") or 0
            self.step, self.ended = self.resumed_at, False
        elif what == "train":
            self.step = event.get("step", self.step)
            self.loss = event["loss"] if isinstance(event.get("loss"), (int, float)) else self.loss
            self.first_step = self.first_step or event.get("time")
        elif what == "progress":
            self.step, self.total, self.unit = event.get("done"), event.get("total", self.total), "row"
        elif what == "end":
            self.ended = True

    def text(self) -> str:
        """ "step 12/40, loss 0.693", or "" if nothing is known."""
        parts = []
        if self.step is not None:
            parts.append(f"{self.unit} {self.step}" + (f"/{self.total}" if self.total else ""))
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        return ", ".join(parts)


class MetricsTail:
    """Reads what was appended to a metrics.jsonl since the last call, from its end or its start on."""

    def __init__(self, path: str | Path, from_start: bool = False):
        self.path = Path(path)
        self._offset = 0 if from_start else self._size()
        self.progress = Progress()

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read(self) -> Progress:
        """Take in all complete new lines. A line that is not JSON (a process died while writing) is left out."""
        size = self._size()
        if size < self._offset:  # written anew
            self._offset = 0
        if size > self._offset:
            with open(self.path, "rb") as source:
                source.seek(self._offset)
                block = source.read()
            complete = block[: block.rfind(b"\n") + 1]
            self._offset += len(complete)
            for line in complete.splitlines():
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    self.progress.add(event)
        return self.progress


def read_progress(path: str | Path) -> Progress:
    """The state at the end of a metrics.jsonl; an empty Progress if there is none."""
    return MetricsTail(path, from_start=True).read()
