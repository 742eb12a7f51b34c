"""Prompt files from outside the pipeline, read as the stages that answer them read them."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.lengths import length_of
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.checks.tokenizers import Tokenizers

READS = ("generate", "respond", "evaluate", "user_turns")


def check_prompts(stages: list[Subject], tokenizers: Tokenizers, unfit: set[tuple[Path, str]]) -> list[Problem]:
    """What the stages would refuse in `inputs.prompts` and `inputs.disjoint_from`; equal work is done once.

    unfit: (tokenizer, template) that do not fit together: no lengths are counted with them
    """
    found: dict[tuple, list[Problem]] = {}
    for stage in stages:
        prompts, others = _outside(stage, "prompts"), _outside(stage, "disjoint_from")
        if stage.kind not in READS or not (prompts or others):
            continue
        tokenizer, room = tokenizers.of(stage), _room(stage)
        if (tokenizer, stage.get("template")) in unfit or room is None or room < 1:  # rule C12 says the rest
            tokenizer = None
        key = (*prompts, "|", *others, stage.get("template"), tokenizer, room)
        if key not in found:
            found[key] = _check(stage, prompts, others, tokenizer, room)
    return [problem for problems in found.values() for problem in problems]


def _outside(stage: Subject, name: str) -> list[Path]:
    refs = references.items(stage.get(f"inputs.{name}"))
    return [Path(ref) for ref in refs if references.thaw(ref) is None and Path(ref).exists()]  # else I2


def _room(stage: Subject) -> int | None:
    """Tokens that a prompt may have beside the answer."""
    length = next((length_of(source) for name, source in stage.models() if name == "policy"), None)
    new = stage.number("max_new_tokens")
    return None if length is None or new is None else length - new


def _check(stage: Subject, prompts: list[Path], others: list[Path], tokenizer: Path | None, room) -> list[Problem]:
    from data_prep.first_turns import refuse_shared
    from data_prep.prompts import prompt_rows
    from data_prep.template import Template
    from data_prep.tokens import Tokenizer
    from recipes.stages.batched import may_be_longer, refuse_long

    try:
        template = Template.load(stage.get("template"))
    except UserInputError:
        return []  # rule C13 says so
    source, opened = (prompts or [""])[0], Tokenizer(tokenizer) if tokenizer else None
    long: list[tuple[str, str]] = []

    def rows():
        """Each prompt once; those that may be too long are kept for a closer look."""
        for row in prompt_rows(source, template) if prompts else ():
            text = template.prompt(row["messages"]) if opened else ""
            if opened and may_be_longer(text, opened, room):
                long.append((row["id"], text))
            yield row

    try:
        refuse_shared(rows(), source, others, template)
        if opened:
            refuse_long(long, opened, room, stage.number("max_new_tokens"), source)
    except UserInputError as error:
        return error.problems
    return []
