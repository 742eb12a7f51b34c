"""What `align plan` does: `function(args) -> exit code`."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.commands.finding import compose
from recipes.errors import EXIT_DONE, EXIT_INPUT, Problem, UserInputError


def plan(args) -> int:
    from recipes.planner import layouts, table
    from recipes.planner.plan import plan as make_plan
    from recipes.planner.plan import unknown
    from recipes.planner.work import Assumptions

    pipeline = compose(args, open_inputs=True)
    unknown(pipeline, args.stages)
    assumed = Assumptions(args.efficiency, args.disk_rate * 1e9)
    made = make_plan(pipeline, assumed, args.gpu, args.stages or None)
    if not made.stages:
        whys = [Problem("", name, why, "then plan again") for name, why in made.unplanned.items()]
        raise UserInputError(
            whys or Problem("", pipeline.name, "no stage needs the engine", "nothing is to be planned")
        )
    found = None
    if args.gpus:
        found = layouts.suggest(made.stages, *_asked(args))
    if args.write:
        _write(args, found, pipeline.name)
    if args.json:
        print(json.dumps(table.to_dict(made, found), indent=1, ensure_ascii=False))
    else:
        print("\n".join(table.lines(made)))
        if found:
            print("\n".join(table.suggested(found, args.gpus)))
    return _end(args, made.problems, found)


def _asked(args):
    """(number of GPUs, their kind) of --gpus and --gpu."""
    from recipes.planner.gpus import PER_NODE, find

    if args.gpu is None:
        raise UserInputError(Problem("", "--gpus", "which kind of GPU?", "add --gpu H100, for example"))
    if args.gpus > PER_NODE and args.gpus % PER_NODE:
        near = args.gpus // PER_NODE * PER_NODE
        fix = f"give {near} or {near + PER_NODE}"
        raise UserInputError(Problem("", "--gpus", f"{args.gpus} are not whole nodes of {PER_NODE}", fix))
    return args.gpus, find(args.gpu)


def _write(args, found, name: str) -> None:
    """The layout file. UserInputError where there is nothing to write or the file is there already."""
    from recipes.pipeline.files import atomic_write_text
    from recipes.planner.layouts import overlay

    path = Path(args.write)
    if found is None:
        raise UserInputError(Problem("", "--write", "there is no layout to write", "add --gpus N --gpu NAME"))
    if missing := [each.kind for each in found if not each.stages]:
        message = f"nothing fits on {args.gpus} {args.gpu} for: {', '.join(missing)}"
        raise UserInputError(Problem("C9", "--gpus", message, "more GPUs, or ones with more memory; or --stage"))
    if path.exists():
        raise UserInputError(Problem("", str(path), "exists already", "remove it, or give another name"))
    atomic_write_text(path, overlay(name, found, *_asked(args), args.efficiency, path))


def _end(args, problems: list[Problem], found) -> int:
    """Exit code: what was asked for is a layout, so with --gpus only that must fit."""
    from recipes.printing import print_problems

    if found is not None:
        return EXIT_DONE if all(each.stages for each in found) else EXIT_INPUT
    if problems and not args.json:
        print()
        print_problems(problems, False)
    return EXIT_INPUT if problems else EXIT_DONE
