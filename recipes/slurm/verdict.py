"""How a start of a stage ended, and whether there should be another: the rules, apart from where they are asked.

done       the manifest is there, of this config and these inputs, and so is every output
part       an array task did its part; the one that finishes last writes the manifest
again      start again under the same job id
failed     a person has to look
terminated cancelled or preempted: what comes next is Slurm's to decide, so the script does nothing
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recipes import attempt
from recipes.pipeline import artifacts


@dataclass(frozen=True)
class Findings:
    """What is known when the ranks have ended. outcome: what a rank reported, if one could; code: srun's."""

    done: bool
    outcome: dict | None
    code: int
    time_up: bool
    terminated: bool
    hung: bool
    advanced: bool
    log_tail: str = ""


def judge(found: Findings) -> tuple[str, str]:
    """(result, why in words). A start that may be repeated is "again"; how often, `out_of_starts` says."""
    outcome = found.outcome or {}
    said = outcome.get("result")
    who = f"rank {outcome['rank']} on {outcome['node']}: {outcome['message']}" if said else ""
    if found.done:
        return "done", "the artifact is complete"
    if said == attempt.PART:
        return attempt.PART, "this task's part is done"
    if said in (attempt.REFUSED, attempt.FAILED):  # the same input would fail the same way
        return "failed", who
    if found.terminated:
        return "terminated", "it was asked to end (cancelled or preempted) and " + (
            "saved" if said == attempt.STOPPED and found.advanced else "keeps what it had saved"
        )
    if found.hung:
        return "again", "its ranks hung and were killed; their stacks are in the logs"
    # A rank that died makes srun ask the others to leave: only a code of 0 says that all of them left by themselves.
    time_up = found.time_up or (said == attempt.STOPPED and found.code == 0)
    if time_up and found.advanced:
        return "again", "its time was up; it goes on from what it saved"
    if said == attempt.CRASHED:
        return "again", who
    if time_up:
        return "failed", "its time was up before it had saved anything: raise resources.time or save more often"
    if said == attempt.DONE:
        return "failed", "the stage ended well but its artifact does not verify: an output or an input has changed"
    return "again", f"the ranks ended with {found.code} and without a word" + (
        f": {found.log_tail}" if found.log_tail else ""
    )


def starts_of(events: list[dict], job: str) -> list[dict]:
    """The events "began" that count for this job: its own, and those of jobs that were submitted together with it.

    Not those before it failed, since only a person starts it again after that, nor those that Slurm ended early.
    """
    jobs = _together(events, job)
    mine = [event for event in events if event.get("job") in jobs]
    ends = [event for event in mine if event["event"] == "ended"]
    failed = max((place for place, event in enumerate(mine) if event.get("result") == "failed"), default=-1)
    preempted = {event["attempt"] for event in ends if event["result"] == "terminated"}
    return [event for event in mine[failed + 1 :] if event["event"] == "began" and event["attempt"] not in preempted]


def _together(events: list[dict], job: str) -> list[str]:
    submissions = [event["jobs"] for event in events if event["event"] == "submitted"]
    return next((jobs for jobs in reversed(submissions) if job in jobs), [job])


def out_of_starts(starts: list[dict], mark: list, allowed: int) -> str:
    """Why there should be no further start, "" if there may be one: the last ones have added nothing to `mark`."""
    fruitless = 0
    for start in reversed(starts):
        if start["mark"] != mark:
            break
        fruitless += 1
    return f"{fruitless} starts in a row have saved nothing new" if fruitless > allowed else ""


def given_up(events: list[dict], job: str) -> str:
    """Why a job that waited behind others of its stage (slurm.requeue=false) need not start, "" if it should."""
    others = [other for other in _together(events, job) if other != job]
    ended = [event for event in events if event["event"] == "ended" and event["job"] in others]
    return f"job {ended[-1]['job']} has failed: {ended[-1]['why']}" if ended and ended[-1]["result"] == "failed" else ""


def progress_mark(stage_dir: Path) -> list:
    """What the stage has saved: the step of its newest checkpoint, and the files and bytes of its work by rows.

    Prepared training files lie beside that work; they are no progress, every start writes them again.
    """
    checkpoints, step = stage_dir / "checkpoints", -1
    for path in checkpoints.glob("*step=*"):
        if path.is_dir() and not Path(f"{path}-unfinished").exists():
            text = path.name.split("step=")[1].split("-")[0]
            step = max(step, int(text) if text.isdigit() else -1)
    files = (stage_dir / "data").rglob("*.jsonl")
    saved = [path for path in files if "batches" in path.parts or path.name == "replies.jsonl"]
    return [step, len(saved), sum(path.stat().st_size for path in saved)]


def missing_parents(stage_dir: Path, cfg: dict) -> list[str]:
    """What is not there although the stage reads it: parents that are not done as configured, files that are gone."""
    found = []
    for name, path in artifacts.input_paths(stage_dir, cfg).items():
        producer = artifacts.producer_of(stage_dir, path)
        if producer:
            parent = stage_dir.parent / producer
            manifest = artifacts.read_manifest(parent)
            if manifest is None or not artifacts.outputs_present(parent, manifest):
                found.append(f"stage {producer}, which makes input `{name}`, is not done")
                continue
            if manifest["config_sha256"] != artifacts.config_sha256(artifacts.read_config(parent / artifacts.CONFIG)):
                found.append(f"stage {producer}, which makes input `{name}`, was done with another config")
                continue
        if not path.exists():
            found.append(f"input `{name}` is not there: {path}")
    return found


# -- nodes -------------------------------------------------------------------------------------------


def bad_nodes(folder: Path, hosts: Iterable[str]) -> dict[str, str]:
    """{host: why} of the nodes that reported a fault, or nothing at all."""
    bad = {}
    for host in hosts:
        try:
            report = json.loads((folder / f"{host}.node.json").read_text())
        except (OSError, ValueError):
            bad[host] = "no report: it cannot start a task, or does not see the shared file system"
            continue
        if report["faults"]:
            bad[host] = ", ".join(report["faults"])
    return bad


def fabric_reports(folder: Path) -> list[dict]:
    """What each rank said of the all-reduce: {"rank", "node", "ok", "seconds", "why"}."""
    found = []
    for path in folder.glob("rank*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return found


def silent(reports: list[dict], hosts: Iterable[str]) -> list[str]:
    heard = {report["node"] for report in reports}
    return [host for host in hosts if host not in heard]


BEGAN = "== began:"  # the line in a job's log with which a start begins


def srun_errors(log: Path, most: int = 2) -> str:
    """The last words of srun and slurmstepd on this start, for ranks that died without any of their own."""
    try:
        with open(log, "rb") as source:
            source.seek(max(0, log.stat().st_size - (1 << 14)))
            text = source.read().decode("utf-8", "replace").rpartition(BEGAN)[2]
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if re.match(r"(srun|slurmstepd\S*): error:", line)]
    return "; ".join(line.partition("error: ")[2] for line in lines[-most:])
