"""A place to submit from: checkpoints and data sets as the recipes expect them, made on the spot.

The data sets are small and real: `align data build` makes them from the generated world. The checkpoints have the
configs, headers, names and sizes of the large models and no weights: their files are holes.
"""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path

import yaml

from data_prep.template import Template
from data_prep.tokenizer import train_tokenizer
from recipes import cli
from recipes.checkpoints import architecture, safetensors_files, tensors
from recipes.pipeline.config import CONFIGS, compose

CLUSTER = ["slurm.account=a", "slurm.partition=p", "slurm.container.image=nemo.sqsh"]
BASES = {
    "nemotron4_340b": "Nemotron-4-340B-Base",
    "nemotron4_15b": "Nemotron-4-15B-Base",
    "minitron_4b": "Minitron-4B-Base",
    "llama3_8b": "Meta-Llama-3-8B",
    "llama3_70b": "Meta-Llama-3-70B",
    "real_small": "SmolLM2-360M",
}
SETS = {  # data set: (its build config, the world's file)
    "nemotron4_code_sft": ("makes: sft", "code_sft"),
    "nemotron4_general_sft": ("makes: sft", "general_sft"),
    "nemotron4_reward": ("makes: reward", "human"),
    "nemotron4_reward_validation": ("makes: reward", "human_validation"),
    "nemotron4_dpo": ("makes: preference\nrewards: {from: none}", "human"),
    "real_small_sft": ("makes: sft", "general_sft"),
    "real_small_reward": ("makes: reward", "human"),
    "real_small_preference": ("makes: preference\nrewards: {from: attributes}", "human"),
}
RECIPES = [f"{name}{suffix}" for name in BASES for suffix in ("", "_lora") if name != "real_small" or not suffix]


def base_of(recipe: str) -> str:
    return recipe.removesuffix("_lora")


def inputs(recipe: str) -> list[str]:
    """The overrides that give a recipe its checkpoint, as its header shows them."""
    path = f"models/{BASES[base_of(recipe)]}"
    if base_of(recipe).startswith("nemotron4"):
        return [f"stages.{stage}.inputs.init={path}" for stage in ("code_sft", "reward")]
    return [f"stages.base.inputs.checkpoint={path}"]


def template_of(recipe: str) -> str:
    model = compose(recipe, inputs(recipe)).stages["reward"]
    return model.cfg["template"]


def build(folder: Path, recipe: str) -> None:
    """Everything that the recipe reads, below `folder`, which must be the working directory."""
    (folder / "nemo.sqsh").touch()
    rows = {"code_sft": 700, "general_sft": 700, "human": 1500, "human_validation": 300, "prompts": 800}
    sizes = [f"stages.world.sizes.{name}={number}" for name, number in rows.items()]
    assert cli.main(["run", "tiny", "--only", "world", "--run", "site", *sizes]) == 0
    world = folder / "runs/site/world/outputs"
    (folder / "datasets/prompts").mkdir(parents=True)
    for number in (1, 2, 3):
        os.link(world / f"prompts_round{number}.jsonl", folder / f"datasets/prompts/round{number}.jsonl")
    template = template_of(recipe)
    for name, (makes, file) in SETS.items():
        if name.startswith("real_small") == (recipe == "real_small"):
            schema = ", schema: helpsteer2_pairs" if "preference" in makes else ""
            source = f"sources: {{world: {{path: '{world / file}.jsonl', human: true, licence: generated{schema}}}}}"
            held_out = "validation: {rows: 260}" if "validation" not in name else ""
            text = f"{makes}\ntemplate: {template}\nchecks: {{duplicates: keep}}\n{source}\n{held_out}\n"
            (folder / f"{name}.yaml").write_text(text)
            assert cli.main(["data", "build", f"{name}.yaml"]) == 0
    model = compose(recipe, inputs(recipe)).architecture
    path = folder / "models" / BASES[base_of(recipe)]
    path.mkdir(parents=True)
    make = _nemo if base_of(recipe).startswith("nemotron4") else _hugging_face
    make(path, model, Template.load(template), world / "corpus.jsonl")


def _nemo(path: Path, model: dict, template: Template, corpus: Path) -> None:
    """An extracted NeMo directory: config, tokenizer, and an index of weights that are not there."""
    _sentencepiece(path, template, corpus, model["vocab_size"])
    keys = {key: value for key, value in model.items() if key not in ("optim", "vocab_size")}
    tokenizer = {"library": "sentencepiece", "type": None, "model": "nemo:tokenizer.model", "tokenizer_model": None}
    (path / "model_config.yaml").write_text(yaml.safe_dump({**keys, "tokenizer": tokenizer}))
    weights = path / "model_weights"
    weights.mkdir()
    (weights / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1}))
    (weights / ".metadata").write_bytes(b"__0_0.distcp")
    (weights / "__0_0.distcp").write_bytes(b"weights")
    (weights / "common.pt").write_bytes(b"common")


def _hugging_face(path: Path, model: dict, template: Template, corpus: Path) -> None:
    """A Hugging Face folder of the architecture: config, tokenizer, and one file of weights that is a hole."""
    arch, trouble = architecture.read_nemo(model, model["vocab_size"])
    assert arch is not None, trouble
    (path / "config.json").write_text(json.dumps(architecture.to_hf(arch, "bfloat16")))
    shapes = tensors.hf_shapes(tensors.table(arch), arch.layers)
    header = safetensors_files.header([(name, "BF16", shape) for name, shape in shapes.items()])
    size = len(header) + 2 * sum(prod(shape) for shape in shapes.values())
    with (path / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(size)
    if template.name == "nemotron":
        _sentencepiece(path, template, corpus, model["vocab_size"])
        return
    _byte_pair_tokenizer(path, template, corpus)


def _sentencepiece(path: Path, template: Template, corpus: Path, size: int) -> None:
    """A tokenizer of 512 pieces, filled up to `size` with ones that are marked as unused.

    Protocol buffers are merged by putting one behind the other. sentencepiece_model.proto: ModelProto.pieces = 1,
    SentencePiece.piece = 1, type = 3, UNUSED = 5.
    """
    file = train_tokenizer(corpus, path / "tokenizer.model", 512, 1, template)
    names = (f"<unused_{number}>".encode() for number in range(size - 512))
    pieces = (b"\x0a" + bytes([len(name)]) + name + b"\x18\x05" for name in names)
    file.write_bytes(file.read_bytes() + b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in pieces))


def _byte_pair_tokenizer(path: Path, template: Template, corpus: Path) -> None:
    """tokenizer.json as Llama 3 and SmolLM2 have it: byte-level BPE, control tokens as special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=template.control_tokens, initial_alphabet=alphabet)
    lines = (json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines())
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    end = template.control_tokens[-1]
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "bos_token": end})
    )


def configs(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / folder).glob("*.yaml"))
