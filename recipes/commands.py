"""What each `align` command does: `function(args) -> exit code`. Imports inside the functions keep `--help` quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recipes.errors import EXIT_DONE, EXIT_FAILED, EXIT_INPUT, Problem, UserInputError
from recipes.printing import cell, first_sentence, print_problems, print_rows

# -- about pipelines ---------------------------------------------------------------------------------


def ls(args) -> int:
    from recipes.pipeline import document, rounds
    from recipes.pipeline.config import CONFIGS
    from recipes.pipeline.layers import Layer

    rows = []
    for path in sorted((CONFIGS / "pipeline").glob("*.yaml")):
        summary = first_sentence(path, 200 if args.json else 90)
        stages = rounds.expand(document.load(CONFIGS, path.stem), Layer("", {})).section("stages").data
        rows.append({"pipeline": path.stem, "stages": len(stages), "summary": summary})
    print_rows(rows, ("pipeline", "stages", "summary"), args.json)
    return EXIT_DONE


def show(args) -> int:
    pipeline = _compose(args)
    if args.stage is None:
        rows = [
            {
                "stage": s.name,
                "kind": s.kind,
                "parents": s.parents,
                "inputs": s.cfg["inputs"],
                "devices": s.cfg["resources"]["devices"],
            }
            for s in pipeline.stages.values()
        ]
        print_rows(rows, ("stage", "kind", "devices", "parents"), args.json)
        return EXIT_DONE
    cfg = _stage(pipeline, args.stage).cfg
    if args.json:
        print(json.dumps(cfg, indent=1, ensure_ascii=False))
    else:
        from recipes.pipeline.artifacts import config_text

        print(config_text(cfg), end="")
    return EXIT_DONE


def explain(args) -> int:
    from recipes.pipeline.readers import readers

    pipeline = _compose(args)
    name, _, key = args.key.removeprefix("stages.").partition(".")
    stage = _stage(pipeline, name)
    entries = [{**entry, "read_by": readers(stage.kind, entry["key"])} for entry in stage.explain(key)]
    if args.json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return EXIT_DONE
    for entry in entries:
        print(f"{name}.{entry['key']} = {cell(entry['value'])}")
        *older, last = entry["history"]
        print(f"    {last['where']}  {cell(last['value'])}")
        for step in reversed(older):
            print(f"    {step['where']}  {cell(step['value'])}  (overridden)")
        print(f"    read by: {', '.join(entry['read_by']) or 'nothing that is known'}")
    return EXIT_DONE


def check(args) -> int:
    from recipes.pipeline.checks import RULES, check_data, check_pipeline, describe, failures, resume_plan

    if args.explain:
        print(describe(args.explain))
        return EXIT_DONE
    if args.pipeline is None:
        raise UserInputError(
            Problem("", "align check", "no pipeline given", "align check PIPELINE, or align check --explain RULE")
        )
    try:
        pipeline = _compose(args)
    except UserInputError as error:
        if not args.json:
            raise
        print_problems(error.problems, True)
        return EXIT_INPUT
    if args.inherited:
        return _inherited(pipeline, args.json)
    run_dir = _find_run(args.run, args.runs_dir) if args.run else None
    problems = check_pipeline(pipeline, run_dir=run_dir)
    problems += check_data(pipeline) + _other_inputs(args, list(pipeline.stages))
    print_problems(problems, args.json)
    wrong = failures(problems)
    if run_dir and not args.json:
        print_rows(resume_plan(pipeline, run_dir), ("stage", "action", "why"), False)
    if not args.json:
        print(
            f"{len(pipeline.stages)} stages, {len(RULES)} rules: "
            f"{len(wrong)} problems, {len(problems) - len(wrong)} warnings"
        )
    return EXIT_INPUT if wrong else EXIT_DONE


def _inherited(pipeline, as_json: bool) -> int:
    """Every key of the checkpoints from outside, the stage's own value, and which of the two holds."""
    from recipes.pipeline.checks import inherited_rows

    rows = inherited_rows(pipeline)
    print_rows(rows, ("stage", "input", "key", "checkpoint", "here", "holds"), as_json)
    if not rows:
        print("no stage starts from a checkpoint outside the pipeline that can be read", file=sys.stderr)
    return EXIT_DONE


