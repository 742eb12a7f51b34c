"""Settings that take one of a few words, and numbers with a range."""

from __future__ import annotations

from recipes.pipeline.checks.registry import Rule

WORDS = {
    "data.over_length": ("refuse", "drop"),
    "data.rewards": ("require", "optional"),
    "wandb.mode": ("offline", "online", "disabled"),
    "model.peft.peft_scheme": ("none", "lora"),
    "judge": ("truth", "pairwise", "points", "reward"),
    "compare": ("all", "first"),
    "read_tasks": ("tiny_world",),
    "pairs.scales": ("refuse", "mean_gap"),
    "pairs.rejected": ("worst", "random"),
    "pairs.by": ("truth", "pairwise", "points", "reward"),
}
# key: (lowest, highest); None is no limit
RANGES = {
    "responses_per_prompt": (1, None),
    "batch_size": (1, None),
    "temperature": (0, None),
    "top_k": (0, None),
    "top_p": (0, 1),
    "resources.threads": (1, None),
    "pairs.validation_rows": (0, None),
    "pairs.min_margin": (0, None),
    "pairs.chosen_quantile": (0, 1),
    "array_tasks": (1, None),
    "count": (1, None),
    "minimum_rows": (1, None),
    "pairs_per_prompt": (0, None),
    "pairs_per_set": (0, None),
    "samples": (1, None),
    "exp_manager.checkpoint_callback_params.save_top_k": (0, None),
    "model.dpo.ref_policy_kl_penalty": (0, None),
    "tokenizer.vocab_size": (1, None),
}
# The base leaves these open (???), so composing does not know their type.
SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups")

C18 = Rule(
    "C18",
    title="Words are ones that the stage knows, numbers are in their range",
    explanation="A stage would find a misspelt choice only when it starts, a wrong number perhaps never.",
    fix="use a value that the message names",
)


@C18
def words(stage):
    for key, allowed in WORDS.items():
        value = stage.get(key)
        for word in value if isinstance(value, list) else [value]:
            if word is not None and word not in allowed:
                yield key, f"is {word!r}", f"use one of {', '.join(allowed)}"


@C18
def ranges(stage):
    for key, (low, high) in RANGES.items():
        value = stage.get(key)
        if isinstance(value, (int, float)) and (value < low or (high is not None and value > high)):
            yield key, f"is {value}", f"give {low} or more" if high is None else f"give a number from {low} to {high}"


@C18
def sizes(stage):
    for key in (f"model.{name}" for name in SIZES):
        if stage.get(key) is not None and (stage.number(key) or 0) < 1:
            yield key, f"is {stage.get(key)!r}", "give a whole number above 0"
