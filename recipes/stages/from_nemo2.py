"""From NeMo 2.0: a directory with context/ and weights/ becomes a NeMo 1.x checkpoint that every stage starts from."""

from __future__ import annotations

from pathlib import Path

from data_prep.template import Template
from recipes.checkpoints import nemo2
from recipes.ranks import is_first_rank
from recipes.stages import training


def main(cfg: dict, stage_dir: Path) -> dict:
    if not is_first_rank():
        return {}  # it is the work of one process
    template = Template.load(cfg["template"]) if cfg["template"] else None
    tokenizer = cfg["inputs"]["tokenizer"]
    source = nemo2.look(Path(cfg["inputs"]["checkpoint"]), Path(tokenizer) if tokenizer else None)

    training.load_engine(cfg)
    from recipes.engine import nemo2 as engine

    return engine.convert(cfg, stage_dir, source, template)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
