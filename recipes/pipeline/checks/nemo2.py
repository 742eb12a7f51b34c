"""Checkpoints of NeMo 2.0: looked at before the engine is started."""

from __future__ import annotations

from pathlib import Path

from recipes.checkpoints import nemo2
from recipes.errors import UserInputError
from recipes.pipeline.checks.registry import Rule

K6 = Rule(
    nemo2.RULE,
    title="A NeMo-2.0 checkpoint is complete and of a family that is converted",
    explanation="context/model.yaml says architecture and tokenizer, weights/ must be torch_dist. Without this a model "
    "is converted that NeMo 1.x computes otherwise: biases, another activation, stretched positions.",
    fix="give a directory of a Nemotron or Llama 3 model with context/ and weights/",
)


@K6
def directories_are_complete(stage):
    path, tokenizer = (stage.get(f"inputs.{name}") for name in ("checkpoint", "tokenizer"))
    if stage.kind == "from_nemo2" and Path(path).exists():  # else I2
        try:
            nemo2.look(Path(path), Path(tokenizer) if tokenizer else None)
        except UserInputError as error:
            for problem in error.problems:
                yield "inputs.checkpoint", f"{problem.where} {problem.message}", problem.fix
