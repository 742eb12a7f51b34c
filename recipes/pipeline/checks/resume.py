"""What a run of this name would do with the work that is in its folder."""

from __future__ import annotations

from pathlib import Path

from recipes.pipeline import workdir
from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.config import Pipeline

K3 = Rule(
    "K3",
    title="Work of another config or of other inputs is not gone on with",
    explanation="NeMo-Aligner resumes whatever lies in the checkpoint folder: with other data it skips rows, with "
    "another global batch size or other data-parallel ranks it reads rows twice, with another parent it changes the "
    "reference policy of DPO, all without a word. Here a stage goes on only if its config and the content of its "
    "inputs are those that it began with; else its folder is set aside and it begins anew.",
    fix="nothing, if that is meant; otherwise another --run, or undo the change that the message names",
    severity="warn",
)
ACTIONS = {"skip": "left alone", "resume": "goes on", "redo": "begins anew", "start": "begins"}


@K3
def begins_anew(stage: Subject):
    decision = _decide(stage.run_dir, stage) if stage.run_dir else None
    if decision and decision.action == "redo":
        yield "inputs", f"its work in {stage.run_dir / stage.name} is set aside: {decision.reason}", K3.fix


def _decide(run_dir: Path, stage: Subject) -> workdir.Decision | None:
    """None where an input is not there yet."""
    if not workdir.has_work(run_dir / stage.name):
        return workdir.Decision("start", "", "")
    try:
        return workdir.decide(run_dir / stage.name, stage.cfg)
    except OSError:
        return None


def plan(pipeline: Pipeline, run_dir: Path) -> list[dict]:
    """What would become of every stage: {"stage", "action", "why"}, in the order of the graph."""
    rows, moved = [], set()  # moved: stages whose outputs may change
    for name, cfg in pipeline.stages.items():
        decision = _decide(run_dir, Subject(pipeline, cfg))
        parents = [parent for parent in cfg.parents if parent in moved]
        action = "waits" if decision is None else ACTIONS[decision.action]
        why = "an input is not there yet" if decision is None else decision.reason
        if decision is not None and decision.action == "skip":
            why = f"decided after {', '.join(parents)}" if parents else ""
        if decision is None or decision.action != "skip" or parents:
            moved.add(name)
        rows.append({"stage": name, "action": action, "why": why})
    return rows
