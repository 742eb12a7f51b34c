"""Where the time went: wall time of stages, the part of it inside training steps, the way to the first step."""

from __future__ import annotations

from datetime import datetime, timezone

from markupsafe import Markup

from recipes.report.lineage import FAMILY, anchor, flat
from recipes.report.load import Run, Stage
from recipes.report.numbers import duration, number
from recipes.report.svg import esc, text, ticks, wrap

ROW, LABEL, WIDTH = 20, 150, 1000


def spans(run: Run) -> list[tuple[Stage, float, float]]:
    return [(s, *s.span) for s in run.stages.values() if s.span]


def wall(run: Run) -> dict:
    """The run as a whole: start, elapsed seconds and what they cover, sum over the stages, time to the first step.

    Elapsed is the runner's own count if one start of it did all that is done; otherwise from the first start to the
    last thing recorded, pauses between several starts included.
    """
    found = spans(run)
    start = min((s for _, s, _ in found), default=None)
    seen = [number(line.get("time")) for stage in run.stages.values() for line in stage.lines[-1:]]
    end = max([e for _, _, e in found] + [t for t in seen if t is not None], default=None)
    began, total = number(run.timing.get("started")), number(run.timing.get("total_seconds"))
    in_one_go = began is not None and total is not None and start is not None and start >= began - 1
    if in_one_go:
        elapsed, note, start = total, "one start of the runner", began
    else:
        elapsed = None if start is None else end - start
        note = "from the first stage's start to the last thing recorded"
    steps = [number(line.get("time")) for stage in run.stages.values() for line in stage.events("train")]
    first = min((t for t in steps if t is not None), default=None)
    return {
        "start": start,
        "elapsed": elapsed,
        "note": note,
        "work": sum(s.wall or 0 for s in run.stages.values()),
        "first_step": None if first is None or start is None or first < start else first - start,
    }


def date(seconds: float | None) -> str:
    return (
        "not recorded"
        if seconds is None
        else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    )


def _last_attempt(stage: Stage) -> list[dict]:
    """Lines since the last start: the manifest's wall time covers this attempt only."""
    at = max((i for i, line in enumerate(stage.lines) if line.get("event") == "start"), default=0)
    return stage.lines[at:]


def _first_step(stage: Stage) -> float | None:
    lines = [line for line in _last_attempt(stage) if line.get("event") == "train"]
    return number(lines[0].get("time")) if lines else None


def stage_rows(run: Run) -> list[dict]:
    """One line a stage: wall time, time in training steps and its share, seconds until the first step was done."""
    longest = max((s.wall or 0 for s in run.stages.values()), default=0)
    rows = []
    for stage in run.stages.values():
        steps = [number(line.get("step_time")) for line in _last_attempt(stage) if line.get("event") == "train"]
        known = [t for t in steps if t is not None]
        in_steps = sum(known) if known else None
        first = _first_step(stage)
        begin = stage.span[0] if stage.span else None
        rows.append(
            {
                "name": stage.name,
                "anchor": anchor(stage.name),
                "kind": stage.kind,
                "status": stage.status,
                "wall": duration(stage.wall),
                "bar": (stage.wall or 0) / longest if longest else 0,
                "steps": len(steps) or None,
                "in_steps": None if in_steps is None else duration(in_steps),
                "share": in_steps / stage.wall if in_steps is not None and stage.wall else None,
                "first_step": None if first is None or begin is None or first < begin else duration(first - begin),
            }
        )
    return rows


def gantt(run: Run) -> Markup | None:
    """Stages as bars over the time since the first start. None if no stage recorded its times."""
    found = sorted(spans(run), key=lambda item: item[1])
    if not found:
        return None
    start, end = min(s for _, s, _ in found), max(e for _, _, e in found)
    span, height = (end - start) or 1.0, len(found) * ROW + 26
    unit, name = (1, "s") if span < 300 else (60, "min") if span < 3 * 3600 else (3600, "h")
    scale, parts = (WIDTH - LABEL - 60) / span, []
    values, show = ticks(0, span / unit, 8)
    for value in values:
        x = LABEL + value * unit * scale
        parts.append(f'<path class="grid" d="M{x:.1f} 0V{height - 22}"/>')
        parts.append(text("tick", x, height - 8, f"{show(value)} {name}"))
    for i, (stage, begin, finish) in enumerate(found):
        x, y, width = LABEL + (begin - start) * scale, i * ROW, max(2.0, (finish - begin) * scale)
        place = f'x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{ROW - 7}" rx="3"'
        title = f"{stage.name}: {duration(finish - begin)}, from {duration(begin - start)}"
        parts.append(text("tick name", LABEL - 8, y + 14, stage.name, "end"))
        parts.append(f'<rect class="bar {FAMILY.get(stage.kind, "make")}" {place}><title>{esc(title)}</title></rect>')
        parts.append(text("tick", x + width + 5, y + 14, duration(finish - begin), "start"))
    return wrap(parts, WIDTH, height, "Stages over time", "gantt")


def versions(run: Run) -> list[dict]:
    """Package versions over the pipeline and all manifests; a package with several versions lists who had which."""
    seen: dict[str, dict[str, list[str]]] = {}
    sources = {
        "pipeline.yaml": run.pipeline.get("versions"),
        **{s.name: (s.manifest or {}).get("versions") for s in run.stages.values()},
    }
    for where, found in sources.items():
        for package, version in (found if isinstance(found, dict) else {}).items():
            seen.setdefault(str(package), {}).setdefault(str(version), []).append(where)
    return [
        {"package": package, "versions": [{"version": v, "where": w} for v, w in by.items()], "mixed": len(by) > 1}
        for package, by in sorted(seen.items(), key=lambda item: item[0].lower())
    ]


def machine(run: Run) -> list[tuple[str, str]]:
    """What the run recorded about itself and its machine: all of pipeline.yaml and timing.json beside the stages."""
    elsewhere = ("stages", "versions", "all", "name", "architecture", "assume")
    about = {k: v for k, v in run.pipeline.items() if k not in elsewhere}
    commits = sorted({str(c) for s in run.stages.values() if (c := (s.manifest or {}).get("commit"))})
    if commits and commits != [about.get("commit")]:
        about["commit of the code"] = commits
    timing = {
        k: v
        for k, v in run.timing.items()
        if k not in ("stages", "pid", "started", "ended", "engine_ready", "total_seconds")
    }
    began, ready = number(run.timing.get("started")), number(run.timing.get("engine_ready"))
    if began is not None:
        timing["last start of the runner"] = date(began)
        timing["total of that start"] = duration(run.timing.get("total_seconds"))
        if ready is not None:
            timing["engine imported after"] = duration(ready - began)
    return flat(about) + flat(timing)
