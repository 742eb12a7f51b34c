"""Predicted memory of every stage by part, against the GPU's, and beside it what the run recorded."""

from __future__ import annotations

from collections.abc import Sequence

from recipes.errors import UserInputError
from recipes.report.curves import Figure
from recipes.report.load import Run
from recipes.report.numbers import number, size
from recipes.report.svg import esc, text, ticks, wrap

LABEL, WIDTH, BAR, GAP = 190, 1000, 13, 10
# part of the planner's memory -> (name, colour class of report.css)
PARTS = {
    "weights": ("weights", "policy"),
    "gradients": ("gradients", "val"),
    "optimizer": ("optimizer", "train"),
    "activations": ("activations", "metric"),
    "logits": ("logits", "reward"),
    "cache": ("keys and values", "data"),
    "workspace": ("CUDA, NCCL, Transformer Engine", "outside"),
}
EXACT = ("weights", "gradients", "optimizer")  # what a run records without a GPU as well
RECORDED = {"weights": "parameters", "gradients": "gradients", "optimizer": "optimizer"}


def figure(run: Run) -> Figure | None:
    """A row of bars a stage; None where no stage names a GPU and none recorded what it held."""
    rows = [row for stage in _plans(run) if (row := _row(run, stage))]
    if not rows:
        return None
    used = dict.fromkeys(part for row in rows for _, bar in row["bars"] for part, _ in bar)
    legend = [(css, name) for part, (name, css) in PARTS.items() if part in used]
    return Figure("Memory of the fullest rank", _chart(rows), _note(rows), legend)


def _plans(run: Run) -> list:
    """The planner's view of the run's stages; [] for a run that it cannot read."""
    from recipes.pipeline.config import from_run
    from recipes.planner.plan import plan
    from recipes.planner.work import Assumptions

    try:
        return plan(from_run(run.path), Assumptions()).stages
    except (UserInputError, ArithmeticError, AttributeError, IndexError, KeyError, OSError, TypeError, ValueError):
        return []  # a damaged or an old run: the report must come out all the same


def _row(run: Run, plan) -> dict | None:
    """{"name", "limit", "bars": [(which, [(part, bytes)])], "peak", "error"}; None where there is nothing to say."""
    stage = run.stages.get(plan.name)
    recorded = _recorded(stage.facts.get("memory")) if stage else {}
    if plan.gpu is None and not recorded:
        return None
    from recipes.planner.memory import held

    known = held(plan.settings, plan.model)
    exact = {part: known[RECORDED[part]] for part in EXACT}  # on CPUs only these three can be compared
    fullest = max(plan.memory(), key=lambda memory: memory.total).to_dict()
    expected = exact if plan.gpu is None else fullest
    bars = [("predicted", [(part, value) for part, value in expected.items() if value])]
    if recorded:
        bars.append(("measured", [(part, recorded[part]) for part in EXACT if recorded[part]]))
    limit = plan.gpu.memory if plan.gpu else None
    error = None
    if recorded:
        sums = [sum(values[part] for part in EXACT) for values in (exact, recorded)]
        error = sums[1] / sums[0] - 1 if sums[0] else None
    return {"name": plan.name, "limit": limit, "bars": bars, "peak": recorded.get("peak"), "error": error}


def _recorded(memory: object) -> dict:
    """The numbers of `facts.memory`; {} where one of the three that every run records is not there."""
    memory = memory if isinstance(memory, dict) else {}
    found = {part: number(memory.get(name)) for part, name in RECORDED.items()}
    return {} if None in found.values() else {**found, "peak": number(memory.get("peak"))}


def _chart(rows: Sequence[dict]):
    ends = [value for row in rows for value in (row["limit"], row["peak"], *map(_sum, row["bars"])) if value]
    most = max(ends) * 1.03
    unit, name = next((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")) if most >= u)
    scale, y, parts = (WIDTH - LABEL - 60) / most, 0.0, []
    for row in rows:
        parts += _bars(row, y, scale)
        y += len(row["bars"]) * (BAR + 2) + GAP
    values, show = ticks(0, most / unit, 8)
    grid = []
    for value in values:
        x = LABEL + value * unit * scale
        grid.append(f'<path class="grid" d="M{x:.1f} 0V{y:.0f}"/>')
        grid.append(text("tick", x, y + 14, f"{show(value)} {name}"))
    return wrap(grid + parts, WIDTH, y + 20, "Memory by part and stage", "gantt")


def _sum(bar: tuple[str, list]) -> float:
    return sum(value for _, value in bar[1])


def _bars(row: dict, y: float, scale: float) -> list[str]:
    height = len(row["bars"]) * (BAR + 2)
    parts = [text("tick name", LABEL - 70, y + height / 2 + 4, row["name"], "end")]
    for index, (which, bar) in enumerate(row["bars"]):
        top, x = y + index * (BAR + 2), float(LABEL)
        parts.append(text("tick", LABEL - 8, top + BAR - 3, which, "end"))
        for part, value in bar:
            name, css = PARTS[part]
            title = f"{row['name']}, {which}: {name} {size(value)}"
            place = f'x="{x:.1f}" y="{top:.1f}" width="{value * scale:.2f}" height="{BAR}"'
            parts.append(f'<rect class="bar {css}" {place}><title>{esc(title)}</title></rect>')
            x += value * scale
        parts.append(text("tick", x + 5, top + BAR - 3, size(_sum((which, bar))), "start"))
    for value, css in ((row["limit"], "zero"), (row["peak"], "axis")):
        if value:
            parts.append(f'<path class="{css}" d="M{LABEL + value * scale:.1f} {y - 2:.1f}V{y + height:.1f}"/>')
    return parts


def _note(rows: Sequence[dict]) -> str:
    errors = [row["error"] for row in rows if row["error"] is not None]
    said = ["Predicted by the planner: docs/planner.md says how."]
    if any(row["limit"] for row in rows):
        said.append("Dashed: the GPU's memory.")
    if any(row["peak"] for row in rows):
        said.append("Solid line: the highest that torch's allocator saw.")
    if errors:
        worst = max(errors, key=abs)
        off = "none of them is off" if abs(worst) < 5e-5 else f"off by at most {worst:+.2%}"
        said.append(f"Weights, gradients and optimizer of {len(errors)} stages were measured: {off}.")
    return " ".join(said)
