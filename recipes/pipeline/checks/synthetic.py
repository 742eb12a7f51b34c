"""The settings of stages that ask a model: where it is, and what is asked of it."""

from __future__ import annotations

from recipes.errors import UserInputError
from recipes.pipeline.checks.registry import Rule

B2 = Rule(
    "B2",
    title="The endpoint and what is asked of it fit together",
    explanation="A wrong protocol, a maker of prompts without what it works on, a share above 1: each would be found "
    "only when the stages before are done.",
    fix="see configs/stage/prompts.yaml and configs/stage/respond.yaml",
)


@B2
def endpoint_fits(stage):
    if not stage.get("endpoint") or stage.get("inputs.model") is not None or stage.get("judge") == "truth":
        return
    from data_prep.synthetic.endpoint import Endpoint

    yield from _found(Endpoint.of, stage.get("endpoint"))


@B2
def makers_fit(stage):
    if stage.kind != "prompts":
        return
    from data_prep.synthetic.prompts.checks import check

    yield from _found(check, stage.get("make"), stage.get("inputs"), stage.get("openings"))


def _found(check, *arguments):
    try:
        check(*arguments)
    except UserInputError as error:
        for problem in error.problems:
            yield problem.where, problem.message, problem.fix
