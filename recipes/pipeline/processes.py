"""Child processes that never outlive the runner, whichever way the runner ends."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # what has to be on PYTHONPATH where the package is not installed
_PR_SET_PDEATHSIG = 1
# Bound before any fork: nothing may be imported or looked up between fork and exec.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def child_env() -> dict[str, str]:
    """Our environment, in which `import recipes` works from every working directory."""
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT), "PYTHONUNBUFFERED": "1"}


def stage_command(kind: str, config: str, devices: int = 1) -> list[str]:
    """The command of one stage: `python -m`, or torchrun (started as a module, so that no PATH is needed)."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)] if devices > 1 else []
    return [sys.executable, *torchrun, "-m", f"recipes.stages.{kind}", config]


def launch_script(name: str, kind: str, devices: int) -> str:
    """Text of launch.sh: starts the stage whose folder it lies in, from any working directory."""
    command = shlex.join(stage_command(kind, "CONFIG", devices)).removesuffix(" CONFIG")
    return (
        "#!/usr/bin/env bash\n"
        f"# Runs stage {name} as `align run` does; it resumes from its own checkpoints.\n"
        "set -euo pipefail\n"
        'here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)\n'
        f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"\n'
        f'exec {command} "$here/config.yaml" "$@"\n'
    )


class Child:
    """A subprocess whose output goes to `log`; `on_exit(code)` is called from a thread when it ends."""

    def __init__(self, command: list[str], log: Path, on_exit: Callable[[int], None]):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as out:
            # A session of its own: Ctrl-C in the terminal reaches the runner only, which stops its children in order.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=child_env(),
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        threading.Thread(target=lambda: on_exit(self.process.wait()), daemon=True).start()

    def signal(self, number: int) -> None:
        signal_group(self.process, number)


def _die_with_parent() -> Callable[[], None] | None:
    """For Popen's preexec_fn: the kernel kills the child when the thread that started it ends. Linux only."""
    if _prctl is None:
        return None
    parent, exit_now, getppid = os.getpid(), os._exit, os.getppid

    def before_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if getppid() != parent:  # it died before the call above
            exit_now(1)

    return before_exec


def signal_group(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a process that leads a session, and to all it started."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
