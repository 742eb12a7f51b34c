"""A NeMo 1.x checkpoint directory that is to be exported: its config, template and tokenizer, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from data_prep.template import TEMPLATE_DIR, Template
from recipes.checkpoints.architecture import Architecture, nemo_trouble, read_nemo
from recipes.errors import Problem, UserInputError

CONFIG, WEIGHTS = "model_config.yaml", "model_weights"
_ZARR = "convert it with NeMo's scripts/checkpoint_converters/convert_zarr_to_torch_dist.py"


@dataclass(frozen=True)
class NemoFolder:
    """A directory with model_config.yaml and model_weights/ in torch_dist."""

    path: Path
    config: dict

    @classmethod
    def open(cls, path: Path) -> NemoFolder:
        """Raises UserInputError (K4) with all that is wrong with it."""
        if not (path / CONFIG).is_file():
            what = "is a .nemo archive" if path.suffix == ".nemo" and path.is_file() else f"has no {CONFIG}"
            fix = f"extract it (mkdir model && tar -xf {path.name} -C model) and name the directory"
            raise UserInputError(Problem("K4", str(path), what, fix))
        config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UserInputError(Problem("K4", str(path / CONFIG), "does not hold a mapping", "copy the file again"))
        folder = cls(path, config)
        problems = [*folder._weights_trouble()]
        problems += [(f"{CONFIG}: {key}", what, fix) for key, what, fix in nemo_trouble(config)]
        if folder.library not in ("sentencepiece", "huggingface"):
            fix = "only SentencePiece and Hugging Face tokenizers are exported"
            problems.append((f"{CONFIG}: tokenizer.library", f"is {folder.library!r}", fix))
        if problems:
            raise UserInputError([Problem("K4", f"{path}: {where}", what, fix) for where, what, fix in problems])
        return folder

    def _weights_trouble(self):
        described = self.path / WEIGHTS / "metadata.json"
        if not (self.path / WEIGHTS).is_dir():
            yield WEIGHTS, "is not there", "name a complete checkpoint"
        elif described.is_file() and (kind := json.loads(described.read_text()).get("sharded_backend")) != "torch_dist":
            yield WEIGHTS, f"is of the format {kind}", _ZARR
        elif not (self.path / WEIGHTS / ".metadata").is_file():
            yield WEIGHTS, "has no .metadata: it is cut off or not in the format torch_dist", _ZARR

    @property
    def library(self) -> str:
        return (self.config.get("tokenizer") or {}).get("library")

    def architecture(self, vocab: int) -> Architecture:
        return read_nemo(self.config, vocab)[0]

    @property
    def tokens(self) -> dict | None:
        """NeMo's data.chat_prompt_tokens, where the model was trained with a template."""
        return (self.config.get("data") or {}).get("chat_prompt_tokens")

    @cached_property
    def template(self) -> Template | None:
        """The template of this project that has these tokens."""
        found = (Template.load(path.stem) for path in sorted(TEMPLATE_DIR.glob("*.jinja")))
        return next((t for t in found if t.nemo_tokens() == self.tokens), None) if self.tokens else None

    @property
    def stop(self) -> str | None:
        """The token that ends a turn: the template's, else end_of_turn, or turn_start where that is only a new line."""
        if self.template is not None:
            return self.template.stop
        return (self.tokens["end_of_turn"].strip() or self.tokens["turn_start"]) if self.tokens else None
