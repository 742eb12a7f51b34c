"""The report of a run: `build(run_dir)` writes `report/index.html` from what the stages left behind."""

from __future__ import annotations

from pathlib import Path


def build(run_dir: str | Path) -> Path:
    """Write <run_dir>/report/index.html and return its path.

    Reads run files only (pipeline.yaml and, of every stage, config, manifest, metrics and evaluation outputs),
    starts nothing and needs no network. A run that failed or is under way gets a report too: it says what is
    not done. Raises UserInputError if `run_dir` is not the directory of a run.
    """
    from recipes.report.render import build_report

    return build_report(Path(run_dir))
