"""Judges: what audits found about them, and what judge stages counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recipes.report.load import DONE, Run, Stage, read_json
from recipes.report.numbers import percent
from recipes.report.svg import esc, text, wrap

NAMES = {"position": "place", "length": "length", "own_family": "own family"}
ROW, TOP, BOTTOM, RIGHT, PLOT = 24, 10, 40, 16, 330
LETTER, LONGEST = 6.4, 40  # width of a letter of an axis label; longer names are cut


def judgements(run: Run) -> list[dict]:
    """One line for every finished judge stage: who judged and how often each outcome occurred."""
    return [_judgement(stage) for stage in run.of_kind("judge") if stage.status == DONE]


def _judgement(stage: Stage) -> dict:
    facts = stage.facts
    counts = [facts.get(key) for key in ("outcomes", "responses", "prompts")]
    by = facts.get("by") if isinstance(facts.get("by"), dict) else {}
    return {
        "stage": stage.name,
        "judge": facts.get("judge"),
        "name": by.get("name"),
        "text_sha256": by.get("text_sha256"),
        "counts": "; ".join(_counts(found) for found in counts if isinstance(found, dict)),
        "order_consistency": facts.get("order_consistency"),
        "first_share": facts.get("first_share"),
        "tokens": facts.get("tokens"),
    }


def audits(run: Run) -> list[dict]:
    """One entry for every finished audit stage: table per set, the tests, and two drawings."""
    found = []
    for stage in run.of_kind("audit"):
        result = read_json(stage.path / "outputs" / "audit.json", stage.notes) if stage.status == DONE else None
        if isinstance(result, dict):
            try:
                found.append(_audit(stage, result))
            except (KeyError, TypeError, AttributeError):
                stage.notes.append("audit.json is damaged and not shown")
    return found


def _audit(stage: Stage, result: dict) -> dict:
    sets = [*result["sets"], *([result["overall"]] if result["overall"] else [])]
    return {
        "stage": stage.name,
        "judge": {key: result["judge"].get(key) for key in ("kind", "name", "sha256", "text", "text_sha256")},
        "rows": [_set_row(entry) for entry in sets],
        "tests": [_test_row(test) for test in result["tests"]],
        "verdicts": [_verdict(bias, found) for bias, found in result["biases"].items()],
        "level": result["level"],
        "least_effect": result["least_effect"],
        "accuracy": _accuracy(sets, stage.name),
        "effects": _effects(result["tests"], result["least_effect"], stage.name),
    }


def _set_row(entry: dict) -> dict:
    left_out = dict(entry.get("left_out") or {})
    if entry.get("not_drawn"):
        left_out["not drawn"] = entry["not_drawn"]
    return {
        "name": entry["name"],
        "pairs": entry["pairs"],
        "of_all": _share(entry["accuracy_of_all"]),
        "of_decided": _share(entry["accuracy_of_decided"]),
        "order_consistency": entry.get("order_consistency"),
        "first_share": entry.get("first_share"),
        "outcomes": _counts(entry["outcomes"]),
        "left_out": _counts(left_out),
    }


def _test_row(test: dict) -> dict:
    tone = "bad" if test["verdict"] == "detected" and test["controlled"] else ""
    return {**test, "bias": NAMES.get(test["bias"], test["bias"]), "tone": tone}


def _verdict(bias: str, found: dict) -> dict:
    words = f"{found['verdict']}, toward {found['toward']}" if found["toward"] else found["verdict"]
    observed = f"; observed on {len(found['observed_on'])} of the sets" if found["observed_on"] else ""
    return {"bias": NAMES.get(bias, bias), "text": words + observed, "tone": "bad" if found["toward"] else ""}


def _counts(counts: dict) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count)


def _share(found: dict | None) -> dict | None:
    return found and {
        "text": percent(found["share"]),
        "interval": f"{100 * found['low']:.1f} to {100 * found['high']:.1f}",
    }


# -- drawings


@dataclass(frozen=True)
class Dot:
    """One line of a drawing: its label, its value, an interval around it if there is one, what hovering says."""

    label: str
    value: float
    css: str
    title: str
    low: float | None = None
    high: float | None = None


def _accuracy(sets: Sequence[dict], stage: str) -> Markup:
    dots = [
        Dot(e["name"], a["share"], "metric", f"{e['name']}: {a['part']:,} of {a['whole']:,}", a["low"], a["high"])
        for e in sets
        if (a := e["accuracy_of_all"])
    ]
    return _dots(dots, (0.0, 1.0), [0.5], "right, share of all pairs", f"Accuracy of the judge of {stage} by set")


def _effects(tests: Sequence[dict], least: float, stage: str) -> Markup:
    shown = [test for test in tests if test["verdict"] != "too few pairs"]
    dots = [
        Dot(
            f"{NAMES.get(test['bias'], test['bias'])}, {test['on']}",
            test["effect"],
            _colour(test),
            f"{test['verdict']}: effect {test['effect']:+.3f}, p = {test['p']:.2g}, {test['pairs']:,} pairs",
        )
        for test in shown
    ]
    return _dots(dots, (-1.0, 1.0), [-least, least], "effect", f"Biases of the judge of {stage}, by test")


def _colour(test: dict) -> str:
    if test["verdict"] != "detected":
        return "metric"
    return "found" if test["controlled"] else "val"


def _dots(dots: Sequence[Dot], x_range: tuple[float, float], marks: Sequence[float], label: str, title: str) -> Markup:
    """A line for each dot, from top to bottom; marks: where dashed lines stand."""
    names = [dot.label if len(dot.label) <= LONGEST else dot.label[: LONGEST - 1] + "…" for dot in dots]
    left = 16 + LETTER * max(map(len, names), default=0)
    width, bottom = left + PLOT + RIGHT, TOP + ROW * max(1, len(dots))
    lo, hi = x_range

    def x(value: float) -> float:
        return left + (value - lo) / (hi - lo) * PLOT

    parts = []
    for tick in (lo + (hi - lo) * i / 4 for i in range(5)):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {TOP}V{bottom}"/>')
        parts.append(text("tick", x(tick), bottom + 15, f"{tick:g}"))
    parts += [f'<path class="diagonal" d="M{x(mark):.1f} {TOP}V{bottom}"/>' for mark in marks]
    for i, (dot, name) in enumerate(zip(dots, names)):
        y = TOP + ROW * (i + 0.5)
        parts.append(text("tick name", left - 8, y + 4, name, "end"))
        if dot.low is not None:
            parts.append(f'<path class="line {dot.css}" d="M{x(dot.low):.1f} {y}H{x(dot.high):.1f}"/>')
        parts.append(f'<path class="bigdot {dot.css}" d="M{x(dot.value):.1f} {y}h0"/>')
        circle = f'<circle class="hover {dot.css}" cx="{x(dot.value):.1f}" cy="{y}" r="7">'
        parts.append(f"{circle}<title>{esc(dot.title)}</title></circle>")
    if not dots:
        parts.append(text("axis-label", left + PLOT / 2, TOP + ROW / 2 + 4, "nothing to show"))
    parts.append(text("axis-label", left + PLOT / 2, bottom + 33, label))
    return wrap(parts, width, bottom + BOTTOM, title)
