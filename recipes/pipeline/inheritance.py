"""What a stage takes over from the model_config.yaml of its checkpoint. No torch: the checks read it too.

NeMo-Aligner merges the checkpoint's config first and ours over it (nemo_aligner/utils/utils.py:260-282, v0.7.0), so a
key that nobody sets comes from whoever trained the checkpoint. Four fates of a key: cut before the merge
(NEVER_INHERITED), set by the stage's own config, set by recipes/engine/nemo_config.py whatever the stage says (FIXED,
FIXED_INFERENCE), or inherited. Of the inherited ones some must be (ARCHITECTURE: the weights are of no use without),
some nobody reads (UNREAD), some are refused (DANGEROUS, rule C1).
"""

from __future__ import annotations

from dataclasses import dataclass

NEVER_INHERITED = ("data", "optim", "peft", "dpo", "regression", "restore_from_path")

# One right value here, for every stage. The second half is what published configs carry and what ends a run:
# overlap_p2p_comm "ValueError: Non-interleaved pipeline parallelism does not support overlapping p2p communication"
# (megatron/core/pipeline_parallel/schedules.py:1634), defer_embedding_wgrad_compute a ValueError without gradient
# accumulation fusion (megatron/core/model_parallel_config.py:357-365); both are on in NVIDIA's config of the 340B
# (NeMo-Framework-Launcher launcher_scripts/conf/training/nemotron/nemotron_340b.yaml).
FIXED = {
    "mcore_gpt": True,
    "pre_process": True,
    "post_process": True,
    "persist_layer_norm": False,
    "apply_query_key_layer_scaling": False,
    "onnx_safe": False,
    "native_amp_init_scale": 2**32,
    "native_amp_growth_interval": 1000,
    "hysteresis": 2,
    "overlap_p2p_comm": False,
    "batch_p2p_comm": True,
    "defer_embedding_wgrad_compute": False,
    "rampup_batch_size": None,
    "num_micro_batches_with_partial_activation_checkpoints": None,
    "activations_checkpoint_layers_per_pipeline": None,
    "fsdp": False,
    "enable_cuda_graph": False,
    "use_emha": False,
    "sharp": False,
    "nccl_communicator_config_path": None,
    "dist_ckpt_parallel_dist_opt": True,
    "validation_param_sync_overlap": False,
}
# Stages that only run a model forward say less about it; the rest of a training layout must not come along.
FIXED_INFERENCE = {
    "virtual_pipeline_model_parallel_size": None,
    "context_parallel_size": 1,
    "ub_tp_comm_overlap": False,
    "fp8": False,
    "gradient_accumulation_fusion": False,
    "gradient_as_bucket_view": False,
    "sequence_parallel": False,
    "activations_checkpoint_granularity": None,
    "activations_checkpoint_method": None,
}
# Set by nemo_config from other settings of the stage.
COMPUTED = ("max_position_embeddings", "micro_batch_size", "global_batch_size", "tokenizer")

# The function that the weights are of, or how they were begun: the checkpoint knows it, nobody else.
ARCHITECTURE = frozenset(
    "activation apply_embedding_scaling attention_type bias encoder_seq_length ffn_hidden_size headscale hidden_size"
    " init_method_std kv_channels layernorm_epsilon layernorm_zero_centered_gamma make_vocab_size_divisible_by"
    " mcore_customization_config name normalization normalize_attention_scores num_attention_heads num_layers"
    " num_moe_experts num_query_groups openai_gelu override_vocab_size position_embedding_type qk_layernorm qkv_bias"
    " rotary_base rotary_interleaved rotary_percentage scale_factor scale_positional_embedding"
    " seq_len_interpolation_factor share_embeddings_and_output_weights transformer_block_type use_scaled_init_method"
    " vocab_size window_size".split()
)
# In the configs that NVIDIA publishes, and read by nothing that runs here, or without effect while `fp8`, `fsdp`,
# `ub_tp_comm_overlap` and the deferred gradient are off.
UNREAD = frozenset(
    "apex_transformer_log_level deteministic_mode enable_vboost gc_interval inference nemo_version nsys_profile"
    " reduce_amax resume_from_checkpoint sync_batch_comm target ub_tp_comm_overlap_cfg wgrad_deferral_limit"
    " activations_checkpoint_num_layers".split()
)
UNREAD_BEGIN = ("fp8_", "fsdp_", "moe_", "nsys_")
# Values of the rest that are what NeMo takes where the key is absent, so that nothing changes with them.
HARMLESS = {
    "async_grad_allreduce": True,
    "cross_entropy_loss_fusion": False,
    "do_layer_norm_weight_decay": False,
    "fp16_lm_cross_entropy": False,
    "fp32_residual_connection": False,
    "get_attention_mask_from_fusion": True,
    "grad_allreduce_chunk_size_mb": 125,
    "grad_div_ar_fusion": True,
    "with_fp32_embedding_grads": True,
}
# Inherited unseen these end a run or change what is trained: key -> (values that do neither, what another value does).
DANGEROUS = {
    "calculate_per_token_loss": ((False,), "another loss: the sum over tokens, not their mean"),
    "cpu_offloading": ((False,), "weights and activations leave the GPU"),
    "dist_ckpt_load_strictness": ((None,), "weights that are missing in the checkpoint are not reported"),
    "drop_layers": ((None, []), "these layers are left out"),
    "expert_model_parallel_size": ((1, None), "no layout here has expert-parallel ranks"),
    "first_pipeline_num_layers": ((None, 0), "pipeline stages of unequal size"),
    "last_pipeline_num_layers": ((None, 0), "pipeline stages of unequal size"),
    "fp16": ((False,), "half precision without a loss scaler, whatever trainer.precision says"),
    "bf16": ((), "the width of the weights, whatever trainer.precision says"),
    "params_dtype": ((), "the width of the weights, whatever trainer.precision says"),
    "fp8_params": ((False,), "weights in fp8"),
    "pipeline_model_parallel_split_rank": ((None, 0), "a pipeline with an encoder, which GPT has not"),
    "reset_lr": ((False,), "the schedule begins anew at a resume"),
    "tp_comm_overlap": ((False,), "holds against ub_tp_comm_overlap"),
    "variable_seq_lengths": ((False,), "pipeline stages send shapes that the others do not expect"),
}
# The same for keys that every training base of ours sets; the base of a fork may not.
DANGEROUS_TRAINING = {
    "tensor_model_parallel_size": ((1,), "the ranks of another machine"),
    "pipeline_model_parallel_size": ((1,), "the ranks of another machine"),
    "context_parallel_size": ((1,), "the ranks of another machine"),
    "virtual_pipeline_model_parallel_size": ((None,), "NeMo-Aligner does not support it"),
    "sequence_parallel": ((False,), "needs lengths that divide by TP; the reward model cannot take it"),
    "precision": ((), "checkpoints converted from Llama say 16"),
    "megatron_amp_O2": ((), "decides whether the optimizer keeps float32 weights"),
    "activations_checkpoint_granularity": ((None,), "recompute, which costs a third of the time"),
    "activations_checkpoint_method": ((None,), "recompute, which costs a third of the time"),
    "fp8": ((False, None), "matrix products in fp8"),
    "ub_tp_comm_overlap": ((False,), "needs sequence parallelism and fixed shapes"),
    "hidden_dropout": ((0.0, 0), "dropout in training"),
    "attention_dropout": ((0.0, 0), "dropout in training"),
    "ffn_dropout": ((0.0, 0), "dropout in training"),
    "dist_ckpt_format": (("torch_dist",), "checkpoints of another layout"),
    "encoder_seq_length": ((), "the length of another stage"),
    "gradient_accumulation_fusion": ((False,), "needs Apex"),
}

