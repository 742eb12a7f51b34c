"""The two families of models that are converted, as Hugging Face's config.json and as NeMo's model_config.yaml say it.

Nemotron (Nemotron-4, Minitron): layernorm1p, squared ReLU, rotary positions on a part of each head.
Llama: RMSNorm, SwiGLU, rotary positions on the whole head, optionally stretched as Llama 3.1 does.
source: transformers v4.48.3 models/{nemotron,llama}; NeMo v2.1.0 megatron_gpt_model.py, build_transformer_config
"""

from __future__ import annotations

from dataclasses import dataclass

NEMOTRON, LLAMA = "nemotron", "llama"
CAUSAL = {"NemotronForCausalLM": NEMOTRON, "LlamaForCausalLM": LLAMA}
CLASS_NAMES = {NEMOTRON: "Nemotron", LLAMA: "Llama"}
ACTIVATIONS = {NEMOTRON: "relu2", LLAMA: "silu"}
# The only stretched positions that NeMo has are constants of its code (nemo v2.1.0 collections/common/parts/utils.py,
# apply_rope_scaling): those of Llama 3.1.
LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}  # fmt: skip
# (normalization, activation) of NeMo's config -> family
_NEMO = {("layernorm1p", "squared-relu"): NEMOTRON, ("rmsnorm", "fast-swiglu"): LLAMA, ("rmsnorm", "swiglu"): LLAMA}

Trouble = tuple[str, str, str]  # (key, what is wrong, what to do about it)


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices that both frameworks share. rotary: part of a head that is rotated; scaled: as Llama 3.1."""

    family: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int  # of keys and values
    head_dim: int
    vocab: int
    context: int
    epsilon: float
    rotary: float
    theta: float
    tied: bool = False  # embedding and output layer are one matrix
    scaled: bool = False
    init_std: float = 0.02

    @property
    def gated(self) -> bool:
        return self.family == LLAMA

    @property
    def norm_bias(self) -> bool:
        return self.family == NEMOTRON


# -- Hugging Face


def read_hf(config: dict) -> tuple[Architecture | None, list[Trouble]]:
    """The architecture that a config.json describes, and all that is wrong with it (then None)."""
    names = config.get("architectures") or []
    family = CAUSAL.get(names[0]) if len(names) == 1 else None
    if family is None:
        return None, [("architectures", f"is {names}", f"only these are converted: {', '.join(CAUSAL)}")]
    sizes = {key: config.get(key) for key in ("num_hidden_layers", "hidden_size", "intermediate_size",
                                              "num_attention_heads", "vocab_size")}  # fmt: skip
    wrong = [(key, f"is {value!r}", "copy config.json again") for key, value in sizes.items() if not _whole(value)]
    if wrong:
        return None, wrong
    groups = config.get("num_key_value_heads") or sizes["num_attention_heads"]
    head_dim = config.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"]
    found = Architecture(
        family=family,
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        ffn=sizes["intermediate_size"],
        heads=sizes["num_attention_heads"],
        groups=groups,
        head_dim=head_dim,
        vocab=sizes["vocab_size"],
        context=config.get("max_position_embeddings", 4096 if family == NEMOTRON else 2048),
        epsilon=config.get("norm_eps", 1e-5) if family == NEMOTRON else config.get("rms_norm_eps", 1e-6),
        rotary=config.get("partial_rotary_factor", 0.5 if family == NEMOTRON else 1.0),
        theta=config.get("rope_theta", 10000.0),
        tied=bool(config.get("tie_word_embeddings", False)),
        scaled=config.get("rope_scaling") is not None,
        init_std=config.get("initializer_range", 0.02),
    )
    wrong = list(_hf_trouble(config, found))
    return (None if wrong else found), wrong


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _hf_trouble(config: dict, found: Architecture):
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            yield key, "is true", "models with biases in their linear layers are not converted"
    wanted = ACTIVATIONS[found.family]
    if config.get("hidden_act", wanted) != wanted:
        yield "hidden_act", f"is {config['hidden_act']!r}", f"{CLASS_NAMES[found.family]} models here have {wanted!r}"
    if config.get("quantization_config"):
        yield "quantization_config", "the weights are quantized", "name the checkpoint that it was made from"
    if found.heads % found.groups:
        message = f"{found.groups} does not divide num_attention_heads {found.heads}"
        yield "num_key_value_heads", message, "copy config.json again"
    scaling = config.get("rope_scaling")
    if scaling is not None and (found.family != LLAMA or not _is_llama31(scaling)):
        fix = "only Llama 3.1's scaling (rope_type llama3, factor 8) is in NeMo; use a checkpoint without rope_scaling"
        yield "rope_scaling", f"is {scaling}", fix
    if found.family == LLAMA and found.rotary != 1.0:
        yield "partial_rotary_factor", f"is {found.rotary}", "Llama models rotate the whole head"


def _is_llama31(scaling: dict) -> bool:
    named = {**scaling, "rope_type": scaling.get("rope_type", scaling.get("type"))}
    return {key: named.get(key) for key in LLAMA31} == LLAMA31


def to_hf(arch: Architecture, dtype: str) -> dict:
    """config.json of a causal language model. dtype: "bfloat16", "float16" or "float32"."""
    config = {
        "architectures": [f"{CLASS_NAMES[arch.family]}ForCausalLM"],
        "model_type": arch.family,
        "torch_dtype": dtype,
        "num_hidden_layers": arch.layers,
        "hidden_size": arch.hidden,
        "intermediate_size": arch.ffn,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.groups,
        "head_dim": arch.head_dim,
        "vocab_size": arch.vocab,
        "max_position_embeddings": arch.context,
        "rope_theta": arch.theta,
        "hidden_act": ACTIVATIONS[arch.family],
        "tie_word_embeddings": arch.tied,
        "initializer_range": arch.init_std,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
    }
    if arch.family == NEMOTRON:
        return config | {"norm_eps": arch.epsilon, "partial_rotary_factor": arch.rotary}
    return config | {"rms_norm_eps": arch.epsilon, "rope_scaling": LLAMA31 if arch.scaled else None}


# -- NeMo


def to_nemo(arch: Architecture) -> dict:
    """The keys of NeMo's model config that describe the architecture."""
    return {
        "num_layers": arch.layers,
        "hidden_size": arch.hidden,
        "ffn_hidden_size": arch.ffn,
        "num_attention_heads": arch.heads,
        "num_query_groups": arch.groups,
        "kv_channels": arch.head_dim,
        "activation": "squared-relu" if arch.family == NEMOTRON else "fast-swiglu",
        "normalization": "layernorm1p" if arch.family == NEMOTRON else "rmsnorm",
        "layernorm_epsilon": arch.epsilon,
        "position_embedding_type": "rope",
        "rotary_percentage": arch.rotary,
        "rotary_base": arch.theta,
        "scale_positional_embedding": arch.scaled,
        "bias": False,
        "share_embeddings_and_output_weights": arch.tied,
        "init_method_std": arch.init_std,
        "encoder_seq_length": arch.context,
        "max_position_embeddings": arch.context,
        "vocab_size": arch.vocab,  # read by to_hf; NeMo goes by the tokenizer's size and pads
    }


