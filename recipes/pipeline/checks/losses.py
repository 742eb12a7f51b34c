"""Which loss a stage trains, and what that loss needs."""

from __future__ import annotations

from recipes.pipeline.checks.registry import Rule

PREFERENCE = ("dpo", "ipo", "rpo_sq", "rpo_fwd_kl", "rpo_bwd_kl")
BRADLEY_TERRY = ("regular_bt", "margin_bt", "scaled_bt")
SLOTS, MASKED = 9, -100.0  # of the labels that data_prep writes: their number, and the mark of an unknown one

C7 = Rule(
    "C7",
    title="Reward model: no sequence or context parallelism, no adapters, the loss named where it is read",
    explanation="The head of NeMo-Aligner's reward model cannot take a sequence-parallel input, and a base "
    "checkpoint often carries sequence_parallel: true. model.regression.loss_func is never read; "
    "without model.loss_func a Bradley-Terry run trains squared error. The Bradley-Terry losses take "
    "the two rows of a micro-batch for a pair; the rows are shuffled here, so that they would compare "
    "strangers. Labels have nine slots, -100 for an unknown value.",
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
    title="The preference loss exists and has a gradient",
    explanation="An unknown name is refused by the model only in its first step. A penalty of 0 gives a constant loss, "
    "or a division by zero (IPO); a reward scale below 0 asks for the rejected response.",
    fix=f"model.dpo.preference_loss is one of {', '.join(PREFERENCE)}; penalty and scale are above 0",
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
    loss, mask = stage.get("model.loss_func"), stage.get("model.loss_mask_val")
    if loss in BRADLEY_TERRY:
        message = f"{loss} takes the two rows of a micro-batch for a pair, but rows are shuffled here"
        yield "model.loss_func", message, "use regression"
    elif loss != "regression":
        yield "model.loss_func", f"is {loss!r}", "use regression"
    if mask != MASKED:
        yield "model.loss_mask_val", f"is {mask!r}: unknown values, {MASKED}, would be trained", f"set it to {MASKED}"
    if stage.number("model.regression.num_attributes") != SLOTS:
        message = f"is {stage.get('model.regression.num_attributes')!r}, but labels have {SLOTS} values"
        yield "model.regression.num_attributes", message, f"set it to {SLOTS}"


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


@C11
def preference_numbers(stage):
    """Values with which the loss exists, is a number and says nothing: no gradient, or the opposite one."""
    if stage.kind != "preference":
        return
    loss = str(stage.get("model.dpo.preference_loss"))
    least = {"ref_policy_kl_penalty": "the loss has no gradient"}
    if loss.startswith("rpo"):
        least["gt_reward_scale"] = "the size of the reward gap is lost, or turned round"
    for name, effect in least.items():
        value = stage.get(f"model.dpo.{name}")
        if isinstance(value, (int, float)) and value <= 0:
            yield f"model.dpo.{name}", f"is {value} with {loss}: {effect}", "give a number above 0"
    weights = [stage.get(f"model.dpo.{name}") for name in ("preference_loss_weight", "sft_loss_weight")]
    if all(isinstance(weight, (int, float)) for weight in weights) and (min(weights) < 0 or sum(weights) == 0):
        where = "model.dpo.preference_loss_weight"
        yield where, f"is {weights[0]}, sft_loss_weight is {weights[1]}", "give weights of 0 or more, one above 0"


@C16
def rewards_required(stage):
    loss = str(stage.get("model.dpo.preference_loss", ""))
    if loss.startswith("rpo") and stage.get("data.rewards") != "require":
        yield "data.rewards", f"is {stage.get('data.rewards')!r} with {loss}", "set it to require"
