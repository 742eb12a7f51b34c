"""Checkpoints as NeMo writes them, without weights that anybody could load: for the checks, which read no tensor."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from pathlib import Path

import sentencepiece
import yaml

# NVIDIA's published config of the 340B (NeMo-Framework-Launcher launcher_scripts/conf/training/nemotron/
# nemotron_340b.yaml, grade A), without optimizer and data: what a stage that starts from that checkpoint takes over.
NEMOTRON4_340B = {
    "micro_batch_size": 1, "global_batch_size": 2304, "rampup_batch_size": None, "context_parallel_size": 1,
    "tensor_model_parallel_size": 8, "pipeline_model_parallel_size": 8, "virtual_pipeline_model_parallel_size": 12,
    "encoder_seq_length": 4096, "max_position_embeddings": 4096, "num_layers": 96, "hidden_size": 18432,
    "ffn_hidden_size": 73728, "num_attention_heads": 96, "init_method_std": 0.0063, "use_scaled_init_method": True,
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "ffn_dropout": 0.0, "kv_channels": None,
    "apply_query_key_layer_scaling": True, "normalization": "layernorm1p", "layernorm_zero_centered_gamma": True,
    "layernorm_epsilon": 1e-5, "do_layer_norm_weight_decay": False, "make_vocab_size_divisible_by": 128,
    "pre_process": True, "post_process": True, "persist_layer_norm": True, "bias": False, "activation": "squared-relu",
    "headscale": False, "transformer_block_type": "pre_ln", "openai_gelu": False, "normalize_attention_scores": True,
    "position_embedding_type": "rope", "rotary_percentage": 0.5, "attention_type": "multihead",
    "share_embeddings_and_output_weights": False, "num_query_groups": 8, "native_amp_init_scale": 4294967296,
    "native_amp_growth_interval": 1000, "hysteresis": 2, "fp32_residual_connection": False,
    "fp16_lm_cross_entropy": False, "megatron_amp_O2": True, "grad_allreduce_chunk_size_mb": 125,
    "grad_div_ar_fusion": True, "gradient_accumulation_fusion": True, "bias_activation_fusion": False,
    "bias_dropout_add_fusion": True, "masked_softmax_fusion": True, "seed": 1234, "resume_from_checkpoint": None,
    "use_cpu_initialization": False, "onnx_safe": False, "apex_transformer_log_level": 30,
    "gradient_as_bucket_view": True, "sync_batch_comm": False, "activations_checkpoint_granularity": None,
    "activations_checkpoint_method": None, "activations_checkpoint_num_layers": None,
    "num_micro_batches_with_partial_activation_checkpoints": None, "activations_checkpoint_layers_per_pipeline": None,
    "sequence_parallel": True, "fsdp": False, "fsdp_sharding_strategy": "full", "fsdp_grad_reduce_dtype": 32,
    "defer_embedding_wgrad_compute": True, "wgrad_deferral_limit": 22, "cross_entropy_loss_fusion": True,
    "enable_vboost": True, "ub_tp_comm_overlap": True, "apply_rope_fusion": True, "deteministic_mode": False,
    "overlap_p2p_comm": True, "batch_p2p_comm": False, "sharp": False, "mcore_gpt": True, "transformer_engine": True,
    "fp8": False, "fp8_e4m3": False, "fp8_hybrid": True, "fp8_margin": 0, "fp8_interval": 1,
    "fp8_amax_history_len": 1024, "fp8_amax_compute_algo": "max", "fp8_wgrad": True,
    "optim": {"name": "mcore_distributed_optim", "lr": 1e-4}, "data": {"data_impl": "mmap", "seq_length": 4096},
    "tokenizer": {"library": "sentencepiece", "type": None, "model": "nemo:nemotron_2_256k.model"},
}  # fmt: skip
TOKENIZER = "nemotron_2_256k.model"


def checkpoint(path: Path, pieces: int = 256000, control_tokens: bool = True, **changes) -> Path:
    """A directory with model_config.yaml, a tokenizer and one shard that its index names. changes: of the config."""
    weights = path / "model_weights"
    weights.mkdir(parents=True)
    (path / "model_config.yaml").write_text(yaml.safe_dump({**NEMOTRON4_340B, **changes}))
    (path / TOKENIZER).write_bytes(tokenizer(pieces, control_tokens))
    (weights / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist"}))
    (weights / ".metadata").write_bytes(b"\x80\x02X\x0c\x00\x00\x00__0_0.distcp.")
    (weights / "__0_0.distcp").write_bytes(b"0" * 64)
    return path


def tar(path: Path, compress: bool = False, **changes) -> Path:
    """The same as a .nemo file: small files first, as NeMo's are found."""
    with tarfile.open(path, "w:gz" if compress else "w:") as archive:
        folder = checkpoint(path.with_suffix(""), **changes)
        for part in sorted(folder.iterdir(), key=lambda part: part.name == "model_weights"):
            archive.add(part, f"./{part.name}")
    return path


@functools.cache
def tokenizer(pieces: int, control_tokens: bool) -> bytes:
    """A SentencePiece model with the template's control tokens, filled up to so many pieces that nothing uses."""
    buffer = io.BytesIO()
    words = ["some word words User Assistant System reverse the list " + chr(97 + i % 26) for i in range(200)]
    symbols = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "\n"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=buffer, vocab_size=330, model_type="bpe", byte_fallback=True,
        user_defined_symbols=symbols if control_tokens else [], hard_vocab_limit=False,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    return filled(buffer.getvalue(), pieces)


def filled(model: bytes, pieces: int) -> bytes:
    """A SentencePiece model with unused pieces appended until it has so many."""
    there = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    return model + b"".join(map(_unused_piece, range(there, pieces)))


def _unused_piece(number: int) -> bytes:
    """One more `pieces` entry of sentencepiece's ModelProto: {piece: 1, type: 3 = UNUSED}; messages can be appended."""
    name = f"<unused_{number}>".encode()
    entry = b"\x0a" + bytes([len(name)]) + name + b"\x18\x05"
    return b"\x0a" + bytes([len(entry)]) + entry
