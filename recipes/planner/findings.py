"""What a plan finds: layouts that do not fit, with reason and fix, and what a reader of its numbers must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipes.errors import Problem
from recipes.planner import data, gpus, memory
from recipes.report.numbers import duration

if TYPE_CHECKING:
    from recipes.planner.plan import StagePlan

# Node-hours of 8 H100 that were published for the reward model of this size (B parameters) on HelpSteer2's 20,324 rows.
# source: HelpSteer2, arXiv 2406.08673 appendix I (A)
PUBLISHED, PUBLISHED_ROWS = {341: 256, 71: 64}, 20324


def problems(stages: list[StagePlan]) -> list[Problem]:
    """Reasons why stages cannot run as they are laid out; the same one in several stages once, with all places."""
    found: dict[tuple, list[str]] = {}
    for problem in [problem for stage in stages for problem in _of_stage(stage)]:
        found.setdefault((problem.rule, problem.message, problem.fix), []).append(problem.where)
    return [Problem(rule, ", ".join(where), message, fix) for (rule, message, fix), where in found.items()]


def _of_stage(stage: StagePlan) -> list[Problem]:
    settings, model = stage.settings, stage.model
    found = []
    if settings.ranks % (settings.tensor * settings.pipeline * settings.context) or not model.divides(
        settings.tensor, settings.pipeline
    ):
        message = f"TP {settings.tensor} x PP {settings.pipeline} does not divide {settings.ranks} ranks or the model"
        found.append(Problem("C2", stage.subject.where("resources.devices"), message, "`align check` names the sizes"))
    if stage.fits is False:
        found.append(Problem("C9", stage.subject.where("resources.gpu"), too_much(stage), advice(stage)))
    return found


def too_much(stage: StagePlan) -> str:
    """What a stage needs on the rank that is too full, by part."""
    first, last = stage.memory()
    which, need = ("first", first) if first.total >= last.total else ("last", last)
    where = f" on the {which} pipeline stage" if stage.settings.pipeline > 1 else " a GPU"
    parts = sorted(((size, name) for name, size in need.to_dict().items() if size > 0.5e9), reverse=True)
    listed = ", ".join(f"{name} {size / memory.GB:.0f}" for size, name in parts)
    bound = "" if stage.settings.trains or stage.data.tokens_from == data.ASSUMED else " for rows of full length"
    return (
        f"needs {need.total / memory.GB:.0f} GB{where}{bound}, and {stage.gpu.name} has "
        f"{stage.gpu.usable / memory.GB:.0f} ({gpus.FITS:.0%} of {stage.gpu.memory / memory.GB:.0f}): {listed}"
    )


def advice(stage: StagePlan) -> str:
    settings = stage.settings
    if not settings.half or (settings.trains and settings.optimizer == "portable_adamw"):
        how = "with portable_adamw, which every rank holds whole" if settings.half else "in float32"
        return f"the stage computes {how}: name the layout `gpu` first, layout: [gpu, ...]"
    if not settings.trains:
        more = "raise TP or PP, lower batch_size"
        known = stage.data.tokens_from == data.ASSUMED
        return more if known else f"{more}, or set assume.<stage>.tokens (mean of a row) where rows are short"
    changes = []
    if settings.recompute != "full":
        changes.append("full recompute")
    if settings.micro > 1:
        changes.append("a smaller micro_batch_size")
    changes.append("more TP or PP")
    if settings.optimizer in ("mcore_distributed_optim", "distributed_fused_adam"):
        changes.append("more data-parallel ranks (they share the optimizer)")
    return f"{', '.join(changes)}; `align plan PIPELINE --gpus N --gpu {stage.gpu.name}` looks for a layout"


# -- notes -------------------------------------------------------------------------------------------


def notes(stage: StagePlan) -> list[str]:
    """What a reader must know about the numbers of one stage."""
    found = []
    if (room := _no_room(stage)) is not None:
        found.append(room)
    if (least := stage.seconds_unpadded) is not None:
        found.append(f"{duration(least)} if no row were padded to the longest of its batch")
    hours = PUBLISHED.get(round(stage.model.total / 1e9))
    if hours and stage.gpu_hours and stage.settings.kind == "reward" and stage.data.rows == PUBLISHED_ROWS:
        ours = stage.gpu_hours / gpus.PER_NODE
        found.append(f"{ours:.0f} node-hours here; HelpSteer2 (appendix I) published {hours} of 8 H100 for its own run")
    return found


def _no_room(stage: StagePlan) -> str | None:
    """Is there time to finish a step and save between leaving and the end of the job?"""
    if not stage.settings.trains or stage.limit is None or stage.step_seconds is None:
        return None
    needed = stage.step_seconds + stage.save_seconds
    if needed <= stage.grace:
        return None
    fix = "raise slurm.grace" if stage.limit > 2 * needed else "raise the time limit and slurm.grace"
    return f"a step and a save take {needed:.0f} s, the job leaves {stage.grace:.0f} s before its limit: {fix}"
