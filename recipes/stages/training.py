"""What the training stages share: their files are prepared and checked before the engine is imported."""

from __future__ import annotations

import json
import time
from pathlib import Path

from data_prep.pairs import expected_judge
from data_prep.prepare import Prepared, prepare
from data_prep.template import Template
from recipes.errors import Problem, UserInputError
from recipes.pipeline.artifacts import atomic_write_json
from recipes.pipeline.checks import external
from recipes.ranks import attempt, is_first_rank

PREPARED = "prepared.json"


def tokenizer_of(checkpoint: Path, stage_dir: Path) -> Path:
    """The SentencePiece model or tokenizer.json of a checkpoint; of a .nemo tar, extracted to the stage's data/."""
    if not checkpoint.exists():
        raise UserInputError(Problem("K1", str(checkpoint), "does not exist", "name a .nemo file or a NeMo directory"))
    known = external.checkpoint(checkpoint)
    if known.problem:
        raise UserInputError(Problem("K1", str(checkpoint), known.problem, known.fix))
    found = known.tokenizer(stage_dir / "data")
    if found is None:
        message = "holds no tokenizer: neither a SentencePiece model (*.model) nor tokenizer/tokenizer.json"
        raise UserInputError(Problem("K1", str(checkpoint), message, "name a complete checkpoint"))
    return found


def prepare_both(kind: str, cfg: dict, stage_dir: Path, template: Template | None, tokenizer: Path):
    """Prepare and check the train and validation files; rank 0 does it, the other ranks wait for it.

    Returns (train, validation) as dicts of data_prep.prepare.Prepared's fields. Raises UserInputError.
    """
    ready = stage_dir / "data" / PREPARED
    if not is_first_rank():
        return _wait_for(ready)
    ready.unlink(missing_ok=True)
    result = {}
    for name in ("train", "validation"):
        prepared = prepare(
            kind,
            Path(cfg["inputs"][name]),
            stage_dir / "data",
            name,
            template,
            tokenizer,
            cfg["model"]["encoder_seq_length"],
            judge=expected_judge(Path(cfg["inputs"][name])) if kind == "preference" else None,
            workers=cfg["resources"]["threads"],
            **cfg["data"],
        )
        _enough_rows(prepared, cfg, name)
        result[name] = {**vars(prepared), "attempt": attempt()}
    atomic_write_json(ready, result)
    return result["train"], result["validation"]


def _enough_rows(prepared: Prepared, cfg: dict, name: str) -> None:
    size = cfg["model"]["global_batch_size"]
    if prepared.rows < size:
        raise UserInputError(
            Problem(
                "C17",
                str(cfg["inputs"][name]),
                f"has {prepared.rows} usable rows, fewer than one global batch of {size}",
                f"give at least {size} rows or lower model.global_batch_size",
            )
        )


def _wait_for(ready: Path):
    """Ranks share a file system and the launcher's rendezvous, which tells this attempt from an earlier one."""
    while True:
        if ready.exists():
            result = json.loads(ready.read_text())
            if result["train"]["attempt"] == attempt():
                return result["train"], result["validation"]
        time.sleep(0.1)


def data_facts(train: dict, validation: dict) -> dict:
    """The part of a manifest's facts that describes the data."""
    keep = ("rows", "counts", "schema", "human_rows", "max_tokens", "sha256")
    return {"data": {"train": {k: train[k] for k in keep}, "validation": {k: validation[k] for k in keep}}}


def check_template(template: Template, checkpoint: Path) -> None:
    """Refuse a template that differs from the one the parent was trained with (known from the tokens it carries)."""
    import yaml

    path = checkpoint / "model_config.yaml"
    if not path.is_file():
        return
    tokens = ((yaml.safe_load(path.read_text()) or {}).get("data") or {}).get("chat_prompt_tokens")
    if tokens is not None and tokens != template.nemo_tokens():
        raise UserInputError(
            Problem(
                "C13",
                f"template: {template.name}",
                f"its tokens differ from those {checkpoint} was trained with: {tokens}",
                "use the parent's template in every later stage",
            )
        )


def load_engine(cfg: dict):
    """Import the engine and set this process up for the stage; returns the config as the engine takes it."""
    from recipes.engine import setup

    setup.load()
    config = as_config(cfg)
    setup.configure(config)
    return config


def as_config(cfg: dict):
    from omegaconf import OmegaConf

    return OmegaConf.create(cfg)