CHECKPOINT, STAGE, FIXED_HERE, CUT = "checkpoint", "stage", "fixed", "cut"


@dataclass(frozen=True)
class Inherited:
    """One key of a checkpoint's config. ours: the stage's or the fixed value; holds: whose it is in the end."""

    key: str
    theirs: object
    ours: object
    holds: str


def table(theirs: dict, model: dict, trains: bool) -> list[Inherited]:
    """Every key at the top of a checkpoint's config, against the `model:` of a stage that loads it.

    trains: does the stage train, or only run the model forward?
    """
    fixed = FIXED if trains else {**FIXED, **FIXED_INFERENCE}
    rows = []
    for key, value in theirs.items():
        if key in fixed:
            rows.append(Inherited(key, value, fixed[key], FIXED_HERE))
        elif key in COMPUTED:
            rows.append(Inherited(key, value, None, FIXED_HERE if key != "tokenizer" else CHECKPOINT))
        elif key in model:
            rows.append(Inherited(key, value, model[key], STAGE))
        elif key in NEVER_INHERITED and trains:
            rows.append(Inherited(key, value, None, CUT))
        else:
            rows.append(Inherited(key, value, None, CHECKPOINT))
    return rows


def dangerous(rows: list[Inherited], trains: bool) -> list[tuple[Inherited, str]]:
    """(row, what it does) of every inherited key that ends a run or changes what is trained."""
    known = {**DANGEROUS, **DANGEROUS_TRAINING} if trains else DANGEROUS
    if not trains:
        known = {key: value for key, value in known.items() if key not in ("calculate_per_token_loss", "reset_lr")}
    found = [(row, *known[row.key]) for row in rows if row.holds == CHECKPOINT and row.key in known]
    return [(row, effect) for row, safe, effect in found if row.theirs not in safe]


def noticeable(rows: list[Inherited], trains: bool) -> list[Inherited]:
    """Inherited keys that are neither the model itself, nor unread, nor as if they were absent."""
    known = {*DANGEROUS, *(DANGEROUS_TRAINING if trains else ()), *COMPUTED, *UNREAD, *ARCHITECTURE, *NEVER_INHERITED}
    if not trains:  # what concerns gradients, optimizer and data has no effect there
        known |= {*DANGEROUS_TRAINING, *_TRAINING_ONLY}
    return [
        row
        for row in rows
        if row.holds == CHECKPOINT
        and row.key not in known
        and not row.key.startswith(UNREAD_BEGIN)
        and not (row.key in HARMLESS and HARMLESS[row.key] == row.theirs)
        and row.theirs is not None
    ]


_TRAINING_ONLY = (
    "seed", "activations_checkpoint_num_layers", "use_cpu_initialization", "async_grad_allreduce",
    "cross_entropy_loss_fusion", "do_layer_norm_weight_decay", "fp16_lm_cross_entropy", "grad_allreduce_chunk_size_mb",
    "grad_div_ar_fusion", "with_fp32_embedding_grads", "dist_ckpt_parallel_save", "dist_ckpt_parallel_load",
    "masked_softmax_fusion", "bias_activation_fusion", "bias_dropout_add_fusion", "apply_rope_fusion",
    "use_flash_attention", "hidden_dropout", "attention_dropout", "ffn_dropout",
    "reward_model_type", "loss_func", "loss_mask_val", "output_sequence", "use_avg_pool", "force_head_dtype",
    "forward_micro_batch_size",
)  # fmt: skip
