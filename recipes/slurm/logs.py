"""The logs of a submitted run: of every job, and of a task each where a stage is an array."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from recipes.errors import StageFailed
from recipes.pipeline.status import LOG, tail, wanted_stages
from recipes.slurm.queue import Refused, Slurm
from recipes.slurm.run_files import RunFiles, job_name, run_tag

ASK_EVERY = 5.0  # seconds between two looks at the queue while following


def follow_jobs(run_dir: Path, stage: str | None = None, follow: bool = False, poll: float = 0.5) -> Iterator[str]:
    """Lines of the jobs' logs, with "<stage> | " or "<stage>.<task> | " in front where there are several.

    follow: go on with what is appended until no job of the stage (of the run) is in the queue. Raises UserInputError if
    the run has no such stage.
    """
    files = RunFiles(run_dir.absolute())
    names = wanted_stages(run_dir, stage)

    def find() -> dict[str, Path]:
        logs = {}
        for name in names:
            logs |= {path.stem: path for path in files.logs(name)}
            if (own := run_dir / name / LOG).is_file():  # a stage may also have been run without a job
                logs[f"{name} (here)"] = own
        return logs if stage is None or len(logs) != 1 else {"": next(iter(logs.values()))}

    return tail(find, _in_queue(files, names) if follow else lambda: False, poll)


def _in_queue(files: RunFiles, names: list[str]):
    """A function that says whether jobs of these stages are in the queue; asks Slurm every few seconds only."""
    slurm, wanted = Slurm(patience=0.0), {job_name(files.run_dir, name) for name in names}
    last: list = [0.0, True]

    def look() -> bool:
        if time.monotonic() - last[0] > ASK_EVERY:
            try:
                there = any(job.name in wanted for job in slurm.jobs(run_tag(files.run_dir)))
            except Refused:  # no Slurm here: the files are all there is
                there = False
            except StageFailed:  # a controller that does not answer says nothing about the jobs
                there = True
            last[:] = [time.monotonic(), there]
        return last[1]

    return look
