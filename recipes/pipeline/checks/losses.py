"""Which loss a stage trains, and what that loss needs."""

from __future__ import annotations

from recipes.pipeline.checks.registry import Rule

PREFERENCE = ("dpo", "ipo", "rpo_sq", "rpo_fwd_kl", "rpo_bwd_kl")
REGRESSION = ("regression", "regular_bt", "margin_bt", "scaled_bt")

C7 = Rule(
    "C7",
    title="Reward model: no sequence or context parallelism, no adapters, the loss named where it is read",
    explanation="The head of NeMo-Aligner's reward model cannot take a sequence-parallel input, and a base "
    "checkpoint often carries sequence_parallel: true. model.regression.loss_func is never read; "
    "without model.loss_func a Bradley-Terry run trains squared error. The Bradley-Terry losses pair "
    "adjacent rows: micro-batches of exactly 2, and no shuffling.",
    fix="model.sequence_parallel=false model.context_parallel_size=1 model.loss_func=regression",
)

C8 = Rule(
    "C8",
    title="No packed sequences in preference training",
    explanation="NeMo-Aligner 0.7.0 shifts the labels of packed pairs twice: every position is trained on the token"
    " after the next one.",
    fix="switch packing off",
)

C11 = Rule(
    "C11",
    title="The preference loss exists",
    explanation="An unknown name is refused by the model only in its first step.",
    fix=f"model.dpo.preference_loss is one of {', '.join(PREFERENCE)}",
)

C16 = Rule(
    "C16",
    title="RPO refuses rows without rewards",
    explanation="RPO fits the policy's reward gap to the gap in the data. Where a row has no rewards NeMo-Aligner "
    "takes 1.0 and 0.0 without a word, and RPO becomes a constant target.",
    fix="data.rewards=require",
)


@C7
def reward_layout(stage):
    if stage.kind != "reward":
        return
    if stage.get("model.sequence_parallel"):
        yield "model.sequence_parallel", "is on; the reward head does not support it", "set it to false"
    if stage.number("model.context_parallel_size", 1) != 1:
        yield (
            "model.context_parallel_size",
            f"is {stage.get('model.context_parallel_size')}; the reward head does not support it",
            "set it to 1",
        )
    if stage.get("model.peft.peft_scheme", "none") not in ("none", None):
        yield "model.peft.peft_scheme", "adapters are not supported for the reward model", "set it to none"


@C7
def reward_loss(stage):
    if stage.kind != "reward":
        return
    loss = stage.get("model.loss_func")
    if loss not in REGRESSION:
        yield "model.loss_func", f"is {loss!r}", f"use one of {', '.join(REGRESSION)}"
    elif loss.endswith("bt"):
        if stage.number("model.micro_batch_size") != 2:
            yield "model.micro_batch_size", f"{loss} pairs the two rows of a micro-batch", "set it to 2"
        if stage.get("trainer.rm.train_random_sampler"):
            yield (
                "trainer.rm.train_random_sampler",
                f"{loss} needs the two rows of a pair next to each other",
                "set it to false",
            )


@C7
def reward_weights(stage):
    weights, slots = stage.get("reward_weights"), stage.number("model.regression.num_attributes", 9)
    if isinstance(weights, list) and len(weights) != slots:
        yield (
            "reward_weights",
            f"has {len(weights)} numbers for {slots} attributes",
            f"give {slots}, in the order of the label slots",
        )
    elif isinstance(weights, list) and not all(
        isinstance(w, (int, float)) and not isinstance(w, bool) for w in weights
    ):
        yield "reward_weights", f"is {weights}", "give numbers only"


@C8
def no_packing(stage):
    if stage.kind != "preference":
        return
    for key, value in stage.keys_named("packed_sequence", "packed", "data_impl"):
        if value is True or str(value).startswith("packed"):
            yield key, f"is {value!r}", "switch packing off"


@C11
def preference_loss(stage):
    loss = stage.get("model.dpo.preference_loss")
    if stage.kind == "preference" and loss not in PREFERENCE:
        yield "model.dpo.preference_loss", f"is {loss!r}", f"use one of {', '.join(PREFERENCE)}"


@C16
def rewards_required(stage):
    loss = str(stage.get("model.dpo.preference_loss", ""))
    if loss.startswith("rpo") and stage.get("data.rewards") != "require":
        yield "data.rewards", f"is {stage.get('data.rewards')!r} with {loss}", "set it to require"
