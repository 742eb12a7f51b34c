"""Put the parts together and write report/index.html."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from recipes.pipeline.artifacts import atomic_write_text
from recipes.report import curves, datasets, evaluations, jobs, judges, lineage, memory, published, samples, timing
from recipes.report.load import DONE, Run, load_run
from recipes.report.numbers import duration, fmt, percent

HERE = Path(__file__).parent
OUTPUT = Path("report") / "index.html"


def build_report(run_dir: Path) -> Path:
    """See `recipes.report.build`."""
    run = load_run(run_dir)
    path = run.path / OUTPUT
    atomic_write_text(path, html(run))
    return path


def html(run: Run) -> str:
    """The page. Everything from data is escaped by the template; SVG and marked texts are made of escaped parts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        fmt=fmt, percent=percent, duration=duration, short=lambda sha, n=10: str(sha)[:n] if sha else "–"
    )
    environment.globals["anchor"] = lineage.anchor
    css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(css=css, **context(run))


def context(run: Run) -> dict:
    """All values of the template."""
    found = evaluations.load_evaluations(run)
    groups = evaluations.groups(found)
    main = groups[0] if groups else []
    data = datasets.datasets(run)
    values = {
        "run": run,
        "headline": headline(run, found),
        "tables": [evaluations.table(run, group) for group in groups],
        "not_evaluated": evaluations.not_evaluated(run, found),
        "published": published.table(),
        "by_policy": curves.stage_steps(run, main),
        "stage_figures": curves.stage_figures(run),
        "samples": samples.side_by_side(run, main),
        "transitions": samples.transitions(run, main),
        "graph": lineage.graph(run),
        "broken_lineage": list(lineage.changed_parents(run).values()),
        "details": lineage.details(run),
        "data": data,
        "human": datasets.total_human(data),
        "data_notes": datasets.notes(run),
        "cards": datasets.cards(run),
        "judgements": judges.judgements(run),
        "audits": judges.audits(run),
        "starts": jobs.starts(run),
        "gantt": timing.gantt(run),
        "time_rows": timing.stage_rows(run),
        "memory": memory.figure(run),
        "versions": timing.versions(run),
        "machine": timing.machine(run),
    }
    return {**values, "notes": run.all_notes()}  # last: reading the parts above adds notes


def headline(run: Run, found: list[evaluations.Evaluation]) -> dict:
    """Run, date, wall time, stages done, and the verdict."""
    times, stages = timing.wall(run), list(run.stages.values())
    open_stages = [s for s in stages if s.status != DONE]
    return {
        "name": run.name,
        "folder": run.path.name,
        "date": timing.date(times["start"]),
        "written": timing.date(datetime.now(timezone.utc).timestamp()),
        "elapsed": duration(times["elapsed"]),
        "elapsed_note": times["note"],
        "work": duration(times["work"]) if times["start"] is not None else "–",
        "first_step": duration(times["first_step"]),
        "done": len(stages) - len(open_stages),
        "total": len(stages),
        "open": {
            status: [{"name": s.name, "progress": s.progress()} for s in open_stages if s.status == status]
            for status in sorted({s.status for s in open_stages}, key=[s.status for s in open_stages].index)
        },
        "stages": [
            {"name": s.name, "kind": s.kind, "status": s.status, "family": lineage.FAMILY.get(s.kind, "make")}
            for s in stages
        ],
        "verdict": evaluations.verdict(run, found),
    }
