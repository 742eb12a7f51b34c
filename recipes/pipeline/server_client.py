"""The engine server as the runner sees it: one process that has imported the engine and forks a stage on request.

Protocol: JSON lines. Requests on its stdin, {"id", "config", "ranks"} or {"op": "kill", "id"}; events on its
stdout, {"event": "ready", "seconds"} and {"event": "exit", "id", "code"}. When its stdin ends it ends its children
and itself, so a runner that is killed leaves nothing behind.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from recipes.pipeline.processes import child_env, signal_group

COMMAND = [sys.executable, "-m", "recipes.engine.server"]


class EngineServer:
    """A running server. `on_event` gets its events as dicts, from a thread; the last one is {"event": "gone"}."""

    def __init__(self, log: Path, on_event: Callable[[dict], None], command: list[str] | None = None):
        self.log, self._on_event = log, on_event
        self.ready = False
        with open(log, "ab") as err:
            self.process = subprocess.Popen(
                command or COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=child_env(),
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            try:
                event = json.loads(line)
                event["event"]
            except (ValueError, TypeError, KeyError):  # something the engine's libraries print while they load
                with open(self.log, "ab") as log:
                    log.write(line)
                continue
            self._on_event(event)
        self._on_event({"event": "gone", "code": self.process.wait()})

    def _send(self, request: dict) -> None:
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            pass  # it is gone; the event that says so is on its way

    def start_stage(self, name: str, config: Path, ranks: int) -> None:
        self._send({"id": name, "config": str(config), "ranks": ranks})

    def kill_stage(self, name: str) -> None:
        self._send({"op": "kill", "id": name})

    def close(self, patience: float = 10.0) -> None:
        """End its stdin, wait `patience` seconds, then kill it with all it started."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            signal_group(self.process, signal.SIGKILL)
            self.process.wait()