def new(args) -> int:
    from recipes import fork

    for path in fork.create(args.name, args.recipe, args.checkpoint, Path(args.name)):
        print(path)
    return EXIT_DONE


# -- about runs --------------------------------------------------------------------------------------


def run(args) -> int:
    from recipes.pipeline import graph

    pipeline = _compose(args)
    selection = graph.select(pipeline.parents, start=args.start, until=args.until, only=args.only)
    run_dir = args.runs_dir / (args.run or pipeline.name)
    _refuse_other_inputs(args, run_dir, selection)
    return _run(pipeline, run_dir, selection, args.jobs, args.fresh)


def submit(args) -> int:
    from recipes.pipeline import graph

    pipeline = _compose(args)
    if pipeline.cluster is None:
        fix = "add --cluster NAME; `ls configs/cluster` shows the profiles"
        raise UserInputError(Problem("", "align submit", "no cluster profile given", fix))
    selection = graph.select(pipeline.parents, start=args.start, until=args.until, only=args.only)
    run_dir = args.runs_dir / (args.run or pipeline.name)
    _refuse_other_inputs(args, run_dir, selection)
    return _submit(pipeline, run_dir, selection, args.dry_run, args.json)


def cancel(args) -> int:
    from recipes.slurm.cancel import cancel as cancel_jobs
    from recipes.slurm.queue import Slurm, needs_slurm

    run_dir = _run_dir(args)
    _known_stages(run_dir, args.stages)
    if not Slurm.is_here():
        raise needs_slurm()
    if not cancel_jobs(run_dir, args.stages, echo=lambda text: print(text, flush=True)):
        print("some jobs are still in the queue; the same command tries again", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


def resume(args) -> int:
    from recipes.pipeline.config import from_run
    from recipes.slurm.state import is_submitted, load_profile

    run_dir = _run_dir(args)
    pipeline = from_run(run_dir)
    if is_submitted(run_dir) and not args.here:
        pipeline.cluster = load_profile(run_dir)
        return _submit(pipeline, run_dir, list(pipeline.stages), False, False)
    return _run(pipeline, run_dir, list(pipeline.stages), args.jobs, False)


def _submit(pipeline, run_dir: Path, selection: list[str], dry_run: bool, as_json: bool) -> int:
    """Check, submit (or only write the scripts), and show what is asked of the cluster."""
    from recipes.slurm import plan
    from recipes.slurm import submit as slurm

    _refuse_what_fails(pipeline, run_dir, selection)
    say = sys.stderr if as_json else sys.stdout
    steps = slurm.submit(
        pipeline, run_dir, selection=selection, dry_run=dry_run, echo=lambda text: print(text, file=say, flush=True)
    )
    if dry_run or as_json:
        rows = plan.rows([step for step in steps if step.action != slurm.DONE], pipeline.cluster)
        print_rows(rows, plan.COLUMNS, as_json)
        if not as_json:
            print(f"\n{plan.summary(rows)}\nscripts: {run_dir}/slurm/<stage>.sbatch; nothing was submitted")
    return EXIT_DONE


def _run(pipeline, run_dir: Path, selection: list[str], jobs: int, fresh: bool) -> int:
    from recipes.pipeline import runner

    _refuse_what_fails(pipeline, run_dir, selection)
    return runner.run(
        pipeline, run_dir, selection=selection, jobs=jobs, fresh=fresh, echo=lambda text: print(text, flush=True)
    )


def _refuse_what_fails(pipeline, run_dir: Path, selection: list[str]) -> None:
    """Preflight: raise what must stop a run, print the rest as warnings."""
    from recipes.pipeline.checks import check_pipeline, check_run_dir, failures
    from recipes.pipeline.checks.memory import K2, check_disk

    stages = [p for p in check_pipeline(pipeline, selection, run_dir) if p.rule != K2.id]  # said once, of the whole run
    problems = check_run_dir(run_dir) + check_disk(pipeline, run_dir, selection) + stages
    if failures(problems):
        raise UserInputError(failures(problems))
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def status(args) -> int:
    from recipes.pipeline.status import status as read_status
    from recipes.slurm.state import add_jobs, is_submitted

    run_dir = _run_dir(args)
    rows, note = read_status(run_dir), ""
    columns = ("stage", "kind", "state", "step", "total", "loss", "wall_seconds", "where")
    if is_submitted(run_dir):
        rows, note = add_jobs(run_dir, rows)
        columns = ("stage", "kind", "state", "job", "nodes", "starts", "step", "total", "loss", "why")
    print_rows(rows, columns, args.json)
    if note:
        print(note, file=sys.stderr)
    return EXIT_DONE


def logs(args) -> int:
    from recipes.pipeline.status import follow_logs
    from recipes.slurm.logs import follow_jobs
    from recipes.slurm.state import is_submitted

    run_dir = _run_dir(args)
    follow = follow_jobs if is_submitted(run_dir) else follow_logs
    for line in follow(run_dir, args.stage, args.follow):
        print(line, flush=args.follow)
    return EXIT_DONE


def report(args) -> int:
    import recipes.report

    print(recipes.report.build(_run_dir(args)))
    return EXIT_DONE


def verify(args) -> int:
    from recipes.pipeline import verify as runs
    from recipes.pipeline.hashing import reading, size_text

    run_dir, problems = _run_dir(args), []
    with reading(runs.recorded_bytes(run_dir)) as reader:
        for problem in runs.problems(run_dir, reader):
            problems.append(problem)
            if not args.json:  # at once: terabytes may come after it
                print(problem, flush=True)
    if args.json:
        print_problems(problems, True)
    found = f"{len(problems)} problems" if problems else "every file is as it was recorded"
    about = f"{runs.count_text(run_dir)}, {reader.files} files, {size_text(reader.bytes)} read"
    print(f"{found} ({about})", file=sys.stderr if args.json else sys.stdout)
    return EXIT_FAILED if problems else EXIT_DONE


def diff(args) -> int:
    from recipes.pipeline import diff as runs
    from recipes.pipeline import diff_text

    a, b = (_find_run(name, args.runs_dir) for name in (args.a, args.b))
    rows = runs.diff(a, b)
    print(diff_text.as_json(rows) if args.json else diff_text.text(rows, a, b))
    return EXIT_DONE if runs.first(rows) is None else EXIT_FAILED


# -- helpers -----------------------------------------------------------------------------------------


def _compose(args):
    """The pipeline that PIPELINE names, or the one that the run of this path froze."""
    from recipes.pipeline import rerun
    from recipes.pipeline.config import compose

    old, cluster = rerun.run_of(args.pipeline), getattr(args, "cluster", None)
    if old is not None:
        return rerun.compose(old, args.overrides, cluster)
    return compose(args.pipeline, args.overrides, cluster=cluster)


def _other_inputs(args, names: list[str]) -> list[Problem]:
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


def _refuse_other_inputs(args, run_dir: Path, names: list[str]) -> None:
    from recipes.pipeline import rerun

    old = rerun.run_of(args.pipeline)
    if old is not None:
        rerun.refuse_itself(old, run_dir)
    if problems := _other_inputs(args, names):
        raise UserInputError(problems)


def _stage(pipeline, name: str):
    from recipes.pipeline.graph import unknown_stage

    if name not in pipeline.stages:
        raise UserInputError(unknown_stage(name, pipeline.stages, f"pipeline {pipeline.name}"))
    return pipeline.stages[name]


def _known_stages(run_dir: Path, names: list[str]) -> None:
    from recipes.pipeline.config import from_run
    from recipes.pipeline.graph import unknown_stage

    known = [*from_run(run_dir).stages, "report"]
    if wrong := [name for name in names if name not in known]:
        raise UserInputError([unknown_stage(name, known, f"run {run_dir.name}") for name in wrong])


def _run_dir(args) -> Path:
    return _find_run(args.run, args.runs_dir)


def _find_run(name: str, runs_dir: Path) -> Path:
    """The directory of an existing run, by name or path."""
    from recipes.pipeline.merge import did_you_mean

    for path in (runs_dir / name, Path(name)):
        if (path / "pipeline.yaml").is_file():
            return path
    known = sorted(path.parent.name for path in runs_dir.glob("*/pipeline.yaml"))
    close = did_you_mean(name, known)
    fix = f"did you mean `{close[0]}`?" if close else f"{runs_dir} has: {', '.join(known) or 'no runs'}"
    raise UserInputError(Problem("", name, "there is no such run", fix))
