"""The state of a run's jobs: what the queue says of those that are there, what they left behind of the others."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.errors import StageFailed
from recipes.pipeline.artifacts import CONFIG, read_config
from recipes.slurm.queue import Job, Slurm
from recipes.slurm.run_files import RunFiles, job_name, run_tag
from recipes.slurm.verdict import missing_parents

# How the last word of a job that is not in the queue reads as a state of its stage.
WORDS = {
    "done": "done",
    "part": "unfinished",
    "failed": "failed",
    "blocked": "blocked",
    "cancelled": "cancelled",
    "terminated": "unfinished",
    "again": "unfinished",
}


def is_submitted(run_dir: Path) -> bool:
    """Was anything of this run submitted to a cluster? A dry run alone does not count."""
    return any(RunFiles(run_dir.absolute()).folder.glob("*.events.jsonl"))


def add_jobs(run_dir: Path, rows: list[dict], slurm: Slurm | None = None) -> tuple[list[dict], str]:
    """Put what is known about the jobs into `pipeline.status.status` rows; returns them and a note, "" if all is well.

    A row gets: job (its id), nodes (where it runs), starts, and why. Works without the queue, with what the files say.
    """
    files = RunFiles(run_dir.absolute())
    slurm, note = slurm or Slurm(patience=0.0), ""
    queue: list[Job] | None = None
    try:
        queue = slurm.jobs(run_tag(files.run_dir))
    except StageFailed as error:
        note = f"the queue cannot be asked: {str(error).splitlines()[0]} Shown is what the jobs last wrote."
    rows = [_row(files, row, queue) for row in rows]
    if queue is not None:
        _ask_about_lost(files, rows, slurm)
    return rows, note


def _row(files: RunFiles, row: dict, queue: list[Job] | None) -> dict:
    stage, events = row["stage"], files.events(row["stage"])
    mine = [job for job in queue or () if job.name == job_name(files.run_dir, stage)]
    row = {**row, "job": None, "nodes": None, "starts": sum(e["event"] == "began" for e in events), "why": ""}
    logs = files.logs(stage)
    if logs and row["state"] != "done":
        row["where"] = str(logs[-1])
    if row["state"] == "done":
        row["why"] = ""
    elif mine:
        _from_queue(row, mine, events)
    elif events and row["state"] != "running":
        _from_events(row, events, queue is not None)
    return row


def _from_queue(row: dict, jobs: list[Job], events: list[dict]) -> None:
    """The most advanced of the stage's jobs: an array has many lines, a site without requeues several jobs."""
    order = ("RUNNING", "COMPLETING")
    job = min(jobs, key=lambda job: (order.index(job.state) if job.state in order else len(order), int(job.id)))
    row["job"], row["nodes"] = job.id, job.nodes or None
    row["state"] = {"PENDING": "queued", "RUNNING": "running"}.get(job.state, job.state.lower())
    last = next((e["why"] for e in reversed(events) if e["event"] in ("began", "ended", "health", "cancelled")), "")
    if job.state == "PENDING":
        row["why"] = job.reason + (f"; before: {last}" if last else "")
    elif job.state == "RUNNING":
        waiting = sum(other.state == "PENDING" for other in jobs)
        row["why"] = last + (f"; {waiting} more wait" if waiting else "")
    else:
        row["why"] = last


def _last(events: list[dict]) -> dict:
    """The last event; of an array that of a task which failed, if one has since it was submitted."""
    since = max((place for place, event in enumerate(events) if event["event"] == "submitted"), default=0)
    tasks = {event["task"]: event for event in events[since:] if event["event"] == "ended" and "task" in event}
    failed = [event for event in tasks.values() if event["result"] == "failed"]
    return failed[-1] if failed else events[-1]


def _from_events(row: dict, events: list[dict], asked: bool) -> None:
    last = _last(events)
    row["job"] = last.get("job") or (last.get("jobs") or [None])[-1]
    row["why"] = (f"task {last['task']}: " if "task" in last else "") + last["why"]
    cancelled = any(event["event"] == "cancelled" and event["job"] == row["job"] for event in events)
    if last["event"] == "ended":  # a job that is cancelled can still say that it was asked to end
        row["state"] = "cancelled" if cancelled and last["result"] == "terminated" else WORDS[last["result"]]
        if last["result"] == "again" and asked:
            row["why"] += "; but no job is left to start again: see its log, and submit again"
    elif last["event"] == "cancelled":
        row["state"] = "cancelled"
    elif asked:  # it was submitted or began, is not in the queue, and never said how it ended
        row["state"] = "lost"


def _ask_about_lost(files: RunFiles, rows: list[dict], slurm: Slurm) -> None:
    """What Slurm remembers of jobs that ended without a word: killed by a limit, a node, or never started."""
    lost = [row for row in rows if row["state"] == "lost" and row["job"]]
    history = slurm.history(row["job"] for row in lost)
    for row in lost:
        slurms = history.get(row["job"])
        never_began = files.events(row["stage"])[-1]["event"] in ("submitted", "waits")
        missing = _not_done(files, row["stage"]) if never_began else []
        if missing and (slurms is None or "Dependency" in slurms):
            row["state"], row["why"] = "blocked", f"{missing[0]}: Slurm cancelled its job"
        else:
            row["why"] = f"ended without a word after: {row['why']}" + (f"; Slurm says {slurms}" if slurms else "")


def _not_done(files: RunFiles, stage: str) -> list[str]:
    """What the stage needs and is not there."""
    stage_dir = files.run_dir / stage
    try:
        return missing_parents(stage_dir, read_config(stage_dir / CONFIG))
    except (OSError, ValueError):
        return []


def load_profile(run_dir: Path):
    """The profile that the run was submitted with."""
    from recipes.slurm.profile import from_dict

    return from_dict(json.loads(RunFiles(run_dir.absolute()).profile.read_text(encoding="utf-8")))
