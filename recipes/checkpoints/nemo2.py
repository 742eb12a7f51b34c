"""A checkpoint of NeMo 2.0: its context/model.yaml says the architecture, its weights/ hold the tensors as `module.…`.

Layout as NeMo v2.1.0 writes it (nemo/lightning/io/mixin.py io_dump, nemo/lightning/ckpt_utils.py). NeMo-Aligner 0.7.0
reads such a directory itself, with two faults (nemo_aligner/utils/utils.py:154-257): it passes the activation on as
`squared_relu`, which NeMo 1.x does not know, and it does not map `rotary_percent`, which NeMo 1.x calls
`rotary_percentage`, so that Nemotron-4 silently rotates whole heads instead of half of each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from recipes.checkpoints.architecture import LLAMA, NEMOTRON, Architecture, to_nemo
from recipes.errors import Problem, UserInputError

RULE = "K6"  # of recipes/pipeline/checks/nemo2.py
CONTEXT, MODEL, WEIGHTS = "context", "model.yaml", "weights"
HUGGING_FACE = "tokenizer.json"
MODULE = "nemo.collections.llm.gpt.model."  # whose models are known: nemotron and llama
# (normalization, zero-centred gamma, activation, gated) -> family
FAMILIES = {("LayerNorm", True, "squared_relu", False): NEMOTRON, ("RMSNorm", False, "silu", True): LLAMA}
# What the two families do not have; NeMo 1.x would need other keys for it, or has none.
NEUTRAL = {
    "position_embedding_type": "rope", "add_bias_linear": False, "add_qkv_bias": False, "qk_layernorm": False,
    "num_moe_experts": None, "multi_latent_attention": False, "seq_len_interpolation_factor": None,
    "window_size": None, "rotary_interleaved": False, "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": False, "fp32_residual_connection": False,
}  # fmt: skip
NUMBERS = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "seq_length")


@dataclass(frozen=True)
class Nemo2:
    """What model.yaml says. tokenizer: a SentencePiece model, or the folder of a tokenizer.json.

    config: its block of the model; rows of the vocabulary are known from the weights only.
    """

    path: Path
    config: dict
    family: str
    tokenizer: Path

    def architecture(self, rows: int) -> Architecture:
        get = self.config.get
        heads = get("num_attention_heads")
        return Architecture(
            family=self.family,
            layers=get("num_layers"),
            hidden=get("hidden_size"),
            ffn=get("ffn_hidden_size"),
            heads=heads,
            groups=get("num_query_groups") or heads,
            head_dim=get("kv_channels") or get("hidden_size") // heads,
            vocab=rows,
            context=get("seq_length"),
            epsilon=get("layernorm_epsilon", 1e-5),
            rotary=get("rotary_percent", 1.0),
            theta=get("rotary_base", 10000),
            tied=get("share_embeddings_and_output_weights", False),
            init_std=get("init_method_std", 0.02),
        )

    @property
    def library(self) -> str:
        return "huggingface" if self.tokenizer.is_dir() else "sentencepiece"


def look(path: Path, tokenizer: Path | None = None) -> Nemo2:
    """Read the directory; `tokenizer` replaces the one that it names. UserInputError (K6) with all that is wrong."""
    described = _model_yaml(path)
    config, problems = described["config"], []
    problems += _class_trouble(described, config)
    problems += [(key, f"is {config[key]!r}, not {neutral!r}", "only Nemotron and Llama models are converted")
                 for key, neutral in NEUTRAL.items() if config.get(key, neutral) != neutral]  # fmt: skip
    problems += [(key, f"is {config.get(key)!r}", "copy the file again") for key in NUMBERS
                 if not isinstance(config.get(key), int)]  # fmt: skip
    family = FAMILIES.get(kind := _family_key(config))
    if family is None:
        what = "normalization {}, zero-centred gamma {}, activation {}, gated {}".format(*kind)
        problems.append(("activation_func", f"is of an unknown family: {what}", "name a Nemotron or a Llama model"))
    try:
        found = tokenizer or _tokenizer(path, described.get("tokenizer") or {})
    except ValueError as error:
        fix = "set inputs.tokenizer to a SentencePiece model or to the folder of a tokenizer.json"
        problems.append(("tokenizer", str(error), fix))
    if problems:
        where = path / CONTEXT / MODEL
        raise UserInputError([Problem(RULE, f"{where} {key}", what, fix) for key, what, fix in problems])
    return Nemo2(path, config, family, found)


def nemo_config(path: Path, tokenizer: Path | None = None) -> dict:
    """What model_config.yaml will say of architecture and tokenizer, without the rows; empty where it is refused."""
    try:
        found = look(path, tokenizer)
    except (UserInputError, OSError, ValueError):
        return {}
    config = {key: value for key, value in to_nemo(found.architecture(0)).items() if key != "hf_vocab_size"}
    if found.library == "huggingface":
        return config | {"tokenizer": {"library": found.library, "type": str(found.tokenizer.absolute())}}
    return config | {"tokenizer": {"library": found.library, "model": str(found.tokenizer.absolute())}}


def _model_yaml(path: Path) -> dict:
    file, weights = path / CONTEXT / MODEL, path / WEIGHTS / "metadata.json"
    fix = "give the directory that holds context/ and weights/, as NeMo 2.0 writes it"
    if not file.is_file():
        raise UserInputError(Problem(RULE, str(path), f"has no {CONTEXT}/{MODEL}", fix))
    try:
        described = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert isinstance(described["config"], dict)
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AssertionError):
        raise UserInputError(Problem(RULE, str(file), "does not describe a model", "copy the file again")) from None
    backend = json.loads(weights.read_text()).get("sharded_backend") if weights.is_file() else None
    if backend != "torch_dist" or not (path / WEIGHTS / ".metadata").is_file():
        what = f"holds no complete torch_dist checkpoint in {WEIGHTS}/ (format: {backend or 'unknown'})"
        raise UserInputError(Problem(RULE, str(path), what, "copy it again, or save it with NeMo 2.1 or later"))
    return described


def _class_trouble(described: dict, config: dict):
    for key, block in (("_target_", described), ("config._target_", config)):
        name = str(block.get("_target_"))
        if name.removeprefix(MODULE).split(".")[0] not in (NEMOTRON, LLAMA) or not name.startswith(MODULE):
            yield key, f"is {name}", "only Nemotron and Llama models are converted"
    if "scale_factor" in config:
        what = "stretches rotary positions as Llama 3.1 does, which NeMo-Aligner's reward model drops"
        yield "config.scale_factor", what, "use Llama 3, or convert the Hugging Face checkpoint with from_hf"


def _family_key(config: dict) -> tuple:
    activation = config.get("activation_func")
    name = str(activation.get("_target_") if isinstance(activation, dict) else activation).rpartition(".")[2]
    zero_centred, gated = config.get("layernorm_zero_centered_gamma", False), config.get("gated_linear_unit", False)
    return config.get("normalization"), zero_centred, name, gated


def _tokenizer(path: Path, block: dict) -> Path:
    """The tokenizer's file or folder in context/. ValueError if it is not there or more than its files."""
    target = str(block.get("_target_"))
    if target.endswith("SentencePieceTokenizer"):
        found = path / CONTEXT / str(block.get("model_path"))
        if block.get("special_tokens"):
            raise ValueError("adds special tokens to its SentencePiece model")
        if not found.is_file():
            raise ValueError(f"names {block.get('model_path')}, which is not in {CONTEXT}/")
        return found
    if not target.endswith("AutoTokenizer"):
        raise ValueError(f"is a {target}")
    changed = [key for key, value in block.items() if value and (key.endswith("_token") or key.endswith("_tokens"))]
    if changed:
        raise ValueError(f"sets {', '.join(changed)} beside its files")
    name = block.get("pretrained_model_name")
    name = name.get("attr") if isinstance(name, dict) else name  # a name, where it was no folder
    found = path / CONTEXT / str(name)
    if not (found / HUGGING_FACE).is_file():
        raise ValueError(f"names {name}, which has no {HUGGING_FACE} in {CONTEXT}/")
    return found
