"""Run the stages of a pipeline on this machine, in the order of the graph, several at once where it allows that.

A stage whose manifest has the fingerprint of its config and inputs is left alone; an unfinished one with the same
config resumes; anything else is set aside and begun anew. Killing the runner at any moment loses no finished stage
and leaves no process behind.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from recipes.errors import EXIT_DONE, EXIT_FAILED, EXIT_INPUT, Problem
from recipes.pipeline import artifacts, display, stage_log, workdir
from recipes.pipeline.locks import DirLock, Locked, holder
from recipes.pipeline.processes import Child, stage_command
from recipes.pipeline.progress import MetricsTail
from recipes.pipeline.server_client import EngineServer
from recipes.pipeline.task import (
    BLOCKED, DONE, ENDED, FAILED, GOOD, QUEUED, REFUSED, RUNNING, STOPPED, UNCHANGED, WAITING, Task,
)  # fmt: skip
from recipes.stages import KINDS

_PATIENCE = 5.0  # seconds a stage gets to end by itself before it is killed
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    0 done; 1 a stage failed; 2 wrong input, or another run works in `run_dir`; 130/143/129 stopped by Ctrl-C/SIGTERM/SIGHUP.
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
        _write_run(pipeline, run_dir, names)
        renew = set(names) if fresh is True else set(fresh or ())
        return _Run(_tasks(pipeline, run_dir, names), run_dir, jobs, renew, echo, server_command).run()
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
    for name in names:
        cfg = pipeline.stages[name].cfg
        if cfg["resources"]["nodes"] > 1:
            fix = "use `align submit`, or set it to 1"
            problems.append(Problem("", f"{name}.resources.nodes", f"is {cfg['resources']['nodes']}: this runner has one machine", fix))
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


def _write_run(pipeline, run_dir: Path, names: list[str]) -> None:
    versions = {"versions": artifacts.package_versions(), "commit": artifacts.git_commit()}
    artifacts.atomic_write_text(run_dir / "pipeline.yaml", artifacts.config_text({**pipeline.to_dict(), **versions}))
    for name in names:
        workdir.write_early(run_dir / name, pipeline.stages[name].cfg)


class _Run:
    """The loop: events of children come in through one queue, everything is decided in the main thread."""

    def __init__(self, tasks: dict[str, Task], run_dir: Path, jobs: int, fresh: set[str], echo, server_command):
        self.tasks, self.run_dir, self.jobs, self.fresh = tasks, run_dir, max(1, jobs), fresh
        self.echo, self.server_command = echo, server_command
        self.events: queue.SimpleQueue = queue.SimpleQueue()  # its put() may be called from a signal handler
        self.server: EngineServer | None = None
        self.engine_lost: list[str] = []
        self.children: dict[str, Child] = {}
        self.began = time.time()
        self.engine_ready: float | None = None
        self.earlier = _earlier_timing(run_dir)

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> int:
        self.screen = display.choose(self.echo)
        handlers = self._catch_signals()
        stopped = None
        try:
            stopped = self._loop()
        finally:
            self._stop_all()
            self._release_signals(handlers)
            self.screen.close()
        return self._finish(stopped)

    def _loop(self) -> int | None:
        """Until every stage has ended; the number of the signal that stopped it, if one did."""
        self._advance()
        while not all(task.state in ENDED for task in self.tasks.values()):
            try:
                event = self.events.get(timeout=0.25)
            except queue.Empty:
                event = {"event": "tick"}
            if event["event"] == "signal":
                return event["number"]
            self._handle(event)
            self._advance()
            for task in self.tasks.values():
                if task.state == RUNNING:
                    task.tail.read()
            self.screen.tick(self.tasks.values())
        return None

    def _advance(self) -> None:
        """Move every stage on as far as it goes now."""
        before = [task.state for task in self.tasks.values()]
        for task in self.tasks.values():  # parents come first, so one pass is enough
            if task.state == WAITING:
                self._settle(task)
        self._need_server()
        for task in self.tasks.values():
            busy = sum(other.state == RUNNING for other in self.tasks.values())
            if task.state == QUEUED and busy < self.jobs and (not task.engine or (self.server and self.server.ready)):
                self._start(task)
        if [task.state for task in self.tasks.values()] != before:
            self._write_timing()

    def _settle(self, task: Task) -> None:
        """A waiting stage: blocked, unchanged or queued, once its parents have ended."""
        parents = [self.tasks[name] for name in task.parents]
        lost = [parent.name for parent in parents if parent.state in ENDED and parent.state not in GOOD]
        if lost:
            task.end(BLOCKED, [f"needs {', '.join(lost)}"])
        elif all(parent.state in GOOD for parent in parents) and self._is_free(task):
            try:
                task.decision = workdir.decide(task.dir, task.cfg, task.name in self.fresh)
            except FileNotFoundError as error:
                self._ended(task, FAILED, [f"an input was not written: {error}"])
                return
            if task.decision.action == "skip":
                task.facts = (artifacts.read_manifest(task.dir) or {}).get("facts", {})
                task.end(UNCHANGED)
                self.screen.line(f"{task.name}: unchanged, skipped")
            else:
                task.state, task.queued = QUEUED, time.time()

    def _is_free(self, task: Task) -> bool:
        """False while another process works in the stage's folder: someone runs its launch.sh, or a killed one ends."""
        if holder(task.dir) is None:
            return True
        if not task.message:
            task.message = ["another process works in its folder"]
            self.screen.line(f"{task.name}: waits, {task.message[0]}: {task.dir}")
        return False

    def _start(self, task: Task) -> None:
        if not self._is_free(task):
            task.state = WAITING  # what it leaves decides anew
            return
        redo = f", anew: {task.decision.reason}" if task.decision.action == "redo" else ""
        workdir.open_attempt(task.dir, task.cfg, task.decision)
        task.log_offset = stage_log.log_size(task.log)
        task.tail = MetricsTail(task.dir / "metrics.jsonl")
        task.state, task.started, task.message = RUNNING, time.time(), []
        resumed = ", resumes unfinished work" if task.decision.action == "resume" else ""
        self.screen.line(f"{task.name}: started ({task.kind}){resumed}{redo}")
        config, devices = task.dir / artifacts.CONFIG, task.cfg["resources"]["devices"]
        if task.engine:
            self.server.start_stage(task.name, config, devices)
        else:
            name, put = task.name, self.events.put
            command = stage_command(task.kind, str(config), devices)
            self.children[name] = Child(command, task.log, lambda code: put({"event": "exit", "id": name, "code": code}))

    # -- events --------------------------------------------------------------------------------------

    def _handle(self, event: dict) -> None:
        if event["event"] == "ready":
            self.server.ready, self.engine_ready = True, time.time()
        elif event["event"] == "exit" and event.get("id") in self.tasks:
            self.children.pop(event["id"], None)
            task = self.tasks[event["id"]]
            if task.state == RUNNING:
                self._exited(task, event["code"])
        elif event["event"] == "gone":
            self._server_gone(event["code"])

    def _exited(self, task: Task, code: int) -> None:
        task.tail.read()
        if code == EXIT_DONE:
            manifest = artifacts.read_manifest(task.dir)
            if manifest is None:
                self._ended(task, FAILED, ["it ended with exit code 0 but wrote no manifest"])
            elif manifest["fingerprint"] != task.decision.fingerprint:
                self._ended(task, FAILED, ["its config or an input changed while it ran"])
            else:
                task.facts = manifest["facts"]
                self._ended(task, DONE)
        elif code == EXIT_INPUT:
            text = stage_log.input_error(task.log, task.log_offset) or stage_log.failure(task.log, task.log_offset)
            self._ended(task, REFUSED, text)
        else:
            self._ended(task, FAILED, [_exit_text(code), *stage_log.failure(task.log, task.log_offset)])

    def _ended(self, task: Task, state: str, message: list[str] | None = None) -> None:
        task.end(state, message)
        if state == DONE:
            facts = display.facts_text(task.facts) or task.progress.text()
            self.screen.line(f"{task.name}: done in {display.seconds(task.seconds)}" + (f" ({facts})" if facts else ""))
            return
        what = "wrong input" if state == REFUSED else "failed"
        self.screen.line(f"{task.name}: {what} after {display.seconds(task.seconds) or '0 s'}, log: {task.log}")
        for line in task.message:
            self.screen.line(f"    {line}")

    # -- the engine ----------------------------------------------------------------------------------

    def _need_server(self) -> None:
        """Start the server as soon as an engine stage may come, so that its imports overlap the core stages; end it after the last."""
        wanted = [task for task in self.tasks.values() if task.engine and task.state not in ENDED]
        if self.engine_lost:
            for task in wanted:
                if task.state != WAITING:
                    self._ended(task, FAILED, self.engine_lost)
        elif wanted and self.server is None:
            self.server = EngineServer(self.run_dir / "engine.log", self.events.put, self.server_command)
        elif not wanted and self.server is not None:
            server, self.server = self.server, None
            # It takes a moment to end; nothing waits for that.
            threading.Thread(target=server.close).start()

    def _server_gone(self, code: int) -> None:
        if self.server is None:
            return  # we closed it
        when = "" if self.server.ready else " while it started"
        log = self.server.log
        self.server, self.engine_lost = None, [f"the engine server ended{when}, {_exit_text(code)}, log: {log}", *stage_log.failure(log)]
        for task in self.tasks.values():
            if task.engine and task.state == RUNNING:
                self._ended(task, FAILED, self.engine_lost)

    # -- stopping ------------------------------------------------------------------------------------

    def _catch_signals(self) -> dict:
        if threading.current_thread() is not threading.main_thread():
            return {}

        def stop(number, _frame):
            self.events.put({"event": "signal", "number": number})

        # What is ignored stays ignored: that is how nohup and background jobs of a shell are meant.
        wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        return {number: signal.signal(number, stop) for number in wanted}

    def _release_signals(self, handlers: dict) -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def _stop_all(self) -> None:
        """End what still runs: asked first, killed after a few seconds. Work on disk stays and can resume."""
        running = [task for task in self.tasks.values() if task.state == RUNNING]
        for task in running:
            if task.engine and self.server:
                self.server.kill_stage(task.name)
            elif task.name in self.children:
                self.children[task.name].signal(signal.SIGTERM)
        deadline = time.time() + _PATIENCE
        while any(task.state == RUNNING for task in running) and time.time() < deadline:
            try:
                event = self.events.get(timeout=0.1)
            except queue.Empty:
                continue
            if event["event"] == "signal":
                break  # asked twice
            if event["event"] == "gone":
                self.server = None
            for task in running:
                if event.get("id") == task.name or (event["event"] == "gone" and task.engine):
                    task.end(STOPPED)
        for task in running:
            if task.state == RUNNING and task.name in self.children:
                self.children[task.name].signal(signal.SIGKILL)
            task.end(STOPPED)
        if self.server is not None:
            # While it imports the engine it does not see that its stdin has ended, and it has no children yet.
            self.server.close(3.0 if self.server.ready else 0.0)
            self.server = None

    # -- the end -------------------------------------------------------------------------------------

    def _finish(self, stopped: int | None) -> int:
        total = time.time() - self.began
        for task in self.tasks.values():
            if task.state not in ENDED:
                task.end(STOPPED)
        self._write_timing(total)
        for line in display.summary(self.tasks.values(), total):
            self.echo(line)
        if stopped is not None:
            self.echo(f"stopped by {signal.Signals(stopped).name}; the same command goes on from here")
            return 128 + stopped
        states = {task.state for task in self.tasks.values()}
        code = EXIT_FAILED if FAILED in states else EXIT_INPUT if REFUSED in states else EXIT_DONE
        return self._report(code)

    def _report(self, code: int) -> int:
        """Build the report of what is done; its failure never hides how the run went."""
        try:
            import recipes.report

            build = getattr(recipes.report, "build", None)
            if build is None:
                return code
            build(self.run_dir)
        except Exception as error:  # the report reads whatever lies in the run: anything may be wrong with that
            self.echo(f"the report failed: {type(error).__name__}: {error}")
            return code or EXIT_FAILED
        self.echo(f"report {self.run_dir / 'report' / 'index.html'}")
        return code

    def _write_timing(self, total: float | None = None) -> None:
        """timing.json: unix seconds. A stage that was not run again keeps the times of when it was."""
        stages = dict(self.earlier)
        for task in self.tasks.values():
            earlier = {k: v for k, v in self.earlier.get(task.name, {}).items() if v is not None}
            stages[task.name] = {**task.timing(), **earlier, "state": task.state} if task.state == UNCHANGED else task.timing()
        record = {
            "pid": os.getpid(), "jobs": self.jobs, "started": self.began, "engine_ready": self.engine_ready,
            "ended": None if total is None else self.began + total, "total_seconds": total, "stages": stages,
        }  # fmt: skip
        artifacts.atomic_write_json(self.run_dir / "timing.json", record)


def _earlier_timing(run_dir: Path) -> dict:
    import json

    try:
        return json.loads((run_dir / "timing.json").read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _exit_text(code: int) -> str:
    """Negative codes are signals, as are those above 128 from launchers."""
    number = -code if code < 0 else code - 128 if code > 128 else 0
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit code {code}"
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
