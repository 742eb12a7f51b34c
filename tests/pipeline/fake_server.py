"""Stands in for recipes.engine.server in the runner's tests: the same protocol, stages that only count.

A stage's config has `fake: {steps, seconds, fail_at, refuse, text}`. It keeps its step in checkpoints/step, so that a
resumed one is told from one begun anew, and writes outputs/out.txt from `text` and the contents of its inputs.
Its environment: FAKE_IMPORT_SECONDS is how long it takes to be ready, "fail" makes it die while it loads.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from recipes.pipeline import artifacts


def stage(stage_dir: Path, cfg: dict) -> dict:
    fake = {"steps": 3, "seconds": 0.0, "fail_at": None, "refuse": False, "text": "", **cfg.get("fake", {})}
    if fake["refuse"]:
        print("checking\nINPUT ERROR\n[D6] rows.jsonl:7: no reward\n    fix: score it first", flush=True)
        os._exit(2)
    counter = stage_dir / "checkpoints" / "step"
    counter.parent.mkdir(exist_ok=True)
    first = int(counter.read_text()) if counter.exists() else 0
    metrics = open(stage_dir / "metrics.jsonl", "a", buffering=1)

    def emit(**event):
        metrics.write(json.dumps({**event, "time": time.time()}) + "\n")

    emit(event="start", total=fake["steps"], unit="step", resumed_at=first)
    for step in range(first + 1, fake["steps"] + 1):
        time.sleep(fake["seconds"] / fake["steps"])
        if step == fake["fail_at"]:
            raise FloatingPointError(f"loss is nan at step {step}")
        counter.write_text(str(step))
        emit(event="train", step=step, loss=1 / step)
    emit(event="end")
    inputs = "".join(path.read_text() for path in artifacts.input_paths(stage_dir, cfg).values())
    artifacts.atomic_write_text(stage_dir / "outputs" / "out.txt", fake["text"] + inputs)
    return {"loss": 1 / fake["steps"], "resumed_at": first}


def child(config: Path) -> None:
    started = time.time()
    log = os.open(config.parent / "logs" / "stage.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(0)
    code = 1
    try:
        cfg = artifacts.read_config(config)
        artifacts.write_manifest(config.parent, cfg, stage(config.parent, cfg), started)
        code = 0
    except Exception:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    seconds = os.environ.get("FAKE_IMPORT_SECONDS", "0")
    if seconds == "fail":
        raise ImportError("no module named engine")
    time.sleep(float(seconds))
    running, say = {}, threading.Lock()

    def tell(**event):
        with say:
            print(json.dumps(event), flush=True)

    def wait(name: str, pid: int) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        running.pop(name, None)
        tell(event="exit", id=name, code=code)

    tell(event="ready", seconds=float(seconds))
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("op") == "kill":
            if request["id"] in running:
                os.kill(running[request["id"]], signal.SIGTERM)
            continue
        pid = os.fork()
        if pid == 0:
            child(Path(request["config"]))
        running[request["id"]] = pid
        threading.Thread(target=wait, args=(request["id"], pid), daemon=True).start()
    for pid in list(running.values()):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
