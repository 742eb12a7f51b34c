"""Preference data is made from prompts that no evaluation uses."""

from __future__ import annotations

from recipes.pipeline import references
from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import Subject

P1 = Rule(
    "P1",
    title="Prompts that responses are generated for are compared with those of the evaluations",
    explanation="A policy that was trained on pairs of an evaluation's prompts has seen the test. The stage compares "
    "its prompts before it generates and refuses shared ones (D25), but only with the files it is told of.",
    fix="list the evaluations' prompt files in inputs.disjoint_from",
)
MAKES_RESPONSES = ("generate", "respond")


@P1
def disjoint_from_evaluations(stage):
    if stage.kind not in MAKES_RESPONSES or not _is_trained_on(stage):
        return
    compared = references.items(stage.get("inputs.disjoint_from"))
    tests = {s.cfg["inputs"]["prompts"]: name for name, s in stage.pipeline.stages.items() if s.kind == "evaluate"}
    for prompts, name in tests.items():
        if prompts not in compared:
            written = "/".join(references.thaw(prompts) or (prompts,))
            yield "inputs.disjoint_from", f"lacks {written}, the prompts of stage {name}", "add it to the list"


def _is_trained_on(stage: Subject) -> bool:
    """Do its outputs lead to a stage that trains?"""
    children = [s for s in stage.pipeline.stages.values() if stage.name in s.parents]
    return any(Subject(stage.pipeline, c).loop or _is_trained_on(Subject(stage.pipeline, c)) for c in children)
