"""Sequence lengths along the chain."""

from __future__ import annotations

from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import Subject

LENGTH = "model.encoder_seq_length"

C12 = Rule(
    "C12",
    title="One sequence length in a stage, not above that of the model it starts from",
    explanation="Model and data length that differ hang or fail with pipeline parallelism. A stage that is longer "
    "than its parent trains positions that the model has never seen. Generation needs room for the "
    "prompt beside max_new_tokens.",
    fix="model.encoder_seq_length at most the parent's; data lengths equal to it",
)


def length_of(source) -> int | None:
    """The sequence length of a stage (its own, or that of the model it loads) or of a checkpoint."""
    if not isinstance(source, Subject):
        value = source.config.get("encoder_seq_length")
        return value if isinstance(value, int) else None
    own = source.number(LENGTH)
    return own or next((length_of(model) for _, model in source.models()), None)


@C12
def data_agrees(stage):
    length = stage.number(LENGTH)
    for key, value in stage.keys_named("seq_length", "max_seq_length"):
        if length and isinstance(value, int) and value != length:
            yield key, f"{value} differs from {LENGTH} {length}", f"set it to {length}"


@C12
def not_above_parent(stage):
    length = stage.number(LENGTH)
    for name, source in stage.models():
        limit = length_of(source)
        if length and limit and length > limit:
            yield LENGTH, f"{length} is above the {limit} of the model in inputs.{name}", f"use {limit} or less"


@C12
def room_for_the_prompt(stage):
    new = stage.number("max_new_tokens")
    limit = next((length_of(source) for name, source in stage.models() if name == "policy"), None)
    if new is not None and (new < 1 or (limit and new >= limit)):
        yield "max_new_tokens", f"is {new}, the policy's sequence length is {limit}", "leave room for the prompt"
