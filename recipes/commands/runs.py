"""The commands about runs: run, submit, cancel, resume, status, logs, report, verify, diff."""

from __future__ import annotations

import sys
from pathlib import Path

from recipes.commands.finding import compose, find_run, known_stages, refuse_other_inputs, run_dir_of
from recipes.errors import EXIT_DONE, EXIT_FAILED, Problem, UserInputError
from recipes.printing import print_problems, print_rows


def run(args) -> int:
    from recipes.pipeline import graph

    pipeline = compose(args)
    selection = graph.select(pipeline.parents, start=args.start, until=args.until, only=args.only)
    run_dir = args.runs_dir / (args.run or pipeline.name)
    refuse_other_inputs(args, run_dir, selection)
    return _run(pipeline, run_dir, selection, args.jobs, args.fresh)


def submit(args) -> int:
    from recipes.pipeline import graph

    pipeline = compose(args)
    if pipeline.cluster is None:
        fix = "add --cluster NAME; `ls configs/cluster` shows the profiles"
        raise UserInputError(Problem("", "align submit", "no cluster profile given", fix))
    selection = graph.select(pipeline.parents, start=args.start, until=args.until, only=args.only)
    run_dir = args.runs_dir / (args.run or pipeline.name)
    refuse_other_inputs(args, run_dir, selection)
    return _submit(pipeline, run_dir, selection, args.dry_run, args.json)


def cancel(args) -> int:
    from recipes.slurm.cancel import cancel as cancel_jobs
    from recipes.slurm.queue import Slurm, needs_slurm

    run_dir = run_dir_of(args)
    known_stages(run_dir, args.stages)
    if not Slurm.is_here():
        raise needs_slurm()
    if not cancel_jobs(run_dir, args.stages, echo=lambda text: print(text, flush=True)):
        print("some jobs are still in the queue; the same command tries again", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


def resume(args) -> int:
    from recipes.pipeline.config import from_run
    from recipes.slurm.state import is_submitted, load_profile

    run_dir = run_dir_of(args)
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

    run_dir = run_dir_of(args)
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

    run_dir = run_dir_of(args)
    follow = follow_jobs if is_submitted(run_dir) else follow_logs
    printed = 0
    for line in follow(run_dir, args.stage, args.follow):
        print(line, flush=args.follow)
        printed += 1
    if not printed:
        print(f"no log yet; `align status {args.run}` says what is at work", file=sys.stderr)
    return EXIT_DONE


def report(args) -> int:
    import recipes.report

    print(recipes.report.build(run_dir_of(args)))
    return EXIT_DONE


def verify(args) -> int:
    from recipes.pipeline import verify as runs
    from recipes.pipeline.hashing import reading, size_text

    run_dir, problems = run_dir_of(args), []
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

    a, b = (find_run(name, args.runs_dir) for name in (args.a, args.b))
    rows = runs.diff(a, b)
    print(diff_text.as_json(rows) if args.json else diff_text.text(rows, a, b))
    return EXIT_DONE if runs.first(rows) is None else EXIT_FAILED
