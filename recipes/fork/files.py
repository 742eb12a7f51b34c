"""Pipeline files as `align new` reads and writes them."""

from __future__ import annotations

import yaml

from recipes.pipeline import document, references
from recipes.pipeline.config import CONFIGS
from recipes.pipeline.layers import Layer, read

# What a model is like, whatever its size: a smoke model keeps these.
SHAPE = (
    "activation", "normalization", "layernorm_epsilon", "position_embedding_type", "rotary_percentage", "rotary_base",
    "bias", "share_embeddings_and_output_weights",
)  # fmt: skip


def text(header: list[str], data: dict) -> str:
    """A YAML file: a comment, then the data, small groups in one line."""
    lines = "\n".join(f"# {line}" for line in header)
    blocks = [
        yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=None if _groups(value) else False, width=110)
        for key, value in data.items()
    ]
    return f"{lines}\n\n{''.join(blocks)}"


def _groups(value) -> bool:
    return isinstance(value, dict) and any(isinstance(item, dict) for item in value.values())


def stages(written: Layer) -> dict[str, dict]:
    """The stages of a pipeline file that are written once (those of its rounds are not among them)."""
    return {name: config for name, config in written.section("stages").data.items() if isinstance(config, dict)}


def starts(stage: str, config: dict, stages) -> str | None:
    """What a stage begins from that no other stage of the pipeline trains: "???", a path, the name of an import."""
    init = (config.get("inputs") or {}).get("init")
    if not isinstance(init, str):
        return None
    pair = references.split(init, stages)
    if pair is None:
        return None if init.startswith("{") else init  # {previous}: of the round before
    return pair[0] if is_import(stages[pair[0]]) else None


def is_import(config: dict) -> bool:
    return str(config.get("kind", "")).startswith("from_")


def model_file(written: Layer) -> Layer:
    name = document.settings(written, Layer("", {}))["model"]
    return read(document.find(CONFIGS / "model", name)) if name else Layer("", {})


def template(written: Layer) -> str | None:
    """The chat template that the recipe's model file sets for all stages."""
    return model_file(written).section("all").data.get("template")
