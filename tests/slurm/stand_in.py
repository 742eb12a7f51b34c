"""A stand-in for the interpreter of a job: real Slurm, real job script, real stage entry; a trainer that only counts.

A profile's `slurm.python` is a script that runs this file (see conftest.py). `-m recipes.stages.<kind>` becomes the toy
below under the real `recipes.stages.entry`: lock, signals, outcome, manifest. Everything else runs as it is, except the
all-reduce, which needs torch.

The toy reads <run>/behaviour.json: {stage: {"steps", "seconds" a step, "save_every", "save_seconds", "faults"}}.
A fault is {"do", "step", "start", "rank"}: what happens before which step, in which start of the job (any if absent).
{"nodes": {"node1": "silent" or "faulty"}} is what the check of a node finds, {"all_reduce": {"rank", "start"}} where
the all-reduce fails.
Its checkpoint, named as NeMo names them, lists every step that was trained; the last one becomes the artifact.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from recipes import attempt  # noqa: E402
from recipes.errors import Problem, StageFailed, Stopped, UserInputError  # noqa: E402
from recipes.pipeline.checks.paths import OUTPUTS  # noqa: E402
from recipes.ranks import is_first_rank, rank  # noqa: E402


def behaviour(stage_dir: Path) -> dict:
    path = stage_dir.parent / "behaviour.json"
    own = json.loads(path.read_text()).get(stage_dir.name, {}) if path.is_file() else {}
    return {"steps": 3, "seconds": 0.05, "save_every": 1, "save_seconds": 0.0, "faults": [], **own}


def main(cfg: dict, stage_dir: Path) -> dict | None:
    how = behaviour(stage_dir)
    if cfg.get("array_tasks", 1) > 1:
        return share_of_array(cfg, stage_dir, how)
    steps = newest(stage_dir / "checkpoints")
    if "exp_manager" in cfg:
        attempt.leave_between_steps()
    total = how["steps"]
    write_line(stage_dir, event="start", total=total, unit="step", resumed_at=len(steps), **hash_of(how))
    while len(steps) < total:
        step = len(steps)
        for fault in how["faults"]:
            provoke(fault, step)
        time.sleep(how["seconds"])
        steps.append([step, os.environ["ALIGN_ATTEMPT"]])
        write_line(stage_dir, event="train", step=step + 1, loss=1.0 / (step + 1))
        leave = attempt.time_left() <= 0
        if (step + 1) % how["save_every"] == 0 or leave:
            save(stage_dir / "checkpoints", steps, how)
        if leave and step + 1 < total:
            raise Stopped(f"stopped at step {step + 1} of {total}")
    if is_first_rank():
        publish(cfg, stage_dir, steps)
    return {"steps": total}


def provoke(fault: dict, step: int) -> None:
    """Do what the fault says if this is its step, start and rank."""
    now = {"step": step, "start": int(os.environ.get("SLURM_RESTART_COUNT", 0)), "rank": rank()}
    if any(fault.get(key, value) != value for key, value in now.items()):
        return
    do = fault["do"]
    if do == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        time.sleep(600)
    elif do == "crash":
        raise RuntimeError("the toy crashed")
    elif do == "fail":
        raise StageFailed("the loss is not finite")
    elif do == "refuse":
        raise UserInputError(Problem("D9", "pairs.jsonl:7", "the reward is missing", "add it"))
    elif do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "wait":  # for the test to have done its part, which it says with the file <run>/go
        while not (Path(sys.argv[1]).parents[1] / "go").exists() and attempt.time_left() > 0:
            time.sleep(0.05)
    elif do == "full":
        with open("/dev/full", "wb", buffering=0) as device:  # the real ENOSPC
            device.write(b"a checkpoint")
    elif do == "exit":
        os._exit(fault["code"])
    else:
        raise ValueError(do)


def hash_of(how: dict) -> dict:
    """The hash of a variable that the behaviour names in "hash_of": shows that it came through, and not what it is."""
    value = os.environ.get(how.get("hash_of", ""))
    return {} if value is None else {"hash": hashlib.sha256(os.fsencode(value)).hexdigest()}


def newest(folder: Path) -> list:
    """The steps of the newest finished checkpoint."""
    done = [path for path in folder.glob("toy--step=*-last") if not Path(f"{path}-unfinished").exists()]
    done.sort(key=lambda path: int(path.name.split("=")[1].split("-")[0]))
    return json.loads((done[-1] / "steps.json").read_text()) if done else []


def save(folder: Path, steps: list, how: dict) -> None:
    """As NeMo does it: a marker, the checkpoint, and the marker taken away when it is whole."""
    if not is_first_rank():
        return
    target = folder / f"toy--step={len(steps)}-last"
    marker = Path(f"{target}-unfinished")
    folder.mkdir(exist_ok=True)
    marker.touch()
    target.mkdir(exist_ok=True)
    time.sleep(how["save_seconds"])
    (target / "steps.json").write_text(json.dumps(steps))
    marker.unlink()


def publish(cfg: dict, stage_dir: Path, steps: list) -> None:
    for name in OUTPUTS.get(cfg["kind"], ("corpus.jsonl", "corpus_validation.jsonl", "prompts.jsonl")):
        path = stage_dir / "outputs" / name
        path.parent.mkdir(exist_ok=True)
        if name == "model":
            path.mkdir(exist_ok=True)
            path = path / "weights"
        path.write_text(json.dumps(steps))


def share_of_array(cfg: dict, stage_dir: Path, how: dict) -> dict | None:
    """One task of an array: its part is a file of its own, and the last task to end joins them."""
    task, folder = int(os.environ["ALIGN_ARRAY_TASK"]), stage_dir / "data" / "batches"
    part = folder / f"{task}.jsonl"
    for fault in how["faults"] if not part.exists() else ():
        if fault.get("task", task) == task:
            provoke(fault, 0)
    time.sleep(how["seconds"])
    folder.mkdir(parents=True, exist_ok=True)
    if not part.exists():
        part.write_text(json.dumps({"task": task, "attempt": os.environ["ALIGN_ATTEMPT"]}) + "\n")
    parts = sorted(folder.glob("*.jsonl"))
    if len(parts) < cfg["array_tasks"]:
        return None
    publish(cfg, stage_dir, [path.name for path in parts])
    return {}


def write_line(stage_dir: Path, **values) -> None:
    if is_first_rank():
        with open(stage_dir / "metrics.jsonl", "a") as file:
            file.write(json.dumps({**values, "time": time.time()}) + "\n")


def of_run(folder: Path) -> dict:
    """behaviour.json of the run whose slurm/health/<attempt> this is."""
    path = folder.parents[2] / "behaviour.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def check_node() -> None:
    """The real check, unless this node is to say nothing, or to ask for more space than there is."""
    how = of_run(Path(sys.argv[1])).get("nodes", {}).get(os.environ["SLURMD_NODENAME"])
    if how == "silent":
        sys.exit(1)
    if how == "faulty":
        sys.argv += ["--min-free-gb", "1e9"]
    runpy.run_module("recipes.slurm.node_check", run_name="__main__", alter_sys=True)


def all_reduce() -> None:
    env, folder = os.environ, Path(sys.argv[1])
    fault, me = of_run(folder).get("all_reduce", {}), int(env["SLURM_PROCID"])
    start = int(env.get("SLURM_RESTART_COUNT", 0))
    bad = fault.get("rank") == me and fault.get("start", start) == start
    why = f"rank {me} on {env['SLURMD_NODENAME']}: the sum is wrong" if bad else ""
    report = {"rank": me, "node": env["SLURMD_NODENAME"], "ok": not bad, "seconds": 0.0, "why": why}
    (folder / f"rank{me}.json").write_text(json.dumps(report))
    sys.exit(bad)


def run(module: str) -> None:
    if module.startswith("recipes.stages."):
        from recipes.stages.entry import run_stage

        sys.exit(run_stage(main, Path(sys.argv[1])))
    if module == "recipes.engine.all_reduce":
        all_reduce()
    if module == "recipes.slurm.node_check":
        return check_node()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    assert sys.argv[1] == "-m", sys.argv
    name, sys.argv = sys.argv[2], [sys.argv[0], *sys.argv[3:]]
    run(name)
