"""Where a run keeps what its jobs are about: <run>/slurm, and the names that its jobs have in the queue.

<stage>.sbatch           the script
<stage>.log              what the job printed, over all its starts; <stage>.<task>.log for the tasks of an array
<stage>.events.jsonl     what happened, one line each: submitted, began, ended and why
profile.json             the cluster profile that the run was submitted with
outcomes/ health/        what the ranks of a start had to say
stop                     the run was cancelled; nothing starts again
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = "slurm"
REPORT = "report"  # the last job of a run; no stage can have this name


def job_name(run_dir: Path, stage: str) -> str:
    """The job's name, which no other run's job has: <run>.<stage>.<hash of the run's path>."""
    return f"{run_dir.name}.{stage}.{run_tag(run_dir)}"


def run_tag(run_dir: Path) -> str:
    return hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:8]


@dataclass(frozen=True)
class RunFiles:
    """The paths of one run; `run_dir` is absolute."""

    run_dir: Path

    @property
    def folder(self) -> Path:
        return self.run_dir / FOLDER

    @property
    def profile(self) -> Path:
        return self.folder / "profile.json"

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    def script(self, stage: str) -> Path:
        return self.folder / f"{stage}.sbatch"

    def log(self, stage: str) -> Path:
        return self.folder / f"{stage}.log"

    def logs(self, stage: str) -> list[Path]:
        """The logs that are there: one, or one for each task of an array."""
        return sorted([*self.folder.glob(f"{stage}.log"), *self.folder.glob(f"{stage}.[0-9]*.log")])

    def outcome(self, stage: str, attempt: str) -> Path:
        return self.folder / "outcomes" / f"{stage}.{attempt}.json"

    def health(self, attempt: str) -> Path:
        return self.folder / "health" / attempt

    def events(self, stage: str) -> list[dict]:
        """What happened to the jobs of a stage, oldest first. A line that a kill tore is left out.

        A job can begin before its submission is noted: the note is put in front of what its jobs did.
        """
        try:
            lines = (self.folder / f"{stage}.events.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            jobs = event["jobs"] if event["event"] == "submitted" else ()
            place = next((n for n, other in enumerate(found) if other.get("job") in jobs), len(found))
            found.insert(place, event)
        return found

    def add_event(self, stage: str, event: str, **values) -> dict:
        """Append one event; a single write, so that the tasks of an array can share the file."""
        record = {"event": event, "time": time.time(), **values}
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{stage}.events.jsonl", "ab", buffering=0) as file:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
        return record
