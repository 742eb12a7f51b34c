"""Checkpoints of Hugging Face: looked at before the engine is started, and what NeMo cannot do with some of them."""

from __future__ import annotations

from pathlib import Path

from recipes.checkpoints import hf_folder
from recipes.checkpoints.architecture import nemo_trouble
from recipes.pipeline.checks.external import Checkpoint
from recipes.pipeline.checks.registry import Rule

K4 = Rule(
    "K4",
    title="A Hugging Face checkpoint is complete and of a family that is converted",
    explanation="config.json and the headers of the safetensors files tell the architecture, names, shapes and types "
    "of all tensors, and whether a file is cut off. Without this a conversion fails after an hour, or a model is "
    "converted that NeMo computes otherwise: biases, another activation, scaled positions.",
    fix="give a complete folder of a Nemotron or Llama model in safetensors",
)

K5 = Rule(
    "K5",
    title="A reward model starts from a model that NeMo-Aligner can make one of",
    explanation="NeMo-Aligner 0.7.0 builds reward models without Llama 3.1's stretched positions "
    "(megatron_gpt_reward_model.py): the weights load, the model reads other positions than it was trained with, and "
    "nothing is said. And it never ties the output layer to the embedding, so that a tied checkpoint lacks a tensor.",
    fix="start the reward model from a checkpoint without rope_scaling; a tied one from the from_hf stage itself",
)
TIED = "share_embeddings_and_output_weights"
# Kinds whose model directory has an output layer, tied or not
WITH_OUTPUT_LAYER = ("from_hf", "reward")


@K4
def folders_are_complete(stage):
    if stage.kind != "from_hf":
        return
    path = Path(stage.get("inputs.checkpoint"))
    if path.exists():  # else I2
        for where, what, fix in hf_folder.look(path).problems:
            yield "inputs.checkpoint", f"{where}: {what}", fix


@K4
def known_types(stage):
    if stage.kind in ("from_hf", "to_hf"):
        yield from hf_folder.dtype_problems(stage.get("dtype"))


@K4
def families_are_known(stage):
    for origin, model, whose in stage.architectures() if stage.kind == "to_hf" else ():
        for key, what, fix in nemo_trouble(model):
            yield origin, f"`{key}` of {whose} {what}", fix


@K5
def positions_of_reward_models(stage):
    for origin, model, whose in stage.architectures() if stage.kind == "reward" else ():
        if model.get("scale_positional_embedding") is True:
            message = f"{whose} has rope_scaling, which NeMo-Aligner's reward model drops"
            yield origin, message, "start from a checkpoint without it"


@K5
def output_layers_of_reward_models(stage):
    if stage.kind != "reward" or not any(m.get(TIED) is True for _, m, _ in stage.architectures()):
        return
    for name, source in stage.models():
        if not _has_output_layer(source):
            message = "is a tied model, without the output layer that NeMo-Aligner's reward model looks for"
            yield f"inputs.{name}", message, "start from the from_hf stage, whose checkpoint has one"


def _has_output_layer(source) -> bool:
    if not isinstance(source, Checkpoint):
        return source.kind in WITH_OUTPUT_LAYER
    index = source.path / "model_weights" / ".metadata"  # a pickle in which names are plain text
    return index.is_file() and b"output_layer.weight" in index.read_bytes()
