"""What the words of a command mean: a pipeline, a stage, a run."""

from __future__ import annotations

import sys
from pathlib import Path

from recipes.errors import Problem, UserInputError


def compose(args, open_inputs: bool = False):
    """The pipeline that PIPELINE names, or the one that the run of this path froze.

    open_inputs: inputs that nobody has set yet stay `???`, since to look at a pipeline needs no files
    """
    from recipes.pipeline import config, rerun

    old, cluster = rerun.run_of(args.pipeline), getattr(args, "cluster", None)
    if old is not None:
        return rerun.compose(old, args.overrides, cluster)
    return config.compose(args.pipeline, args.overrides, cluster=cluster, open_inputs=open_inputs)


def other_inputs(args, names: list[str]) -> list[Problem]:
    """Where PIPELINE is a run: its inputs from outside that are not what it was made from. Says what else differs."""
    from recipes.pipeline import rerun
    from recipes.pipeline.hashing import reading

    old = rerun.run_of(args.pipeline)
    if old is None:
        return []
    for note in rerun.notes(old):
        print(f"note: {note}", file=sys.stderr)
    with reading() as reader:
        return rerun.other_inputs(old, names, reader)


def refuse_other_inputs(args, run_dir: Path, names: list[str]) -> None:
    from recipes.pipeline import rerun

    old = rerun.run_of(args.pipeline)
    if old is not None:
        rerun.refuse_itself(old, run_dir)
    if problems := other_inputs(args, names):
        raise UserInputError(problems)


def find_stage(pipeline, name: str):
    from recipes.pipeline.graph import unknown_stage

    if name not in pipeline.stages:
        raise UserInputError(unknown_stage(name, pipeline.stages, f"pipeline {pipeline.name}"))
    return pipeline.stages[name]


def known_stages(run_dir: Path, names: list[str]) -> None:
    from recipes.pipeline.config import from_run
    from recipes.pipeline.graph import unknown_stage

    known = [*from_run(run_dir).stages, "report"]
    if wrong := [name for name in names if name not in known]:
        raise UserInputError([unknown_stage(name, known, f"run {run_dir.name}") for name in wrong])


def run_dir_of(args) -> Path:
    return find_run(args.run, args.runs_dir)


def find_run(name: str, runs_dir: Path) -> Path:
    """The directory of an existing run, by name or path."""
    from recipes.pipeline.merge import did_you_mean

    for path in (runs_dir / name, Path(name)):
        if (path / "pipeline.yaml").is_file():
            return path
    known = sorted(path.parent.name for path in runs_dir.glob("*/pipeline.yaml"))
    close = did_you_mean(name, known)
    fix = f"did you mean `{close[0]}`?" if close else f"{runs_dir} has: {', '.join(known) or 'no runs'}"
    raise UserInputError(Problem("", name, "there is no such run", fix))
