"""What the training stages looked like: charts from metrics.jsonl and from the held-out rows of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from recipes.report import svg
from recipes.report.columns import columns
from recipes.report.evaluations import Evaluation, parent_rows
from recipes.report.load import DONE, TRAINING_KINDS, Run, Stage, read_jsonl
from recipes.report.numbers import evenly, fmt, is_broken, number, pearson, smooth, spearman, thin

POINTS = 1500  # of a scatter plot
# What a reward may have been bought with: neither high nor low is good by itself.
DRIFT = {"kl": "KL to the reference policy, nats a response", "tokens": "mean tokens a sampled response"}


@dataclass
class Figure:
    """A chart with its words. legend: (css class, name). warning: something a reader must not miss."""

    title: str
    svg: Markup
    note: str = ""
    legend: list[tuple[str, str]] = field(default_factory=list)
    warning: str = ""


Value = Callable[[dict], object]


def stage_figures(run: Run) -> list[dict]:
    """For every training stage: name, kind, status, progress and figures."""
    return [
        {"name": s.name, "kind": s.kind, "status": s.status, "progress": s.progress(), "figures": _figures(s)}
        for s in run.of_kind(*TRAINING_KINDS)
    ]


def _figures(stage: Stage) -> list[Figure]:
    if not stage.lines and stage.status != DONE:
        return []
    figures = [curve(stage, "Loss", lambda line: line.get("loss"))]
    if stage.kind == "preference":
        figures.append(curve(stage, "Reward gap, chosen − rejected", _gap))
        figures.append(curve(stage, "Preference accuracy", lambda line: line.get("acc")))
        figures.append(implicit_gaps(stage))
    if stage.kind == "reward":
        figures += predictions(stage)
    return figures


def _gap(line: dict) -> object:
    chosen, rejected = line.get("rewards_chosen_mean"), line.get("rewards_rejected_mean")
    if is_broken(chosen) or is_broken(rejected):
        return float("nan")
    chosen, rejected = number(chosen), number(rejected)
    return None if chosen is None or rejected is None else chosen - rejected


def _series(lines: Sequence[dict], value: Value) -> tuple[list[svg.Point], int]:
    """(step, value) of the lines that have it, one a step, the last written wins; and how many are not finite."""
    points, broken = {}, 0
    for line in lines:
        step, raw = number(line.get("step")), value(line)
        broken += is_broken(raw)
        if step is not None and (y := number(raw)) is not None:
            points[step] = y
    return sorted(points.items()), broken


def curve(stage: Stage, title: str, value: Value) -> Figure:
    """Training values (raw and smoothed if there are many) and validation values over the steps."""
    train, broken = _series(stage.events("train"), value)
    held_out, broken_val = _series(stage.events("val"), value)
    series, legend = [], []
    if len(train) > 30:
        series.append(svg.Series("train", "train", thin(train, 500), "faint"))
        series.append(svg.Series("train", "train", thin(smooth(train, max(2, len(train) // 40)), 300)))
    else:
        series.append(svg.Series("train", "train", train))
    series.append(svg.Series("validation", "val", thin(held_out, 200)))
    legend = [(s.css, s.name) for s in series if s.points and s.style != "faint"]
    lost = broken + broken_val
    warning = f"{lost} value{'s' if lost > 1 else ''} not finite" if lost else ""
    chart = svg.line_chart(series, "step", title.split(",")[0].lower(), f"{stage.name}: {title}")
    return Figure(title, chart, _ends(train, held_out), legend, warning)


def _ends(train: list[svg.Point], held_out: list[svg.Point]) -> str:
    """First and last values in words; the last training value is a mean, since single batches are noisy."""
    parts = []
    if train:
        tail = [y for _, y in train[-max(1, len(train) // 20) :]]
        what = f"mean of the last {len(tail)} steps" if len(tail) > 1 else "last step"
        parts.append(f"train {fmt(train[0][1])} → {fmt(sum(tail) / len(tail))} ({what})")
    if held_out:
        first = f"{fmt(held_out[0][1])} → " if len(held_out) > 1 else ""
        parts.append(f"validation {first}{fmt(held_out[-1][1])}")
    return "; ".join(parts)


def implicit_gaps(stage: Stage) -> Figure:
    """Held-out pairs: the policy's implicit reward gap against the reward model's, with the rank correlation."""
    title = "Implicit against reward-model gap"
    rows = read_jsonl(stage.path / "outputs" / "implicit_gaps.jsonl", stage.notes) if stage.status == DONE else []
    both = [(number(row.get("reward_gap")), number(row.get("implicit_gap"))) for row in rows]
    points = [(x, y) for x, y in both if x is not None and y is not None]
    chart = svg.scatter(evenly(points, POINTS), "reward-model gap", "implicit gap", f"{stage.name}: {title}", "pref")
    if not points:
        return Figure(title, chart, "implicit_gaps.jsonl has no row with both gaps" if rows else "")
    rho = spearman(points)
    agree = sum((x > 0) == (y > 0) for x, y in points) / len(points)
    note = f"{len(points):,} held-out pairs; Spearman {_coefficient(rho)}; same sign in {100 * agree:.0f} %"
    recorded = number(stage.facts.get("spearman"))
    differs = rho is not None and recorded is not None and abs(rho - recorded) > 0.005
    return Figure(title, chart, note, [], f"the manifest says Spearman {recorded:.3f}" if differs else "")


def predictions(stage: Stage) -> list[Figure]:
    """Reward model: predicted against labelled value on held-out rows, a figure for each labelled attribute."""
    rows = read_jsonl(stage.path / "outputs" / "validation_scores.jsonl", stage.notes) if stage.status == DONE else []
    by_name: dict[str, list[svg.Point]] = {}
    for row in rows:
        for name, label, predicted in _labelled(row):
            by_name.setdefault(name, []).append((label, predicted))
    accuracy = number(stage.facts.get("pair_accuracy"))
    if not by_name:
        title = "Held-out rows: predicted against labelled"
        return [Figure(title, svg.empty_chart(title), _accuracy_note(accuracy))]
    figures = []
    for name, points in by_name.items():
        r = pearson(points)
        error = sum(abs(x - y) for x, y in points) / len(points)
        note = f"{len(points):,} rows; correlation {_coefficient(r)}; mean absolute error {fmt(error)}"
        chart = svg.scatter(
            evenly(points, POINTS), "labelled", "predicted", f"{stage.name}: {name}", "reward", diagonal=True
        )
        figures.append(Figure(f"{name.replace('_', ' ').capitalize()} on held-out rows", chart, note))
    figures[0].note = _accuracy_note(accuracy) + figures[0].note
    return figures


def _coefficient(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _accuracy_note(accuracy: float | None) -> str:
    return "" if accuracy is None else f"Pair accuracy {100 * accuracy:.1f} %. "


def _labelled(row: dict) -> list[tuple[str, float, float]]:
    """(attribute, label, prediction) of one row of validation_scores.jsonl, the scalar reward first."""
    label = {"reward": row.get("labelled_reward"), **_mapping(row.get("labelled"))}
    predicted = {"reward": row.get("reward"), **_mapping(row.get("predicted"))}
    both = [(str(name), number(label[name]), number(predicted.get(name))) for name in label]
    return [(name, x, y) for name, x, y in both if x is not None and y is not None]


def _mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def stage_steps(run: Run, group: Sequence[Evaluation]) -> list[Figure]:
    """One small chart a metric, its value at every evaluated policy: the first two judged ones, beside them how far the
    policies have moved and how long their answers have become, then the other judged ones."""
    found = columns([e.metrics for e in group])
    judged, drift = [c for c in found if c.direction], [c for c in found if c.name in DRIFT]
    cols = judged[:2] + drift + judged[2:]
    labels, parents, figures = [e.policy for e in group], parent_rows(run, group), []
    for col in cols:
        values = [e.metrics.get(col.name) for e in group]
        css = "reward" if "reward" in col.name.lower() else "metric"
        title = f"{col.label} by policy"
        chart = svg.steps_chart(labels, values, parents, col.best(values), col.show, title, css)
        better = {1: "higher is better", -1: "lower is better"}.get(col.direction)
        note = ("percent; " if col.share else "") + (better or DRIFT[col.name])
        figures.append(Figure(title[0].upper() + title[1:], chart, note))
    return figures
