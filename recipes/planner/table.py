"""What `align plan` prints: rows of the table, the total, the assumptions in words, and the same as plain data."""

from __future__ import annotations

from recipes.planner.gpus import FITS, GPUS
from recipes.planner.layouts import Suggestion
from recipes.planner.plan import Plan, StagePlan
from recipes.printing import counted
from recipes.report.numbers import duration, size

COLUMNS = (
    "stage", "nodes x GPUs", "TP/PP/DP", "mbs", "micro", "bubble", "first", "last", "of", "host", "disk",
    "steps", "tokens", "time", "GPU-hours", "jobs",
)  # fmt: skip


def lines(plan: Plan) -> list[str]:
    """The table, its total, notes and assumptions."""
    from recipes.pipeline.display import table

    text = table(COLUMNS, [_row(stage) for stage in plan.stages])
    text += ["", total(plan.stages), ""]
    text += [f"{stage.name}: {note}" for stage in plan.stages for note in stage.notes]
    text += [f"{name}: not planned, {why}" for name, why in plan.unplanned.items()]
    return [*text, *assumptions(plan)]


def _row(stage: StagePlan) -> list[str]:
    settings, (first, last) = stage.settings, stage.memory()
    times = f" x {stage.at_once}" if stage.at_once > 1 else ""
    return [
        stage.name,
        f"{settings.nodes} x {settings.devices}{times}",
        f"{settings.tensor}/{settings.pipeline}/{settings.data}",
        str(settings.micro if settings.trains else settings.batch),
        str(settings.micro_batches) if settings.trains else "-",
        f"{settings.bubble:.0%}" if settings.trains else "-",
        size(first.total) + ("!" if stage.fits is False and first.total > stage.gpu.usable else ""),
        size(last.total) + ("!" if stage.fits is False and last.total > stage.gpu.usable else ""),
        f"{stage.gpu.memory / 1e9:.0f} GB" if stage.gpu else "-",
        size(stage.host) if stage.host else "-",
        size(stage.disk[0]) if settings.trains else "-",
        "-" if stage.steps is None else f"{stage.steps:,}",
        "-" if stage.tokens is None else amount(stage.tokens),
        "-" if stage.seconds is None else duration(stage.seconds),
        "-" if stage.gpu_hours is None else f"{stage.gpu_hours:,.{1 if stage.gpu_hours < 100 else 0}f}",
        "-" if stage.jobs is None else str(stage.jobs),
    ]


