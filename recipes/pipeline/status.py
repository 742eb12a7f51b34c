"""The state of a run, read from its files alone: works for a live run, a dead one and a copied one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import artifacts, workdir
from recipes.pipeline.locks import holder
from recipes.pipeline.progress import read_progress
from recipes.pipeline.timing import read_stages

LOG = Path("logs") / "stage.log"


def status(run_dir: str | Path) -> list[dict]:
    """One dict a stage, in the order of the graph: stage, kind, state, step, total, loss, wall_seconds, where.

    state: done, running, failed, unfinished (stopped; it resumes) or pending (not begun, or to be redone because its
    config changed). where: its outputs if done, its log if there is one, else its folder. Raises UserInputError if
    `run_dir` is not a run.
    """
    run_dir = Path(run_dir)
    stages, timing = _stages(run_dir), read_stages(run_dir)
    live = holder(run_dir) is not None
    return [_stage(run_dir / name, cfg, timing.get(name, {}), live) for name, cfg in stages.items()]


def _stages(run_dir: Path) -> dict[str, dict]:
    path = run_dir / "pipeline.yaml"
    if not path.is_file():
        fix = "give the folder of a run, runs/<name>"
        raise UserInputError(Problem("", str(run_dir), "is not a run: it has no pipeline.yaml", fix))
    return artifacts.read_config(path)["stages"]


def _stage(stage_dir: Path, cfg: dict, timing: dict, live: bool) -> dict:
    manifest, progress = artifacts.read_manifest(stage_dir), read_progress(stage_dir / "metrics.jsonl")
    state = _state(stage_dir, cfg, manifest, timing.get("state"), live)
    where = stage_dir / artifacts.OUTPUTS if state == "done" else stage_dir / LOG
    return {
        "stage": cfg["stage"],
        "kind": cfg["kind"],
        "state": state,
        "step": progress.step if state != "pending" else None,
        "total": progress.total if state != "pending" else None,
        "loss": progress.loss if state != "pending" else None,
        "wall_seconds": _wall(state, manifest, timing),
        "where": str(where if where.exists() else stage_dir),
    }


def _state(stage_dir: Path, cfg: dict, manifest: dict | None, recorded: str | None, live: bool) -> str:
    # The stage's own lock tells of one that was started by hand.
    if (recorded == "running" and live) or holder(stage_dir) is not None:
        return "running"
    if manifest is not None:
        # A cheap look: whether the content of its inputs is still the same is found out by the next run.
        return "done" if manifest["config_sha256"] == artifacts.config_sha256(cfg) else "pending"
    if recorded in ("failed", "refused"):
        return "failed"
    return "unfinished" if workdir.has_work(stage_dir) or (stage_dir / LOG).exists() else "pending"


def _wall(state: str, manifest: dict | None, timing: dict) -> float | None:
    """Seconds from the start of the last attempt to its end, or until now for a running stage."""
    if state == "pending":
        return None
    start, end = timing.get("started"), timing.get("ended")
    if state == "running" and start:
        return round(time.time() - start, 1)
    if start and end:
        return round(end - start, 1)
    return round(manifest["wall_seconds"], 1) if manifest else None


# -- logs --------------------------------------------------------------------------------------------


def follow_logs(
    run_dir: str | Path, stage: str | None = None, follow: bool = False, poll: float = 0.5
) -> Iterator[str]:
    """Lines of a stage's log, or of all stages' logs with "<stage> | " in front.

    follow: go on with what is appended until the stage (all stages) of the run is no longer at work. Raises
    UserInputError if `run_dir` is not a run or has no such stage.
    """
    run_dir = Path(run_dir)
    wanted = wanted_stages(run_dir, stage)
    logs = {name if stage is None else "": run_dir / name / LOG for name in wanted}
    return tail(lambda: logs, lambda: follow and _at_work(run_dir, wanted), poll)


def wanted_stages(run_dir: Path, stage: str | None) -> list[str]:
    """This stage, or all of the run. UserInputError if the run has no such stage."""
    names = list(_stages(run_dir))
    if stage is not None and stage not in names:
        fix = f"it has: {', '.join(names)}"
        raise UserInputError(Problem("", stage, f"the run {run_dir.name} has no such stage", fix))
    return names if stage is None else [stage]


def tail(find: Callable[[], dict[str, Path]], more: Callable[[], bool], poll: float) -> Iterator[str]:
    """Lines of the logs that `find` names, with "<label> | " in front where it gives a label, until `more` is False."""
    offsets: dict[Path, int] = {}
    while True:
        # Asked before reading: what is written between the two is then read in this round, not lost.
        going_on = more()
        for label, path in find().items():
            lines, offsets[path] = _new_lines(path, offsets.get(path, 0), complete=going_on)
            yield from (f"{label} | {line}" if label else line for line in lines)
        if not going_on:
            return
        time.sleep(poll)


def _at_work(run_dir: Path, names: list[str]) -> bool:
    if holder(run_dir) is None:
        return False
    states = {row["stage"]: row["state"] for row in status(run_dir)}
    recorded = read_stages(run_dir)
    ended = ("failed", "refused", "blocked", "stopped", "unchanged", "done")
    return any(states[name] == "running" or recorded.get(name, {}).get("state") not in ended for name in names)


def _new_lines(path: Path, offset: int, complete: bool) -> tuple[list[str], int]:
    """Lines from `offset` on and the offset after them; `complete`: leave a last line without its end for later."""
    try:
        with open(path, "rb") as source:
            if source.seek(0, 2) < offset:  # begun anew
                offset = 0
            source.seek(offset)
            block = source.read()
    except OSError:
        return [], 0
    if complete:
        block = block[: block.rfind(b"\n") + 1]
    return block.decode("utf-8", "replace").splitlines(), offset + len(block)