def read_nemo(config: dict, vocab: int) -> tuple[Architecture | None, list[Trouble]]:
    """The architecture of a model_config.yaml, and all that is wrong with it (then None). vocab: rows to export."""
    wrong = nemo_trouble(config)
    if wrong:
        return None, wrong
    heads = config["num_attention_heads"]
    return Architecture(
        family=_nemo_family(config),
        layers=config["num_layers"],
        hidden=config["hidden_size"],
        ffn=config["ffn_hidden_size"],
        heads=heads,
        groups=config.get("num_query_groups") or heads,
        head_dim=config.get("kv_channels") or config["hidden_size"] // heads,
        vocab=vocab,
        context=config.get("max_position_embeddings") or config["encoder_seq_length"],
        epsilon=config.get("layernorm_epsilon", 1e-5),
        rotary=config.get("rotary_percentage", 1.0),
        theta=config.get("rotary_base", 10000),
        tied=bool(config.get("share_embeddings_and_output_weights", True)),
        scaled=bool(config.get("scale_positional_embedding", False)),
        init_std=config.get("init_method_std", 0.02),
    ), []


def _nemo_family(config: dict) -> str | None:
    norm = str(config.get("normalization", "layernorm")).lower()
    if norm == "layernorm" and config.get("layernorm_zero_centered_gamma"):
        norm = "layernorm1p"
    return _NEMO.get((norm, config.get("activation", "gelu")))


def nemo_trouble(config: dict) -> list[Trouble]:
    """Everything in a model_config.yaml for which there is no model of the two families."""
    return list(_nemo_trouble(config))


def _nemo_trouble(config: dict):
    for key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "encoder_seq_length"):
        if not _whole(config.get(key)):
            yield key, f"is {config.get(key)!r}", "name a complete checkpoint"
    if _nemo_family(config) is None:
        known = ", ".join(f"{activation} with {norm}" for norm, activation in _NEMO)
        what = f"is {config.get('activation')!r} with normalization {config.get('normalization')!r}"
        yield "activation", what, f"converted are: {known}"
    if config.get("position_embedding_type", "learned_absolute") != "rope":
        yield "position_embedding_type", f"is {config.get('position_embedding_type')!r}", "only rope is converted"
    for key, default in (("bias", True), ("qkv_bias", False), ("qk_layernorm", False), ("num_moe_experts", None),
                         ("seq_len_interpolation_factor", None), ("apply_embedding_scaling", False),
                         ("rotary_interleaved", False)):  # fmt: skip
        if config.get(key, default):
            yield key, f"is {config.get(key, default)!r}", "such a model has no counterpart in the families here"
    if str(config.get("normalization")).lower() == "rmsnorm" and config.get("rotary_percentage", 1.0) != 1.0:
        yield "rotary_percentage", f"is {config['rotary_percentage']}", "Llama models rotate the whole head"
