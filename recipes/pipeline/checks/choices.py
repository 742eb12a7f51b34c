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
    "model.optim.sched.name": ("CosineAnnealing",),
    "model.activation": ("squared-relu", "fast-swiglu", "fast-geglu", "fast-reglu", "gelu"),
    "model.normalization": ("layernorm", "layernorm1p", "rmsnorm"),
    "model.position_embedding_type": ("rope", "learned_absolute"),
    "model.dist_ckpt_format": ("torch_dist", "zarr"),
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
LORA = "model.peft.lora_tuning"
# NeMo's names of the layers that can have an adapter; the last three stand for several.
TARGETS = ("attention_qkv", "attention_dense", "mlp_fc1", "mlp_fc2", "attention", "mlp", "all")

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


C19 = Rule(
    "C19",
    title="Adapters are beside layers that exist, and every rank has some",
    explanation="NeMo ends every rank with exit code 1 at a target that it does not know, after the checkpoint is "
    "loaded. The rows of an adapter are dealt to the tensor-parallel ranks. A pipeline stage without an adapter has "
    "nothing to train and its optimizer cannot be built. Tied adapters do not work in NeMo 2.1.0.",
    fix="model.peft.lora_tuning: target_modules from the list in the message, adapter_dim a multiple of TP",
)


@C19
def adapters(stage):
    if stage.get("model.peft.peft_scheme") != "lora":
        return
    targets, dim, ranks = (
        stage.get(f"{LORA}.target_modules"),
        stage.number(f"{LORA}.adapter_dim"),
        stage.number("model.tensor_model_parallel_size", 1),
    )
    unknown = [name for name in targets if name not in TARGETS] if isinstance(targets, list) else [targets]
    if unknown or not targets:
        named = ", ".join(map(str, unknown)) or "empty"
        yield f"{LORA}.target_modules", f"is {named}", f"use one or more of {', '.join(TARGETS)}"
    if dim is None or dim < 1:
        yield f"{LORA}.adapter_dim", f"is {stage.get(f'{LORA}.adapter_dim')}", "give 1 or more"
    elif dim % max(1, ranks):
        yield f"{LORA}.adapter_dim", f"{dim} does not divide by TP {ranks}", f"use a multiple of {ranks}"
    if stage.get(f"{LORA}.weight_tying"):
        yield f"{LORA}.weight_tying", "is on; NeMo 2.1.0 cannot build tied adapters", "set it to false"


@C19
def adapters_in_every_pipeline_stage(stage):
    chosen, parts = stage.get(f"{LORA}.layer_selection"), stage.number("model.pipeline_model_parallel_size", 1)
    layers = next((model.get("num_layers") for _, model, _ in stage.architectures()), None)
    if stage.get("model.peft.peft_scheme") != "lora" or chosen is None or not isinstance(layers, int):
        return
    here = [number for number in chosen if isinstance(number, int) and 1 <= number <= layers]
    if len(here) < len(chosen):
        yield f"{LORA}.layer_selection", f"is {chosen}, the model has layers 1 to {layers}", "name its layers"
    elif parts and layers % parts == 0:
        size = layers // parts
        without = [n for n in range(parts) if not any(n * size < number <= (n + 1) * size for number in here)]
        if without:
            first = without[0] * size + 1
            message = f"has none of layers {first} to {first + size - 1}, which are a pipeline stage of their own"
            yield f"{LORA}.layer_selection", message, "add one of them, or lower PP"
