"""What every stage does around its own work: lock, config, manifest, exit code.

    python -m recipes.stages.<kind> <config.yaml>        one process
    torchrun --nproc-per-node N -m recipes.stages.<kind> <config.yaml>

Exit codes: 0 the manifest is written; 1 the stage failed or stopped early (what it saved is kept, start it again to
go on); 2 its input is wrong, and nothing was trained. In a batch job a stage that stopped when asked to ends with 0
too, and tells the job's script how it ended (recipes/attempt.py).
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recipes import attempt
from recipes.errors import EXIT_DONE, EXIT_FAILED, EXIT_INPUT, StageFailed, Stopped, UserInputError
from recipes.pipeline import artifacts
from recipes.ranks import is_first_rank

# (config with absolute inputs, stage directory) -> facts; None from an array task while others are still at work.
Main = Callable[[dict, Path], "dict | None"]
# How long to wait for a killed predecessor of this stage to let go of its directory.
LOCK_SECONDS = 60
INPUT_ERROR = "INPUT ERROR"


class Busy(StageFailed):
    """Another process works in this stage's directory."""


def run(main: Main) -> None:
    """The `__main__` of a stage module."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {main.__module__} <config.yaml>")
    sys.exit(run_stage(main, Path(sys.argv[1])))


def run_stage(main: Main, config: Path) -> int:
    """Run one stage to its manifest. `config` is the stage's config.yaml or its directory. Returns the exit code."""
    stage_dir = (config if config.is_dir() else config.parent).resolve()
    try:
        attempt.enter(stage_dir)
        result, message = _run(main, stage_dir, time.time())
    except Stopped as stopped:  # before the stage's own work began
        result, message = attempt.STOPPED, str(stopped)
    attempt.report(result, message)
    attempt.flush()
    if result == attempt.STOPPED and attempt.active():
        return EXIT_DONE  # the script reads the outcome; another code would make srun kill the ranks that still save
    return {attempt.DONE: EXIT_DONE, attempt.PART: EXIT_DONE, attempt.REFUSED: EXIT_INPUT}.get(result, EXIT_FAILED)


def _run(main: Main, stage_dir: Path, started: float) -> tuple[str, str]:
    """Do the work and write the manifest; returns how it ended (attempt.DONE, ...) and what there is to say."""
    try:
        cfg = artifacts.read_config(stage_dir / artifacts.CONFIG)
        with _only_one(stage_dir):
            facts = main(absolute_inputs(cfg, stage_dir), stage_dir)
            if facts is None:
                print("this array task's part is done; the task that finishes last writes the outputs", flush=True)
                return attempt.PART, ""
            if is_first_rank():
                artifacts.write_manifest(stage_dir, cfg, facts, started)
        return attempt.DONE, ""
    except UserInputError as error:
        print(f"{INPUT_ERROR}\n{error}", file=sys.stderr)
        return attempt.REFUSED, str(error)
    except Busy as error:  # ranks on a node that Slurm has lost: started again later, it finds them gone
        print(f"FAILED {error}", file=sys.stderr)
        return attempt.CRASHED, str(error)
    except StageFailed as error:
        print(f"FAILED {error}", file=sys.stderr)
        return attempt.FAILED, str(error)
    except Stopped as error:  # in a job as planned, elsewhere the stage is not done
        print(f"{'STOPPED' if attempt.active() else 'FAILED'} {error}", file=sys.stderr)
        return attempt.STOPPED, str(error)
    except Exception as error:
        traceback.print_exc()
        return attempt.CRASHED, f"{type(error).__name__}: {error}"


def absolute_inputs(cfg: dict, stage_dir: Path) -> dict:
    """The config with every input as an absolute path."""

    def absolute(value):
        if isinstance(value, list):
            return [absolute(item) for item in value]
        return value if value is None else os.path.normpath(stage_dir / value)

    return {**cfg, "inputs": {name: absolute(value) for name, value in cfg["inputs"].items()}}


@contextmanager
def _only_one(stage_dir: Path) -> Iterator[None]:
    """Two writers in one stage directory would tear its checkpoints; rank 0 holds the lock for all ranks.

    The tasks of an array write files of their own: each has its lock.
    """
    if not is_first_rank():
        yield
        return
    task = os.environ.get("ALIGN_ARRAY_TASK", "")
    with (stage_dir / f".lock{task}").open("w") as lock:
        deadline = time.time() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.time() > deadline:
                    raise Busy(f"another process is working in {stage_dir}") from None
                time.sleep(0.2)
        yield
