"""The jobs of a submitted run: every start of every stage, where it ran and how it ended."""

from __future__ import annotations

from datetime import datetime, timezone

from recipes.report.load import Run
from recipes.slurm.run_files import RunFiles


def starts(run: Run) -> list[dict]:
    """One line a start: {"stage", "job", "start", "nodes", "began", "seconds", "result", "why"}; [] without jobs."""
    files = RunFiles(run.path)
    return [row for name in run.stages for row in _starts(name, files.events(name))]


def _starts(stage: str, events: list[dict]) -> list[dict]:
    rows: dict[str, dict] = {}
    for event in events:
        attempt = event.get("attempt")
        if event["event"] == "began":
            rows[attempt] = {
                "stage": stage,
                "job": event["job"],
                "start": attempt.partition(".")[2],
                "nodes": event.get("nodes") or "",
                "began": datetime.fromtimestamp(event["time"], timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
                "seconds": None,
                "result": "no word",
                "why": "",
                "time": event["time"],
            }
        elif event["event"] == "ended" and attempt in rows:
            row = rows[attempt]
            row.update(seconds=event["time"] - row["time"], result=event["result"], why=event["why"])
    return list(rows.values())
