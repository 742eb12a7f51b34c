"""Submit a run: one job for every stage that is not done, in the order of the graph, each after the jobs it needs.

Submitting again is always safe. A done stage is skipped; a stage whose job is in the queue keeps that job; nothing is
submitted twice, whatever became of the submission before.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recipes.errors import Problem, StageFailed, UserInputError
from recipes.pipeline import artifacts, workdir
from recipes.pipeline.config import Pipeline
from recipes.pipeline.locks import DirLock, Locked
from recipes.pipeline.runner import write_run
from recipes.slurm import script
from recipes.slurm.queue import Job, Refused, Slurm, needs_slurm
from recipes.slurm.run_files import REPORT, RunFiles, job_name, run_tag

DONE, QUEUED, NEW = "done", "queued", "new"


@dataclass
class Step:
    """What a submission does about one stage. jobs: its jobs in the queue; the last one is what others wait for.
    old: jobs that were in the queue and were cancelled because they waited for what will never end well.
    """

    name: str
    cfg: dict
    parents: list[str]
    action: str
    note: str = ""
    jobs: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)


def submit(
    pipeline: Pipeline,
    run_dir: Path,
    *,
    selection: list[str] | None = None,
    dry_run: bool = False,
    slurm: Slurm | None = None,
    echo: Callable[[str], None] = print,
) -> list[Step]:
    """Write the scripts of the selected stages (None: all) and submit them; returns what was done about each stage.

    dry_run: write and say everything, submit nothing; needs no Slurm. Raises UserInputError (nothing was submitted),
    or StageFailed when Slurm refused or went away in between: what was submitted stays, and submitting again goes on.
    """
    files = RunFiles(Path(os.path.abspath(run_dir)))
    slurm = slurm or (Slurm(patience=0.0) if dry_run else Slurm(say=echo))
    if not dry_run and not slurm.is_here():
        raise needs_slurm()
    lock = DirLock(files.run_dir)
    try:
        lock.acquire()
    except Locked as held:
        fix = "wait until it has ended; submitting again then adopts what it submitted"
        message = f"process {held.pid or '(unknown)'} is submitting or running this run"
        raise UserInputError(Problem("", str(files.run_dir), message, fix)) from None
    try:
        names = [name for name in pipeline.stages if selection is None or name in selection]
        queue = _queue(slurm, files, dry_run, echo)
        steps = _decide(pipeline, files, names, queue)
        scripts = {
            step.name: script.stage_script(files, step.cfg, pipeline.cluster) for step in steps if step.action == NEW
        }
        _syntax(scripts)
        if not dry_run:
            _try_out(slurm, scripts, echo)
        _write(pipeline, files, steps, scripts, dry_run)
        if not dry_run:
            files.stop.unlink(missing_ok=True)
            copies = 1 if pipeline.cluster.settings["requeue"] else pipeline.cluster.settings["clones"]
            _submit_all(slurm, files, steps, copies, echo)
            _submit_report(slurm, files, steps, queue, echo)
        return steps
    finally:
        lock.release()


def _queue(slurm: Slurm, files: RunFiles, dry_run: bool, echo) -> list[Job]:
    """This run's jobs in the queue. A dry run goes without where there is no Slurm."""
    try:
        return slurm.settled_jobs(run_tag(files.run_dir)) if slurm.is_here() or not dry_run else []
    except StageFailed as no:
        if not dry_run:
            raise
        told = str(no).splitlines()[0]
        echo(f"note: the queue cannot be asked ({told}); shown is what would be submitted if it were empty")
        return []


# -- what is to be done ------------------------------------------------------------------------------


def _decide(pipeline: Pipeline, files: RunFiles, names: list[str], queue: list[Job]) -> list[Step]:
    """The steps, parents first. Raises UserInputError if an input would not be there, or a job has another config."""
    steps: dict[str, Step] = {}
    problems = []
    for name in names:
        stage = pipeline.stages[name]
        parents = [parent for parent in stage.parents if parent in names]
        jobs = [job.id for job in queue if job.name == job_name(files.run_dir, name)]
        step = steps[name] = Step(name, stage.cfg, parents, NEW, jobs=list(dict.fromkeys(jobs)))
        unmet = [] if jobs else _unmet(files, step, names)
        problems += unmet
        waits = any(steps[parent].action != DONE for parent in parents)
        there = _config_of(files.run_dir / name)
        same = there is not None and artifacts.config_sha256(there) == artifacts.config_sha256(stage.cfg)
        if jobs:
            step.action, step.note = QUEUED, "in the queue already"
            if not same:
                problems.append(_other_config(name, jobs, there, stage.cfg))
        elif not (waits or unmet) and same and artifacts.read_manifest(files.run_dir / name):
            decision = workdir.decide(files.run_dir / name, stage.cfg)
            step.action, step.note = (DONE, "unchanged") if decision.action == "skip" else (NEW, decision.reason)
        elif workdir.has_work(files.run_dir / name):
            step.note = "goes on from what it had saved" if same else "anew: its config has changed"
    if problems:
        raise UserInputError(problems)
    return list(steps.values())


