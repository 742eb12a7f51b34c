"""Starts stages in the order of the graph, several at once, and deals with how each of them ends."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from recipes.errors import EXIT_DONE, EXIT_INPUT
from recipes.pipeline import artifacts, display, stage_log, workdir
from recipes.pipeline.locks import holder
from recipes.pipeline.processes import Child, stage_command
from recipes.pipeline.progress import MetricsTail
from recipes.pipeline.server_client import EngineServer
from recipes.pipeline.task import (
    BLOCKED,
    DONE,
    ENDED,
    FAILED,
    GOOD,
    QUEUED,
    REFUSED,
    RUNNING,
    STOPPED,
    UNCHANGED,
    WAITING,
    Task,
)

_PATIENCE = 5.0  # seconds a stage gets to end by itself before it is killed
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Scheduler:
    """The loop: events of children come in through one queue, everything is decided in the main thread.

    on_change: called after stages changed their state.
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        screen,
        on_change: Callable[[], None],
        *,
        engine_log: Path,
        jobs: int = 2,
        fresh: Collection[str] = (),
        server_command: list[str] | None = None,
    ):
        self.tasks, self.screen, self.on_change = tasks, screen, on_change
        self.engine_log, self.server_command = engine_log, server_command
        self.jobs, self.fresh = max(1, jobs), set(fresh)
        self.events: queue.SimpleQueue = queue.SimpleQueue()  # its put() may be called from a signal handler
        self.server: EngineServer | None = None
        self.engine_ready: float | None = None  # unix time
        self.engine_lost: list[str] = []
        self.children: dict[str, Child] = {}

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> int | None:
        """Run until every stage has ended; returns the number of the signal that stopped it, if one did."""
        handlers = self._catch_signals()
        try:
            return self._loop()
        finally:
            self._stop_all()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _loop(self) -> int | None:
        self.screen.tick(self.tasks.values())
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
            self.on_change()

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
            command = stage_command(task.kind, str(config), devices)
            self.children[task.name] = Child(command, task.log, lambda code: self._put_exit(task.name, code))

    def _put_exit(self, name: str, code: int) -> None:
        self.events.put({"event": "exit", "id": name, "code": code})

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
        """Start the server as soon as an engine stage may come: its imports overlap the core stages. End it after
        the last one."""
        wanted = [task for task in self.tasks.values() if task.engine and task.state not in ENDED]
        if self.engine_lost:
            for task in wanted:
                if task.state != WAITING:
                    self._ended(task, FAILED, self.engine_lost)
        elif wanted and self.server is None:
            self.server = EngineServer(self.engine_log, self.events.put, self.server_command)
        elif not wanted and self.server is not None:
            server, self.server = self.server, None
            # It takes a moment to end; nothing waits for that.
            threading.Thread(target=server.close).start()

    def _server_gone(self, code: int) -> None:
        if self.server is None:
            return  # we closed it
        when = "" if self.server.ready else " while it started"
        log, self.server = self.server.log, None
        what = f"the engine server ended{when}, {_exit_text(code)}, log: {log}"
        self.engine_lost = [what, *stage_log.failure(log)]
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


def _exit_text(code: int) -> str:
    """Negative codes are signals, as are those above 128 from launchers."""
    number = -code if code < 0 else code - 128 if code > 128 else 0
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit code {code}"
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
