"""From Hugging Face: a folder of safetensors becomes a NeMo checkpoint that every other stage can start from."""

from __future__ import annotations

from pathlib import Path

from data_prep.template import Template
from recipes.checkpoints import hf_folder
from recipes.stages import training


def main(cfg: dict, stage_dir: Path) -> dict:
    template = Template.load(cfg["template"]) if cfg["template"] else None
    folder = hf_folder.look(Path(cfg["inputs"]["checkpoint"]))
    hf_folder.refuse(folder, cfg["dtype"])

    config = training.load_engine(cfg)
    from recipes.engine.convert import from_hf

    return from_hf.convert(config, stage_dir, folder, template)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
