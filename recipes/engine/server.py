"""Start stages without importing the engine again: import once, then fork one process a rank for each stage.

    python -m recipes.engine.server        (started by the local runner; also fine by hand)

Requests are JSON lines on stdin:
    {"id": "x", "config": "/.../config.yaml", "ranks": 1}     start a stage
    {"op": "kill", "id": "x"}                                   stop it
Replies are JSON lines on stdout:
    {"event": "ready", "seconds": 9.1}   {"event": "exit", "id": "x", "code": 0}
A stage's output goes to <stage>/logs/stage.log. End of stdin, as when the runner dies, kills all stages and ends.

Nothing before a fork may start a thread or a device context; the children set thread counts and process groups up.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from importlib import import_module
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints while importing must not look like a reply
    started = time.time()
    from recipes.engine import setup

    setup.load()
    _reply(replies, event="ready", seconds=round(time.time() - started, 2))
    Server(replies).serve()


def _reply(replies: int, **message) -> None:
    os.write(replies, (json.dumps(message) + "\n").encode())


class Server:
    """Children by process id: {pid: (request id, rank)}; a request is over when all its ranks are."""

    def __init__(self, replies: int):
        self.replies = replies
        self.children: dict[int, str] = {}
        self.codes: dict[str, int] = {}
        # A finished child wakes select() through this pipe.
        self.wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        pending = b""
        while True:
            readable, _, _ = select.select([0, self.wake], [], [])
            if self.wake in readable:
                os.read(self.wake, 4096)
                self._reap()
            if 0 in readable:
                data = os.read(0, 65536)
                if not data:
                    return self._kill(list(self.children))
                *lines, pending = (pending + data).split(b"\n")
                for line in filter(None, lines):
                    self._handle(json.loads(line))

    def _handle(self, request: dict) -> None:
        if request.get("op") == "kill":
            self._kill([pid for pid, owner in self.children.items() if owner == request["id"]])
            return
        ranks = request.get("ranks", 1)
        port = _free_port() if ranks > 1 else 0
        for rank in range(ranks):
            pid = os.fork()
            if pid == 0:
                _child(Path(request["config"]), rank, ranks, port)
            os.setpgid(pid, pid)  # here as well as in the child: a kill may come before the child has run
            self.children[pid] = request["id"]

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            owner = self.children.pop(pid, None)
            if owner is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            # The first rank to fail tells why; its peers would wait for it for ever, so they are stopped.
            if code and not self.codes.get(owner):
                self.codes[owner] = code
                self._kill([other for other, mine in self.children.items() if mine == owner])
            if owner not in self.children.values():
                _reply(self.replies, event="exit", id=owner, code=self.codes.pop(owner, 0))

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _child(config: Path, rank: int, ranks: int, port: int) -> None:
    """One rank of one stage; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)  # a group of its own, so that its helpers die with it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = config.parent / "logs" / "stage.log"
        log.parent.mkdir(exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if ranks > 1:
            _like_torchrun(rank, ranks, port)
        from recipes.pipeline.artifacts import read_config
        from recipes.stages.entry import run_stage

        module = import_module(f"recipes.stages.{read_config(config)['kind']}")
        code = run_stage(module.main, config)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _like_torchrun(rank: int, ranks: int, port: int) -> None:
    """The environment that torchrun gives to each of its processes on one machine."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID=f"local-{port}",
    )


if __name__ == "__main__":
    main()
