"""One start of a stage by a batch script: ranks as srun numbers them, a log a rank, signals, and how it ended.

The script (slurm/stage.sbatch.j2) says so in the environment; without ALIGN_ATTEMPT nothing here does anything.

ALIGN_ATTEMPT   names this start, the same on all ranks and different after a requeue
ALIGN_OUTCOME   the file that says how it ended: the first rank that failed, else rank 0
ALIGN_STOP_AT   unix seconds at which training should save and leave, before the time limit does it
MASTER_ADDR, MASTER_PORT   the rendezvous
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from recipes.errors import Stopped
from recipes.ranks import is_first_rank, rank

# How a start can end; what the batch script does about it is decided in recipes/slurm/verdict.py.
DONE, PART, STOPPED, REFUSED, FAILED, CRASHED = "done", "part", "stopped", "refused", "failed", "crashed"
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

_asked: list[str] = []  # the signals that asked this process to leave
_defer = False  # training leaves between two steps; everything else at once


def active() -> bool:
    """True if a batch script started this process."""
    return "ALIGN_ATTEMPT" in os.environ


def enter(stage_dir: Path) -> None:
    """Set this process up as one rank of the stage. Called before anything heavy is imported."""
    if not active():
        return
    _like_torchrun()
    if not is_first_rank():
        _own_log(stage_dir / "logs" / "ranks" / f"{rank()}.log")
    # The watchdog of the script asks every rank where it hangs before it kills the step.
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    for number in SIGNALS:
        signal.signal(number, _on_signal)
    os.register_at_fork(after_in_child=_in_a_worker)


def _in_a_worker() -> None:
    """A process that a rank forks, for example to read data, ends with its pool and does not answer for the stage."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _like_torchrun() -> None:
    """srun's numbers under torchrun's names: one way into the engine, whoever started it."""
    env = os.environ
    tasks, nodes = int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_STEP_NUM_NODES"])
    env.update(
        RANK=env["SLURM_PROCID"],
        LOCAL_RANK=env["SLURM_LOCALID"],
        WORLD_SIZE=str(tasks),
        LOCAL_WORLD_SIZE=str(tasks // nodes),
        GROUP_RANK=env["SLURM_NODEID"],
        TORCHELASTIC_RUN_ID=env["ALIGN_ATTEMPT"],
    )


def _own_log(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    print(f"== {os.environ['ALIGN_ATTEMPT']} on {socket.gethostname()}", flush=True)


def _on_signal(number: int, frame) -> None:
    _asked.append(signal.Signals(number).name)
    if not _defer and len(_asked) == 1:  # srun and slurmstepd both send TERM: the second must not disturb the leaving
        raise Stopped(f"asked to leave by {_asked[-1]}; what it had saved is kept")


def leave_between_steps() -> None:
    """From now on a signal only sets what `time_left` reads: the training loop saves before it leaves."""
    global _defer
    _defer = True


def time_left() -> float:
    """Seconds until training should save and leave; 0 once a signal has asked for it, infinite without a limit."""
    if _asked:
        return 0.0
    stop_at = os.environ.get("ALIGN_STOP_AT")
    return float(stop_at) - time.time() if stop_at else float("inf")


def report(result: str, message: str = "") -> None:
    """Write how this rank's start ended, if that is news: the first failure stands, success is rank 0's to tell."""
    path = os.environ.get("ALIGN_OUTCOME")
    if not path or (result in (DONE, PART, STOPPED) and not is_first_rank()):
        return
    host = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    outcome = {"result": result, "message": message, "rank": rank(), "node": host, "time": time.time()}
    mine = Path(f"{path}.{rank()}.tmp")
    try:
        mine.write_text(json.dumps(outcome), encoding="utf-8")
        _first(mine, path)
    except OSError as error:  # a full disk, for example; the exit code and the log still tell
        print(f"cannot write {path}: {error}", file=sys.stderr)


def _first(mine: Path, path: str) -> None:
    """Rename `mine` to `path` unless another rank was first."""
    try:
        os.link(mine, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not os.path.exists(path):
            os.replace(mine, path)
            return
    mine.unlink(missing_ok=True)


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
