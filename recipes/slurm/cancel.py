"""Cancel a run, or some of its stages: cancelling wins over every restart that is under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from recipes.pipeline.artifacts import atomic_write_text
from recipes.slurm.queue import Job, Slurm
from recipes.slurm.run_files import RunFiles, job_name, run_tag


def cancel(
    run_dir: Path,
    stages: list[str],
    *,
    slurm: Slurm | None = None,
    echo: Callable[[str], None] = print,
    patience: float = 120.0,
) -> bool:
    """Cancel the jobs of these stages ([]: of the whole run) and wait until they have left the queue.

    Jobs that need a cancelled stage are cancelled by Slurm. A job that is being requeued comes back to the queue while
    it is cancelled: it is cancelled again. For a whole run the file <run>/slurm/stop keeps any script from starting
    again; `align submit` and `align resume` remove it. Returns False if jobs are still there after `patience` seconds.
    """
    files, slurm = RunFiles(run_dir.absolute()), slurm or Slurm(say=echo)
    if not stages:
        files.folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(files.stop, "cancelled\n")
    names, tag = {job_name(files.run_dir, stage): stage for stage in stages}, run_tag(files.run_dir)
    told: set[str] = set()
    deadline = time.monotonic() + patience
    while jobs := [job for job in slurm.jobs(tag) if not names or job.name in names]:
        if time.monotonic() > deadline:
            return False
        _cancel(slurm, files, jobs, told, echo)
        time.sleep(0.5)
    if not told:
        echo("no job of this run is in the queue")
    return True


def _cancel(slurm: Slurm, files: RunFiles, jobs: list[Job], told: set[str], echo) -> None:
    slurm.cancel(dict.fromkeys(job.id for job in jobs if job.state != "COMPLETING"))
    for job in jobs:
        stage = job.name.split(".")[-2]
        if job.id not in told:
            told.add(job.id)
            files.add_event(stage, "cancelled", job=job.id, why=f"cancelled while {job.state}")
            echo(f"{stage}: job {job.id} cancelled ({job.state.lower()})")