def _config_of(stage_dir: Path) -> dict | None:
    try:
        return artifacts.read_config(stage_dir / artifacts.CONFIG)
    except (OSError, ValueError):
        return None


def _unmet(files: RunFiles, step: Step, names: list[str]) -> list[Problem]:
    """Inputs that neither are there nor come from a stage that is submitted with this one."""
    stage_dir = files.run_dir / step.name
    found = []
    for key, path in artifacts.input_paths(stage_dir, step.cfg).items():
        producer = artifacts.producer_of(stage_dir, path)
        where = f"{step.name}.inputs.{key}"
        if producer in names:
            continue
        if producer and artifacts.read_manifest(files.run_dir / producer) is None:
            found.append(Problem("", where, f"stage {producer} is not done: {path}", f"submit {producer} too"))
        elif not path.exists():
            fix = f"submit {producer} too" if producer else "give the path of an existing file"
            found.append(Problem("", where, f"there is no such file: {path}", fix))
    return found


def _other_config(name: str, jobs: list[str], there: dict | None, new: dict) -> Problem:
    what = workdir.changes(there or {}, new) if there else "its config.yaml is gone"
    message = f"job {', '.join(jobs)} is in the queue for another config of this stage: {what}"
    return Problem("", name, message, f"`align cancel` it first, or submit what the job has ({name}/config.yaml)")


# -- writing -----------------------------------------------------------------------------------------


def _write(pipeline: Pipeline, files: RunFiles, steps: list[Step], scripts: dict[str, str], dry_run: bool) -> None:
    """pipeline.yaml, the profile, and config.yaml and script of every stage that is to be submitted."""
    write_run(pipeline, files.run_dir, [])
    artifacts.atomic_write_json(files.profile, pipeline.cluster.to_dict())
    for step in steps:
        stage_dir = files.run_dir / step.name
        if step.action == NEW:
            if not dry_run and workdir.has_work(stage_dir) and step.note.startswith("anew"):
                workdir.set_aside(stage_dir)
            workdir.write_early(stage_dir, step.cfg)
            artifacts.atomic_write_text(files.script(step.name), scripts[step.name])
    artifacts.atomic_write_text(files.script(REPORT), script.report_script(files, pipeline.cluster))


# -- what can be known before anything is written ----------------------------------------------------


def _syntax(scripts: dict[str, str]) -> None:
    """bash -n: a prologue comes from the profile as it is."""
    told = subprocess.run(["bash", "-n"], input="\n".join(scripts.values()), capture_output=True, text=True)
    if told.returncode:
        fix = "correct slurm.prologue in the profile"
        raise UserInputError(Problem("", "slurm.prologue", f"is no valid bash: {told.stderr.strip()}", fix))


def _try_out(slurm: Slurm, scripts: dict[str, str], echo) -> None:
    """`sbatch --test-only` once for every different request: a wrong account or too many nodes shows now."""
    tried = set()
    for name, text in scripts.items():
        asks = [line for line in text.splitlines() if line.startswith("#SBATCH")]
        asks = tuple(line for line in asks if not line.startswith(("#SBATCH --job-name=", "#SBATCH --output=")))
        if asks not in tried:
            tried.add(asks)
            try:
                told = slurm.test_only(text)
            except Refused as no:
                fix = "correct the cluster profile, or resources of the stage; nothing was submitted"
                raise UserInputError(Problem("", name, f"Slurm would never run its job: {no}", fix)) from no
            if told:
                echo(f"note: {name}: Slurm says: {told}; its job waits for them")


# -- submitting --------------------------------------------------------------------------------------


