"""A Hugging Face folder becomes a NeMo 1.x directory, as recipes/engine/checkpoints.publish writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from data_prep.template import Template
from recipes.checkpoints import tensors
from recipes.checkpoints.hf_folder import DTYPES, Folder, listed
from recipes.engine import checkpoints, inference
from recipes.engine.convert import common, hf_files, joins, parity, torch_dist, vocabulary
from recipes.engine.metrics import JsonlLogger
from recipes.errors import Problem, UserInputError
from recipes.ranks import is_first_rank

# What a model config holds besides the architecture: one process, nothing fused, no dropout. Every stage sets what it
# needs otherwise; a key that is missing would take a default of NeMo's code.
LAYOUT = {
    "precision": 32, "micro_batch_size": 1, "global_batch_size": 1,
    "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1,
    "virtual_pipeline_model_parallel_size": None, "context_parallel_size": 1, "sequence_parallel": False,
    "megatron_amp_O2": False, "transformer_engine": False,
    "activations_checkpoint_granularity": None, "activations_checkpoint_method": None,
    "activations_checkpoint_num_layers": None,
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "ffn_dropout": 0.0,
    "apply_rope_fusion": False, "bias_activation_fusion": False, "bias_dropout_add_fusion": False,
    "masked_softmax_fusion": False, "gradient_accumulation_fusion": False, "gradient_as_bucket_view": False,
    "use_cpu_initialization": False, "use_flash_attention": False, "ub_tp_comm_overlap": False, "fp8": False,
    "dist_ckpt_format": "torch_dist", "dist_ckpt_load_strictness": None,
    "dist_ckpt_parallel_save": True, "dist_ckpt_parallel_load": True,
    "mcore_gpt": True, "pre_process": True, "post_process": True, "persist_layer_norm": False,
    "apply_query_key_layer_scaling": False, "onnx_safe": False,
    "native_amp_init_scale": 2**32, "native_amp_growth_interval": 1000, "hysteresis": 2,
}  # fmt: skip
MOST_DIVISIBLE = 128


def convert(cfg, stage_dir: Path, folder: Folder, template: Template | None) -> dict:
    """Convert, compare, publish outputs/model. Every rank calls it; returns facts for the manifest."""
    result = common.Unpublished(stage_dir / "outputs" / "model")
    try:
        if is_first_rank():
            written, source = _write(cfg, stage_dir, folder, template, result)
            common.say_written(stage_dir, written)
        else:
            written, source = common.wait_written(stage_dir), None
        facts = written["facts"]
        if cfg.parity.enabled:
            model = inference.load_policy(cfg, inference.create_trainer(cfg), result.path)
            values = parity.nemo(model, written["rows"])
            if source is not None:
                facts["parity"] = parity.compare(source, parity.Result(source.prompts, values), cfg)
        if is_first_rank():
            common.publish_model(cfg, result, facts)
    except BaseException:
        if is_first_rank():
            result.discard()
        raise
    return facts


def _write(cfg, stage_dir: Path, folder: Folder, template, result: common.Unpublished):
    """Everything that one process does: checks, the files, the answers of the source. -> (what is said, answers)"""
    pair = vocabulary.of_folder(folder.path)
    texts = parity.texts(template, reward=False)
    marks = template.control_tokens if template else pair.nemo.marks
    vocabulary.refuse_differences(pair, texts, marks, folder.path)
    job = Job(folder, DTYPES.get(str(cfg.dtype)))
    job.check()
    divisor = divisible_by(folder.architecture.vocab, pair.nemo.size, folder.path)
    model = result.start()
    block = vocabulary.copy_to_nemo(folder.path, pair.library, model)
    config = LAYOUT | folder.nemo | {"make_vocab_size_divisible_by": divisor, "tokenizer": block}
    config["data"] = {"chat_prompt_tokens": template.nemo_tokens() if template else None}
    (model / "model_config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(job.pieces))
    job.write(model / checkpoints.WEIGHTS, progress)
    arch = folder.architecture
    facts = {
        "family": arch.family,
        "parameters": job.parameters,
        "dtypes": sorted({str(piece.dtype).removeprefix("torch.") for piece in job.pieces}),
        "vocabulary": {"rows": arch.vocab, "tokenizer": pair.nemo.size, "divisible_by": divisor},
        "tokenizer": {"library": pair.library, "compared": pair.two, "control_tokens": len(marks)},
        "template_sha256": template.sha256 if template else None,
    }
    rows, source = [pair.nemo.ids(text)[: arch.context] for text in texts], None
    if cfg.parity.enabled:
        round_to = "bfloat16" if job.dtype == "BF16" else None
        source = parity.Result(texts, parity.huggingface(folder.path, rows, round_to))
    return {"facts": facts, "rows": rows}, source


def divisible_by(vocab: int, tokenizer: int, where: Path) -> int:
    """The make_vocab_size_divisible_by with which NeMo builds exactly `vocab` rows at TP 1, if there is one.

    NeMo rounds the tokenizer's size up to a multiple of this (and of TP). Taken is the largest power of two up to 128
    that gives `vocab` rows, else the smallest divisor of `vocab` that does.
    """
    if tokenizer > vocab:
        what = f"has {tokenizer} tokens, config.json has a vocab_size of {vocab}: some have no row"
        raise UserInputError(Problem("K4", str(where), what, "use the tokenizer that belongs to this checkpoint"))
    divisor = MOST_DIVISIBLE
    while divisor > 1 and (vocab % divisor or vocab - tokenizer >= divisor):
        divisor //= 2
    if vocab % divisor or vocab - tokenizer >= divisor:
        divisor = next(d for d in range(vocab - tokenizer + 1, vocab + 1) if vocab % d == 0)
    return divisor


@dataclass
class Job:
    """The pieces that are written and where their values come from. dtype: of safetensors; None: as in the file."""

    folder: Folder
    dtype: str | None

    def __post_init__(self):
        arch = self.folder.architecture
        copies = [tensors.copy_of_embedding(arch)] if arch.tied else []
        self.tensors = {tensors.PREFIX + tensor.name: tensor for tensor in self.folder.table + copies}
        layers = arch.layers
        # In the order of the layers, so that the source's files are read from front to back.
        whole = [name for name, tensor in self.tensors.items() if not tensor.layered]
        order = [(whole[0], None)]
        order += [(n, layer) for layer in range(layers) for n, tensor in self.tensors.items() if tensor.layered]
        order += [(name, None) for name in whole[1:]]
        self.pieces = [self._piece(name, layer) for name, layer in order]

    def _piece(self, name: str, layer: int | None) -> torch_dist.Piece:
        tensor = self.tensors[name]
        dtype = self.dtype or self.folder.entries[tensor.names(layer)[0]].dtype
        count = self.folder.architecture.layers if tensor.layered else 1
        return torch_dist.Piece(name, tensor.shape, hf_files.TYPES[dtype], layer, count)

    @property
    def parameters(self) -> int:
        copied = tensors.PREFIX + tensors.OUTPUT if self.folder.architecture.tied else None
        return sum(piece.bytes // piece.dtype.itemsize for piece in self.pieces if piece.name != copied)

    def check(self) -> None:
        """A tensor of all layers has one type; where the files mix types, one has to be chosen."""
        found: dict[str, dict[str, list[str]]] = {}
        for piece in self.pieces if self.dtype is None else ():
            for name in self.tensors[piece.name].names(piece.index):
                found.setdefault(piece.name, {}).setdefault(self.folder.entries[name].dtype, []).append(name)
        for types in found.values():
            if len(types) > 1:
                rare = min(types.values(), key=len)
                what = f"mixes {', '.join(types)} in what becomes one tensor: {listed(rare)}"
                raise UserInputError(Problem("K4", str(self.folder.path), what, "set dtype to bf16 or 32"))

    def load(self, piece: torch_dist.Piece) -> torch.Tensor:
        tensor = self.tensors[piece.name]
        parts = [hf_files.read(self.folder.entries[name]) for name in tensor.names(piece.index)]
        return joins.join(tensor, parts, self.folder.architecture).to(piece.dtype)

    def write(self, directory: Path, progress) -> None:
        extra = common.extra_states(self.folder.architecture.layers)
        torch_dist.write(directory, self.pieces, extra, self.load, lambda done: progress(1))
