"""Base: a language model from random weights, so that a chain can start where no checkpoint is at hand."""

from __future__ import annotations

from pathlib import Path

from data_prep.template import Template
from recipes.stages import training


def main(cfg: dict, stage_dir: Path) -> dict:
    tokenizer = _tokenizer(cfg, stage_dir)
    train, validation = training.prepare_both("text", cfg, stage_dir, None, tokenizer)

    config = training.load_engine(cfg)
    from recipes.engine import training as engine

    files = engine.Files(train["path"], validation["path"])
    facts = engine.train(config, stage_dir, files, None, engine.base(tokenizer))
    return facts | training.data_facts(train, validation)


def _tokenizer(cfg: dict, stage_dir: Path) -> Path:
    """The tokenizer the user named, or one trained on the training text (deterministic, seconds)."""
    if cfg["inputs"]["tokenizer"]:
        return Path(cfg["inputs"]["tokenizer"])
    from data_prep.tokenizer import train_tokenizer

    path = stage_dir / "data" / "tokenizer.model"
    if training.is_first_rank():
        template = Template.load(cfg["template"])
        train_tokenizer(Path(cfg["inputs"]["train"]), path, cfg["tokenizer"]["vocab_size"], cfg["seed"], template)
    return path


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