def _submit_all(slurm: Slurm, files: RunFiles, steps: list[Step], copies: int, echo) -> None:
    by_name, fresh = {step.name: step for step in steps}, []
    for step in steps:
        parents = [by_name[parent] for parent in step.parents]
        if step.action == QUEUED and any(parent.name in fresh for parent in parents):
            _mend(slurm, files, step, parents, echo)
        if step.action == DONE:
            echo(f"{step.name}: done, skipped")
        elif step.action == QUEUED:
            _adopt(files, step)
            echo(f"{step.name}: job {step.jobs[-1]} is in the queue already")
        else:
            after = [parent.jobs[-1] for parent in parents if parent.jobs]
            try:
                _submit(slurm, files, step, after, copies)
            except StageFailed as no:
                stay = f"{len(fresh)} stages were submitted before it and stay; correct the cause and submit again"
                raise StageFailed(f"{step.name}: {_sbatch_said(no)}\n    {stay}") from no
            fresh.append(step.name)
            echo(f"{step.name}: job {' '.join(step.jobs)}" + (f", after {' '.join(after)}" if after else ""))


def _sbatch_said(no: StageFailed) -> str:
    return f"sbatch refused: {no}" if isinstance(no, Refused) else str(no)


def _mend(slurm: Slurm, files: RunFiles, step: Step, parents: list[Step], echo) -> None:
    """A job that waits for its parent's old job, which never succeeds, waits for the new one or is submitted anew."""
    after = [parent.jobs[-1] for parent in parents if parent.jobs]
    try:
        for job in step.jobs:
            slurm.depend(job, f"afterok:{':'.join(after)}" + (",singleton" if len(step.jobs) > 1 else ""))
        files.add_event(step.name, "waits", jobs=step.jobs, after=after, why="waits for its parents' new jobs")
        echo(f"{step.name}: job {' '.join(step.jobs)} now waits for {' '.join(after)}")
    except Refused as no:
        slurm.cancel(step.jobs)
        echo(f"{step.name}: job {' '.join(step.jobs)} cancelled: it cannot wait for {' '.join(after)} ({no})")
        step.action, step.jobs, step.old = NEW, [], step.jobs


def _adopt(files: RunFiles, step: Step) -> None:
    """Note jobs that are in the queue although no submission says so: it was killed, or somebody used sbatch."""
    noted = {job for event in files.events(step.name) if event["event"] == "submitted" for job in event["jobs"]}
    if not noted.issuperset(step.jobs):
        _note(files, step, [])


def _submit(slurm: Slurm, files: RunFiles, step: Step, after: list[str], copies: int) -> None:
    """sbatch one stage; where the site forbids requeues several jobs, of which one runs at a time."""
    name, tag = job_name(files.run_dir, step.name), run_tag(files.run_dir)
    conditions = [f"afterok:{':'.join(after)}"] if after else []
    conditions += ["singleton"] if copies > 1 else []
    options = [f"--dependency={','.join(conditions)}"] if conditions else []
    for _ in range(copies):
        known = [*step.old, *step.jobs]
        step.jobs.append(slurm.submit(files.script(step.name), name, tag, options, known))
    _note(files, step, after)


def _note(files: RunFiles, step: Step, after: list[str]) -> None:
    config = artifacts.config_sha256(step.cfg)
    files.add_event(step.name, "submitted", jobs=step.jobs, after=after, config_sha256=config, why="waits in the queue")


def _submit_report(slurm: Slurm, files: RunFiles, steps: list[Step], queue: list[Job], echo) -> None:
    """The report is written when all jobs have ended, however they did; one that waits is moved behind them."""
    after = [step.jobs[-1] for step in steps if step.jobs]
    if not after:
        return
    name, tag = job_name(files.run_dir, REPORT), run_tag(files.run_dir)
    dependency = f"afterany:{':'.join(after)}"
    there = {job.id: job.state for job in queue if job.name == name}
    waiting = [job for job, state in there.items() if state == "PENDING"]
    if waiting:
        if not any(step.action == NEW for step in steps):
            return
        try:
            slurm.depend(waiting[0], dependency)
            return
        except Refused:  # it has just begun
            pass
    try:
        job = slurm.submit(files.script(REPORT), name, tag, [f"--dependency={dependency}"], there)
    except StageFailed as no:
        message = f"report: {_sbatch_said(no)}\n    All stages are submitted; submit again for the report"
        raise StageFailed(message) from no
    echo(f"report: job {job}, when all have ended")
