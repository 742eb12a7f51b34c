"""The commands about pipelines: ls, show, explain, check, new. Imports inside the functions keep `--help` quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recipes.commands.finding import compose, find_run, find_stage, other_inputs
from recipes.errors import EXIT_DONE, EXIT_INPUT, Problem, UserInputError
from recipes.printing import cell, counted, first_sentence, print_problems, print_rows


def ls(args) -> int:
    from recipes.pipeline import document, rounds
    from recipes.pipeline.config import CONFIGS
    from recipes.pipeline.layers import Layer

    rows = []
    for path in sorted((CONFIGS / "pipeline").glob("*.yaml")):
        summary = first_sentence(path, 200 if args.json else 90)
        stages = rounds.expand(document.load(CONFIGS, path.stem), Layer("", {}))[0].section("stages").data
        rows.append({"pipeline": path.stem, "stages": len(stages), "summary": summary})
    print_rows(rows, ("pipeline", "stages", "summary"), args.json)
    return EXIT_DONE


def show(args) -> int:
    pipeline = compose(args, open_inputs=True)
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
    cfg = find_stage(pipeline, args.stage).cfg
    if args.json:
        print(json.dumps(cfg, indent=1, ensure_ascii=False))
    else:
        from recipes.pipeline.artifacts import config_text

        print(config_text(cfg), end="")
    return EXIT_DONE


def explain(args) -> int:
    from recipes.pipeline.readers import readers

    pipeline = compose(args, open_inputs=True)
    name, _, key = args.key.removeprefix("stages.").partition(".")
    stage = find_stage(pipeline, name)
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
        pipeline = compose(args)
    except UserInputError as error:
        if not args.json:
            raise
        print_problems(error.problems, True)
        return EXIT_INPUT
    if args.inherited:
        return _inherited(pipeline, args.json)
    run_dir = find_run(args.run, args.runs_dir) if args.run else None
    problems = check_pipeline(pipeline, run_dir=run_dir)
    problems += check_data(pipeline) + other_inputs(args, list(pipeline.stages))
    wrong = failures(problems)
    warnings = [problem for problem in problems if problem not in wrong]
    print_problems(wrong + warnings, args.json)
    if run_dir and not args.json:
        print_rows(resume_plan(pipeline, run_dir), ("stage", "action", "why"), False)
    if not args.json:
        print(
            f"{counted(pipeline.stages, 'stage')}, {len(RULES)} rules: "
            f"{counted(wrong, 'problem')}, {counted(warnings, 'warning')}"
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

    folder = Path(args.name)
    if args.smoke:
        paths = fork.write_smoke(args.name, folder)
    else:
        paths = fork.create(args.name, args.recipe, args.checkpoint, folder)
    for path in paths:
        print(path)
    if args.checkpoint and (trouble := fork.template_trouble(folder / f"{args.name}.yaml")):
        print(f"warning: {trouble}", file=sys.stderr)
    print(f"next: align run {folder}/smoke.yaml, align check {folder}/{args.name}.yaml")
    return EXIT_DONE
