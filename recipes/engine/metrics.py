"""metrics.jsonl and Weights & Biases: the loggers that NeMo-Aligner's trainers write to."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from pathlib import Path

from recipes.ranks import rank


class JsonlLogger:
    """One JSON object a line; see the run directory's description for the events.

    On resume, lines of steps that will be trained again are taken out first, so that a step occurs once.
    Only rank 0 writes.
    """

    def __init__(self, path: Path, total: int, unit: str = "step", resumed_at: int = 0):
        self.path = path
        _forget_after(path, resumed_at)
        self.write("start", total=total, unit=unit, resumed_at=resumed_at)

    @classmethod
    def for_rows(cls, path: Path, total: int):
        """For stages that work through rows: a function that records how many are done (rank 0; else nothing)."""
        if rank() != 0:
            return lambda count: None
        logger, done = cls(path, total, unit="row"), [0]

        def progress(count: int) -> None:
            done[0] += count
            logger.write("progress", done=min(done[0], total), total=total)

        return progress

    def write(self, event: str, **values) -> None:
        line = json.dumps({"event": event, **values, "time": time.time()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def log_metrics(self, metrics: dict, step: int) -> None:
        """metrics: NeMo-Aligner's names, prefixed "train/" or "val/". Training steps arrive counted from 0."""
        event = next(iter(metrics)).partition("/")[0]
        values = {name.partition("/")[2]: value for name, value in metrics.items()}
        self.write(event, step=step + 1 if event == "train" else step, **values)

    def finalize(self, status: str) -> None:
        self.write("end")


def _forget_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line a kill tore
            continue
        if step and row["event"] in ("start", "train", "val") and row.get("step", 0) <= step:
            kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    temporary.replace(path)


class WandbLogger:
    """Weights & Biases, never fatal and never waited for: a thread of its own starts the run and sends what is queued.

    Offline unless there is an account (WANDB_API_KEY). Whatever goes wrong is said once in the log; training goes on.
    """

    # At the end: how long to wait for the last lines, in seconds. Offline they are on disk at once.
    FLUSH_SECONDS = 30

    def __init__(self, cfg, stage_dir: Path):
        self.actions: queue.Queue = queue.Queue()
        self.thread = None
        if cfg.wandb.mode != "disabled":
            mode = cfg.wandb.mode if os.environ.get("WANDB_API_KEY") else "offline"
            self.thread = threading.Thread(target=self._work, args=(cfg.wandb.project, mode, stage_dir), daemon=True)
            self.thread.start()

    def log_hyperparams(self, params) -> None:
        self.actions.put(lambda run: run.config.update(params, allow_val_change=True))

    def log_metrics(self, metrics: dict, step: int) -> None:
        self.actions.put(lambda run: run.log(metrics))

    def finalize(self, status: str) -> None:
        self.actions.put(None)
        if self.thread is not None:
            self.thread.join(self.FLUSH_SECONDS)

    def _work(self, project: str, mode: str, stage_dir: Path) -> None:
        try:
            import wandb

            name, group = f"{stage_dir.parent.name}/{stage_dir.name}", stage_dir.parent.name
            settings = wandb.Settings(silent=True, x_disable_stats=True, disable_git=True, disable_code=True)
            run = wandb.init(project=project, group=group, name=name, dir=str(stage_dir), mode=mode, settings=settings)
            while (action := self.actions.get()) is not None:
                action(run)
            run.finish()
        except Exception as error:
            print(f"wandb: {error!r}; going on without it", flush=True)
