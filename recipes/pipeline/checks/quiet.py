"""Warnings: nothing is wrong, but a setting has less effect than it seems to."""

from __future__ import annotations

from recipes.pipeline.checks.registry import Rule

C14 = Rule(
    "C14",
    title="Settings that do less than they seem to",
    explanation="limit_val_batches: 1 is one batch, not all (1.0). NeMo switches sequence parallelism off without a"
    " word where TP is 1.",
    fix="say what is meant",
    severity="warn",
)


@C14
def one_batch_of_validation(stage):
    key = f"{stage.loop}.limit_val_batches"
    value = stage.get(key)
    if stage.loop and isinstance(value, int) and not isinstance(value, bool) and value == 1:
        yield key, "1 is one batch", "write 1.0 for all of them"


@C14
def sequence_parallel_alone(stage):
    if stage.get("model.sequence_parallel") and stage.number("model.tensor_model_parallel_size", 1) == 1:
        yield "model.sequence_parallel", "has no effect where TP is 1", "raise TP or switch it off"


@C14
def missing_weights_pass(stage):
    key = "model.dist_ckpt_load_strictness"
    if stage.get(key) in ("log_all", "log_unexpected", "return_all", "return_unexpected", "ignore_all"):
        message = f"is {stage.get(key)}: weights that the checkpoint lacks are written to the log and left random"
        yield key, message, "only where every missing key ends in _extra_state; otherwise null"


@C14
def greedy_repeats(stage):
    if stage.get("greedy") and stage.number("responses_per_prompt", 1) > 1:
        yield "responses_per_prompt", "greedy responses to one prompt are all the same", "use 1, or greedy=false"


@C14
def validation_is_other_data(stage):
    if stage.get("inputs.train") and stage.get("inputs.train") == stage.get("inputs.validation"):
        yield "inputs.validation", "is the training file: its loss says nothing about other data", "hold rows out"
