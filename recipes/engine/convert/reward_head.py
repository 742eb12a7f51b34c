"""A regression reward model's head, as Hugging Face's models for sequence classification have it."""

from __future__ import annotations

from data_prep.template import Template
from recipes.checkpoints import tensors
from recipes.checkpoints.architecture import CLASS_NAMES, Architecture
from recipes.checkpoints.nemo_folder import NemoFolder
from recipes.engine.convert.torch_dist import Reader
from recipes.engine.scoring import SLOTS
from recipes.errors import Problem, UserInputError

FILE = "reward_head.json"


def describe(reader: Reader, source: NemoFolder, weights: list[float] | None) -> dict:
    """What Hugging Face's `score` layer has no place for; also written beside the weights."""
    bias = f"{tensors.PREFIX}{tensors.HEAD}.bias"
    if bias not in reader.tensors:
        raise UserInputError(Problem("K4", str(source.path), f"{bias} is missing", "name a complete checkpoint"))
    count = reader.tensors[bias].size[0]
    names = list(SLOTS) if count == len(SLOTS) else [f"attribute_{n}" for n in range(count)]
    last = _last_mark(source.template)
    return {
        "attributes": names,
        "bias": reader.read(bias).double().tolist(),
        "scalar_reward_weights": weights,
        "read_at": f"the last token of the text{', ' + last if last else ''}",
        "reward": "weights . (score(hidden state of that token) + bias)",
    }


def _last_mark(template: Template | None) -> str:
    """The token at which a text that is scored ends, where the template is known."""
    tokens = template.nemo_tokens() if template else {}
    return tokens.get("label_start") or tokens.get("end_of_turn", "").strip()


def config(arch: Architecture, head: dict) -> dict:
    """What config.json of a model for sequence classification has besides that of a language model."""
    names = dict(enumerate(head["attributes"]))
    return {
        "architectures": [f"{CLASS_NAMES[arch.family]}ForSequenceClassification"],
        "num_labels": len(names),
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
        "problem_type": "regression",
        "tie_word_embeddings": False,
        "reward_bias": head["bias"],
        "reward_read_at": head["read_at"],
        "reward_weights": head["scalar_reward_weights"],
    }
