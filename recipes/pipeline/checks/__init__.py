"""Preflight: what can be found wrong with a composed pipeline before anything runs, in seconds and without torch.

One module per family of rules. A rule is declared once (id, title, explanation, fix) and has one or more small
functions. A rule whose keys a kind of stage does not have does not apply to that kind.
"""

from __future__ import annotations

from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline.checks import (  # noqa: F401 (a module registers its rules when it is imported)
    choices,
    datasets,
    hugging_face,
    inherited,
    launch,
    lengths,
    losses,
    memory,
    nemo2,
    parallel,
    paths,
    precision,
    quiet,
    resume,
    rounds,
    rows,
    schedule,
    serving,
    synthetic,
    template,
    versions,
    weights,
)
from recipes.pipeline.checks.data import check_data
from recipes.pipeline.checks.inherited import inherited_rows
from recipes.pipeline.checks.paths import check_run_dir
from recipes.pipeline.checks.registry import RULES, Rule
from recipes.pipeline.checks.resume import plan as resume_plan
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.config import Pipeline
from recipes.pipeline.merge import did_you_mean

__all__ = [
    "RULES",
    "Rule",
    "check_data",
    "check_pipeline",
    "check_run_dir",
    "describe",
    "failures",
    "inherited_rows",
    "resume_plan",
]


SCHEMA = """\
schema  every key is one that the kind of stage has, and its value has the type of the base's

The files of configs/stage are the schema: a key that is not there would be read by nobody, and NeMo-Aligner says
nothing about one. What a pipeline, its layers and the command line set is compared with them before anything else is
looked at, so that these problems have no id: they stand with the file and line that set the key.

fix: the key that the message names; align show PIPELINE STAGE lists all of a stage"""


def check_pipeline(pipeline: Pipeline, names: list[str] | None = None, run_dir: Path | None = None) -> list[Problem]:
    """Every finding of every rule, warnings included, about the named stages (None: all), in the order of the graph.

    run_dir: of the run that they would belong to; None: nothing is said about work that is there already
    """
    chosen = [stage for name, stage in pipeline.stages.items() if names is None or name in names]
    subjects = [Subject(pipeline, stage, run_dir) for stage in chosen]
    found: dict[tuple[str, str, str], list[str]] = {}  # the same finding in several stages is told once
    for subject in subjects:
        for rule in RULES.values():
            for problem in rule.problems(subject):
                found.setdefault((problem.rule, problem.message, problem.fix), []).append(problem.where)
    return [
        Problem(rule, _places(list(dict.fromkeys(where))), message, fix)
        for (rule, message, fix), where in found.items()
    ]


def _places(where: list[str], most: int = 3) -> str:
    return ", ".join(where[:most]) + (f" and {len(where) - most} more" if len(where) > most else "")


def failures(problems: list[Problem]) -> list[Problem]:
    """The problems that must stop a run; the others are warnings."""
    return [p for p in problems if p.rule not in RULES or RULES[p.rule].severity == "fail"]


def describe(rule_id: str) -> str:
    """What a rule is about, one of these (C2) or of the data rules (D3). UserInputError names the closest id."""
    from data_prep.rules import RULES as DATA

    wanted = rule_id.upper()
    if wanted == "SCHEMA":
        return SCHEMA
    if wanted in RULES:
        rule, why = RULES[wanted], RULES[wanted].explanation
        return f"{rule.id}  {rule.title}  ({rule.severity})\n\n{why}\n\nfix: {rule.fix}"
    if wanted in DATA:
        rule = DATA[wanted]
        return f"{rule.id}  {rule.title}\n\n{rule.why}\n\nfix: {rule.fix}"
    close = did_you_mean(wanted, [*RULES, *DATA])
    fix = f"did you mean {close[0]}?" if close else f"the rules are: {', '.join([*RULES, *DATA])}"
    raise UserInputError(Problem("", rule_id, "there is no such rule", fix))
