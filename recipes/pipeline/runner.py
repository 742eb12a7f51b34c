"""Run the stages of a pipeline on this machine, in the order of the graph, several at once where it allows that.

A stage whose manifest has the fingerprint of its config and inputs is left alone; an unfinished one with the same
config resumes; anything else is set aside and begun anew. Killing the runner at any moment loses no finished stage
and leaves no process behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from recipes.errors import EXIT_DONE, EXIT_FAILED, EXIT_INPUT, Problem
from recipes.pipeline import artifacts, display, workdir
from recipes.pipeline.locks import DirLock, Locked
from recipes.pipeline.scheduler import Scheduler
from recipes.pipeline.seals import seal_text
from recipes.pipeline.task import ENDED, FAILED, REFUSED, STOPPED, Task
from recipes.pipeline.timing import Timing
from recipes.stages import KINDS


def run(
    pipeline,
    run_dir: str | Path,
    *,
    selection: Collection[str] | None = None,
    jobs: int = 2,
    fresh: bool | Collection[str] = False,
    echo: Callable[[str], None] = print,
    server_command: list[str] | None = None,
) -> int:
    """Run the selected stages (None: all) of a `recipes.pipeline.config.Pipeline`; returns the exit code.

    jobs: stages at once. fresh: begin these (True: all selected) anew although they are done or could resume.
    server_command: what to start instead of `python -m recipes.engine.server`.
    0 done; 1 a stage failed; 2 wrong input, or another run works in `run_dir`; 130, 143, 129 stopped by Ctrl-C,
    SIGTERM, SIGHUP.
    """
    run_dir = Path(os.path.abspath(run_dir))
    names = [name for name in pipeline.stages if selection is None or name in set(selection)]
    lock = DirLock(run_dir)
    try:
        lock.acquire()
    except Locked as held:
        fix = "wait for it, stop it, or give this run another name"
        echo(str(Problem("", str(run_dir), f"process {held.pid or '(unknown)'} is running in this directory", fix)))
        return EXIT_INPUT
    try:
        problems = _problems(pipeline, run_dir, names)
        if problems:
            echo("\n".join(map(str, problems)))
            return EXIT_INPUT
        for note in _notes(pipeline, run_dir, names):
            echo(note)
        write_run(pipeline, run_dir, names)
        options = {"jobs": jobs, "fresh": names if fresh is True else fresh or (), "server_command": server_command}
        return _run(_tasks(pipeline, run_dir, names), run_dir, echo, options)
    finally:
        lock.release()


def _tasks(pipeline, run_dir: Path, names: list[str]) -> dict[str, Task]:
    def task(name: str) -> Task:
        stage = pipeline.stages[name]
        parents = [parent for parent in stage.parents if parent in names]
        return Task(name, stage.kind, stage.cfg, run_dir / name, parents, KINDS[stage.kind] == "engine")

    return {name: task(name) for name in names}


def _problems(pipeline, run_dir: Path, names: list[str]) -> list[Problem]:
    """Inputs that will not be there, and stages for more machines than this one."""
    problems = []
    large = [name for name in names if pipeline.stages[name].cfg["resources"]["nodes"] > 1]
    if large:
        others = f" and {len(large) - 1} more stages" if len(large) > 1 else ""
        message = f"is above 1 in {large[0]}{others}, and this runner has one machine"
        problems.append(Problem("", "resources.nodes", message, "align submit PIPELINE --cluster PROFILE, or one node"))
    for name in names:
        cfg = pipeline.stages[name].cfg
        for key, path in artifacts.input_paths(run_dir / name, cfg).items():
            producer = artifacts.producer_of(run_dir / name, path)
            if producer in names:
                continue
            where = f"{name}.inputs.{key}"
            if producer and artifacts.read_manifest(run_dir / producer) is None:
                problems.append(Problem("", where, f"stage {producer} is not done: {path}", f"run {producer} too"))
            elif not path.exists():
                fix = f"run {producer} again" if producer else "give the path of an existing file"
                problems.append(Problem("", where, f"there is no such file: {path}", fix))
    return problems


def _notes(pipeline, run_dir: Path, names: list[str]) -> list[str]:
    """Stages that are read but not run although the pipeline has another config for them by now."""
    notes = []
    for parent in dict.fromkeys(parent for name in names for parent in pipeline.stages[name].parents):
        manifest = artifacts.read_manifest(run_dir / parent)
        if parent not in names and manifest["config_sha256"] != artifacts.config_sha256(pipeline.stages[parent].cfg):
            notes.append(f"note: {parent} is used as it is on disk, made with another config than the pipeline has now")
    return notes


def write_run(pipeline, run_dir: Path, names: list[str]) -> None:
    """pipeline.yaml, and the config and launch script of the named stages."""
    versions = {"versions": artifacts.package_versions(), "commit": artifacts.git_commit()}
    text = artifacts.config_text({**pipeline.to_dict(), **versions})
    artifacts.atomic_write_text(run_dir / artifacts.PIPELINE, seal_text(text))
    for name in names:
        workdir.write_early(run_dir / name, pipeline.stages[name].cfg)


def _run(tasks: dict[str, Task], run_dir: Path, echo: Callable[[str], None], options: dict) -> int:
    """Run the stages, show them, and tell how it went."""
    timing, screen = Timing(run_dir, options["jobs"]), display.choose(echo)

    def write_timing(ended: bool = False) -> None:
        timing.write(tasks.values(), scheduler.engine_ready, ended)

    scheduler = Scheduler(tasks, screen, write_timing, engine_log=run_dir / "engine.log", **options)
    try:
        stopped = scheduler.run()
    finally:
        screen.close()
        for task in tasks.values():
            if task.state not in ENDED:
                task.end(STOPPED)
        write_timing(ended=True)
    for line in display.summary(tasks.values(), timing.total):
        echo(line)
    if stopped is not None:
        echo(f"stopped by {signal.Signals(stopped).name}; the same command goes on from here")
        return 128 + stopped
    states = {task.state for task in tasks.values()}
    code = EXIT_FAILED if FAILED in states else EXIT_INPUT if REFUSED in states else EXIT_DONE
    return _report(run_dir, code, echo)


def _report(run_dir: Path, code: int, echo: Callable[[str], None]) -> int:
    """Build the report of what is done; its failure never hides how the run went."""
    try:
        from recipes.report import build

        path = build(run_dir)
    except Exception as error:  # the report reads whatever lies in the run: anything may be wrong with that
        echo(f"the report failed: {type(error).__name__}: {error}")
        return code or EXIT_FAILED
    echo(f"report {path}")
    return code