def amount(count: float) -> str:
    """A large number of things: 3.3 B, 120 M, 4,096."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:,.0f}"


def total(stages: list[StagePlan]) -> str:
    known = [stage for stage in stages if stage.seconds is not None]
    kept = sum(stage.disk[1] for stage in stages)
    most = max((kept - stage.disk[1] + stage.disk[0] for stage in stages), default=0)
    text = f"{counted(stages, 'stage')}; disk for checkpoints {size(most)} at most, {size(kept)} at the end"
    if not known:
        return f"{text}; no times: name a GPU (resources.gpu, or --gpu) and rows (assume:)"
    hours = sum(stage.gpu_hours for stage in known)
    others = [stage for stage in stages if stage.seconds is None]
    left = f" ({counted(others, 'stage')} without a time)" if others else ""
    days = duration(sum(stage.seconds for stage in known))
    return f"{text}; {days} one after the other, {hours:,.1f} GPU-hours{left}"


def assumptions(plan: Plan) -> list[str]:
    """What the numbers rest on, in plain words."""
    assumed = plan.assumed
    used = dict.fromkeys(stage.gpu.name for stage in plan.stages if stage.gpu)
    bound = [stage.name for stage in plan.stages if stage.data.tokens_from != "assumed"]
    text = [
        "",
        "Computed, not measured: no GPU was used for any of this (docs/planner.md).",
        f"time: {assumed.efficiency:.0%} of the dense bf16 peak, recompute counted as work, and the pipeline's bubble; "
        "every row as long as the sequence, since batches are padded; without loading, validation and queues",
        f"decoding: {assumed.bandwidth:.0%} of the memory bandwidth, max_new_tokens for every answer",
        f"saves: {assumed.disk_rate / 1e9:g} GB a second over all ranks",
        f"memory: fits up to {FITS:.0%} of a GPU; 6 GB of it for CUDA, NCCL and Transformer Engine, 2 GB on one rank",
    ]
    text += _replaced(plan)
    text += [f"{name}: {GPUS[name].source} (grade {GPUS[name].grade})" for name in used]
    if bound:
        text.append(f"tokens: the sequence length, an upper bound, for {', '.join(bound)} (assume.<stage>.tokens)")
    known = [(stage.name, stage.data) for stage in plan.stages if stage.data.rows is not None]
    rows = [f"{name} {data.rows:,} ({data.rows_from})" for name, data in known]
    unknown = [stage.name for stage in plan.stages if stage.data.rows is None]
    text += [f"rows: {', '.join(rows)}"] if rows else []
    text += [f"rows not known: {', '.join(unknown)} (assume.<stage>.rows)"] if unknown else []
    return text


def _replaced(plan: Plan) -> list[str]:
    """That --gpu holds over what the layout says."""
    named = dict.fromkeys(str(stage.subject.get("resources.gpu") or "") for stage in plan.stages)
    others = [name for name in named if plan.gpu and name and name.lower() != plan.gpu.name.lower()]
    return [f"GPU: {plan.gpu.name} (--gpu) in place of {', '.join(others)} (resources.gpu)"] if others else []


# -- layouts -----------------------------------------------------------------------------------------


def suggested(found: list[Suggestion], count: int) -> list[str]:
    """The second table: each stage as it is and as it could be."""
    from recipes.pipeline.display import table

    columns = ("stage", "", "nodes x GPUs", "TP/PP/DP", "mbs", "recompute", "first", "last", "time", "GPU-hours")
    rows, missing = [], []
    for suggestion in found:
        if not suggestion.stages:
            missing.append(f"{suggestion.kind}: nothing fits on {count} GPUs; more of them, or ones with more memory")
        for index, now in enumerate(suggestion.current):
            rows.append([now.name, "now", *_brief(now)])
            if suggestion.stages:
                rows.append(["", "suggested", *_brief(suggestion.stages[index])])
    return ["", *table(columns, rows), "", *missing]


def _brief(stage: StagePlan) -> list[str]:
    cells, settings = dict(zip(COLUMNS, _row(stage))), stage.settings
    recompute = settings.recompute if settings.trains else "-"
    named = ("first", "last", "time", "GPU-hours")
    return [cells["nodes x GPUs"], cells["TP/PP/DP"], cells["mbs"], recompute, *(cells[name] for name in named)]


# -- plain data --------------------------------------------------------------------------------------


def to_dict(plan: Plan, found: list[Suggestion] | None = None) -> dict:
    """What `--json` prints; docs/planner.md explains the keys."""
    return {
        "pipeline": plan.pipeline.name,
        "assumptions": {
            "efficiency": plan.assumed.efficiency,
            "disk_bytes_per_second": plan.assumed.disk_rate,
            "bandwidth_share": plan.assumed.bandwidth,
            "fits_below": FITS,
        },
        "stages": [stage_dict(stage) for stage in plan.stages],
        "not_planned": plan.unplanned,
        "problems": [vars(problem) for problem in plan.problems],
        "suggested": None
        if found is None
        else {each.kind: [stage_dict(stage) for stage in each.stages] for each in found},
    }


def stage_dict(stage: StagePlan) -> dict:
    settings, (first, last) = stage.settings, stage.memory()
    return {
        "stage": stage.name,
        "kind": settings.kind,
        "gpu": stage.gpu.name if stage.gpu else None,
        "nodes": settings.nodes,
        "devices": settings.devices,
        "array_tasks": stage.tasks,
        "tasks_at_once": stage.at_once,
        "tensor": settings.tensor,
        "pipeline": settings.pipeline,
        "context": settings.context,
        "data": settings.data,
        "micro_batch_size": settings.micro,
        "micro_batches": settings.micro_batches,
        "bubble": settings.bubble if settings.trains else None,
        "recompute": settings.recompute if settings.trains else None,
        "parameters": stage.model.total,
        "memory": {"first": first.to_dict(), "last": last.to_dict()},
        "memory_limit": stage.gpu.usable if stage.gpu else None,
        "fits": stage.fits,
        "host_bytes": stage.host,
        "rows": stage.data.rows,
        "rows_from": stage.data.rows_from or None,
        "tokens_a_row": stage.data.tokens,
        "tokens_from": stage.data.tokens_from,
        "steps": stage.steps,
        "tokens": stage.tokens,
        "step_seconds": stage.step_seconds,
        "seconds": stage.seconds,
        "seconds_unpadded": stage.seconds_unpadded,
        "gpu_hours": stage.gpu_hours,
        "save_bytes": stage.save_bytes,
        "save_seconds": stage.save_seconds,
        "saves": stage.saves,
        "disk_bytes": stage.disk[0],
        "kept_bytes": stage.disk[1],
        "time_limit": stage.limit,
        "jobs": stage.jobs,
        "notes": stage.notes,
    }
