"""SFT: supervised fine-tuning on conversations with NeMo-Aligner's SupervisedTrainer and GPTSFTModel."""

from __future__ import annotations

from pathlib import Path

from data_prep.template import Template
from recipes.stages import training


def main(cfg: dict, stage_dir: Path) -> dict:
    template, init = Template.load(cfg["template"]), Path(cfg["inputs"]["init"])
    training.check_template(template, init)
    tokenizer = training.tokenizer_of(init, stage_dir)
    train, validation = training.prepare_both("sft", cfg, stage_dir, template, tokenizer)

    config = training.load_engine(cfg)
    from recipes.engine import training as engine

    files = engine.Files(train["path"], validation["path"])
    return engine.train(config, stage_dir, files, template, engine.SFT) | training.data_facts(train, validation)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
