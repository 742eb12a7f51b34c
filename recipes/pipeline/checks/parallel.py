"""Does the parallel layout divide what it has to divide? (limits of Megatron Core 0.10 and NeMo 2.1)"""

from __future__ import annotations

import math

from recipes.pipeline.checks.registry import Rule

TP, PP, CP = "model.tensor_model_parallel_size", "model.pipeline_model_parallel_size", "model.context_parallel_size"

C2 = Rule(
    "C2",
    title="The parallel layout divides ranks, batch, layers, heads and sequence",
    explanation="Megatron splits the ranks into TP x PP x CP groups, the global batch into micro-batches, the "
    "layers over PP, and heads, query groups, hidden and feed-forward sizes over TP. What does not "
    "divide fails with an assertion, often only after the checkpoint is loaded: an hour into a job at "
    "340B.",
    fix="choose sizes that divide; the message names the two numbers",
)
CHAT_PADDING = 8

C10 = Rule(
    "C10",
    title="No virtual pipeline; switches that need each other are on together",
    explanation="NeMo-Aligner refuses virtual pipeline parallelism, but the released pre-training configs carry it "
    "and a checkpoint's value is inherited. overlap_param_sync needs overlap_grad_sync, tensor-parallel"
    " communication overlap needs sequence parallelism and Transformer Engine, fp8 needs Transformer "
    "Engine, and each recompute granularity has its own required keys.",
    fix="set model.virtual_pipeline_model_parallel_size to null and switch on what the message names",
)


@C2
def sizes_are_positive(stage):
    for key in (
        TP,
        PP,
        CP,
        "model.micro_batch_size",
        "model.global_batch_size",
        "resources.nodes",
        "resources.devices",
    ):
        value = stage.number(key)
        if value is not None and value < 1:
            yield key, f"is {value}", "give 1 or more"


@C2
def ranks_divide(stage):
    nodes, devices = stage.number("resources.nodes", 1), stage.number("resources.devices", 1)
    if (nodes * devices) % stage.model_ranks:
        yield (
            "resources.devices",
            f"{nodes} nodes x {devices} devices do not divide into models of {stage.model_ranks} ranks (TP x PP x CP)",
            f"make nodes x devices a multiple of {stage.model_ranks}, or lower TP, PP or CP",
        )


@C2
def batch_divides(stage):
    total, micro, ranks = (
        stage.number("model.global_batch_size"),
        stage.number("model.micro_batch_size"),
        stage.data_parallel,
    )
    if total and micro and ranks and total % (micro * ranks):
        step = micro * ranks
        yield (
            "model.global_batch_size",
            f"{total} does not divide by micro_batch_size x data-parallel ranks = {micro} x {ranks}",
            f"use a multiple of {step}: {max(step, total // step * step)} or {(total // step + 1) * step}",
        )


@C2
def forward_batch_divides(stage):
    key = "model.dpo.log_prob_forward_micro_batch_size"
    total, forward, ranks = stage.number("model.global_batch_size"), stage.number(key), stage.data_parallel
    if total and forward and ranks and (total // ranks) % forward:
        yield key, f"{forward} does not divide the {total // ranks} pairs of one rank", "use model.micro_batch_size"


@C2
def architecture_divides(stage):
    # override_vocab_size: the only vocabulary that NeMo does not itself pad to a multiple of TP
    over_tensor = ("num_attention_heads", "num_query_groups", "hidden_size", "ffn_hidden_size", "override_vocab_size")
    for _, model, whose in stage.architectures():
        for name, key, sizes in (("PP", PP, ("num_layers",)), ("TP", TP, over_tensor)):
            parts = max(1, stage.number(key, 1))
            wrong = [
                f"{size} {model[size]}" for size in sizes if isinstance(model.get(size), int) and model[size] % parts
            ]
            if wrong:
                yield key, f"{name} {parts} does not divide {', '.join(wrong)} of {whose}", "use a common divisor"


@C2
def heads_divide_the_model(stage):
    for origin, model, whose in stage.architectures():
        hidden, heads, groups = (model.get(k) for k in ("hidden_size", "num_attention_heads", "num_query_groups"))
        if isinstance(heads, int) and isinstance(hidden, int) and not model.get("kv_channels") and hidden % heads:
            yield (
                origin,
                f"hidden_size {hidden} does not divide by num_attention_heads {heads} ({whose})",
                "change one of the two",
            )
        if isinstance(heads, int) and isinstance(groups, int) and groups > 0 and heads % groups:
            yield (
                origin,
                f"num_attention_heads {heads} does not divide by num_query_groups {groups} ({whose})",
                "change one of the two",
            )


@C2
def sequence_divides(stage):
    length, tensor, context = stage.number("model.encoder_seq_length"), stage.number(TP, 1), stage.number(CP, 1)
    if not length:
        return
    if stage.get("model.sequence_parallel") and tensor > 1 and length % tensor:
        yield (
            "model.encoder_seq_length",
            f"{length} does not divide by TP {tensor}, as sequence parallelism needs",
            f"use a multiple of {tensor}",
        )
    if context > 1 and length % (2 * context):
        yield (
            "model.encoder_seq_length",
            f"{length} does not divide by 2 x CP = {2 * context}",
            f"use a multiple of {2 * context}",
        )


@C2
def padding_divides(stage):
    """SFT on conversations pads a batch to a multiple of 8 and to nothing else (gpt_sft_chat_dataset.py:373)."""
    tensor = stage.number(TP, 1) if stage.get("model.sequence_parallel") else 1
    context = stage.number(CP, 1)
    unit = math.lcm(tensor * context, 2 * context if context > 1 else 1)
    if stage.kind == "sft" and unit > 0 and CHAT_PADDING % unit:
        message = f"rows are padded to multiples of {CHAT_PADDING}, which do not divide by {unit} (TP x CP, 2 x CP)"
        yield CP if context > 1 else TP, message, "lower TP or CP, or switch sequence parallelism off"


@C10
def no_virtual_pipeline(stage):
    key = "model.virtual_pipeline_model_parallel_size"
    if stage.get(key) is not None:
        yield key, f"is {stage.get(key)!r}; NeMo-Aligner does not support it", "set it to null"


@C10
def overlap_flags(stage):
    optim = stage.get("model.optim", {})
    if optim.get("overlap_param_sync") and not optim.get("overlap_grad_sync"):
        yield "model.optim.overlap_param_sync", "is on without overlap_grad_sync", "switch both on or both off"
    if stage.get("model.ub_tp_comm_overlap"):
        for key in ("model.sequence_parallel", "model.transformer_engine"):
            if not stage.get(key):
                yield "model.ub_tp_comm_overlap", f"is on without {key}", f"set {key}=true or switch it off"
    if stage.get("model.fp8") and not stage.get("model.transformer_engine"):
        yield (
            "model.fp8",
            "is on without model.transformer_engine",
            "set model.transformer_engine=true or switch it off",
        )
    if stage.number(CP, 1) > 1 and stage.get("model.transformer_engine") is False:
        yield CP, "context parallelism is only in Transformer Engine's attention", "set model.transformer_engine=true"


@C10
def recompute(stage):
    prefix = "model.activations_checkpoint_"
    granularity, method, layers = (stage.get(prefix + name) for name in ("granularity", "method", "num_layers"))
    if granularity not in (None, "full", "selective"):
        yield prefix + "granularity", f"is {granularity!r}", "use full, selective or null"
    if granularity == "full" and method not in ("uniform", "block"):
        yield prefix + "method", "full recompute needs a method", "set uniform or block"
    if granularity == "full" and not layers:
        yield prefix + "num_layers", "full recompute needs a number of layers", "set 1 or more"
    if granularity == "selective" and layers is not None:
        yield prefix + "num_layers", "selective recompute takes no number of layers", "set it to null"
