"""Every setting has a reader, and every reader that configs/readers.yaml names is there and reads it."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from recipes import cli
from recipes.pipeline import document, inheritance
from recipes.pipeline.assume import KEYS as ASSUMED
from recipes.pipeline.config import CONFIGS
from recipes.pipeline.layers import read
from recipes.pipeline.merge import dotted, leaves
from recipes.pipeline.readers import matching, readers, table

ROOT = CONFIGS.parent
ENGINE = ("nemo", "nemo_aligner", "megatron", "lightning")


@cache
def settings() -> list[tuple[str, str]]:
    """(kind, dotted key) of every leaf of the stage bases and of the cluster profile, and of a pipeline file."""
    found = [
        (p.stem, dotted(key)) for p in sorted((CONFIGS / "stage").glob("*.yaml")) for key, _ in leaves(read(p).data)
    ]
    found += [("cluster", dotted(key)) for key, _ in leaves(read(CONFIGS / "cluster/slurm.yaml").data)]
    found += [("pipeline", key) for key in document.PIPELINE_KEYS]
    found += [("pipeline", f"rounds.rpo.{key}") for key in ("count", "previous", "stages")]
    return found + [("pipeline", f"assume.dpo.{key}") for key in ASSUMED]


def source(name: str) -> str | None:
    """The text of a reader; None for one of the engine where that is not installed. FileNotFoundError if it is lost."""
    package = name.split("/")[0]
    if package not in ENGINE:
        return (ROOT / name).read_text(encoding="utf-8")
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    for folder in spec.submodule_search_locations:
        path = Path(folder).parent / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(name)


def check_readers(of_engine: bool) -> None:
    wrong = []
    for kind, key in settings():
        for reader in readers(kind, key):
            file, _, spelling = reader.partition("#")
            if (file.split("/")[0] in ENGINE) == of_engine:
                word = spelling or key.split(".")[-1]
                if not re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9_])", source(file)):
                    wrong.append(f"{file} does not mention {word}, of {kind}: {key}")
    assert not wrong


def test_every_setting_has_a_reader():
    assert not [f"{kind}: {key}" for kind, key in settings() if not readers(kind, key)]


def test_our_own_readers_name_what_they_read():
    check_readers(of_engine=False)


@pytest.mark.skipif(importlib.util.find_spec("nemo_aligner") is None, reason="the engine is not installed")
def test_readers_in_the_engine_name_what_they_read():
    check_readers(of_engine=True)


def test_no_pattern_is_left_over():
    used = {pattern for kind, key in settings() for pattern in matching(kind, key)}
    assert set(table()) == used


def test_explain_says_who_reads_a_setting(capsys):
    assert cli.main(["explain", "tiny", "dpo.trainer.dpo.save_interval"]) == 0
    assert "read by: nemo_aligner/algorithms/dpo.py" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("nemo_aligner") is None, reason="the engine is not installed")
def test_what_is_said_about_inherited_keys_is_about_keys_that_nemo_reads():
    """An entry of recipes/pipeline/inheritance.py that nothing reads would be a claim about another version."""
    megatron = [f"nemo/collections/nlp/models/language_modeling/megatron_{name}_model.py" for name in ("gpt", "base")]
    megatron += [f"megatron/core/{name}.py" for name in ("model_parallel_config", "transformer/transformer_config")]
    rest = ("nemo/collections/nlp/parts/megatron_trainer_builder.py", "nemo/utils/callbacks/dist_ckpt_io.py")
    text = "".join(map(source, (*megatron, *rest, "nemo/collections/nlp/parts/nlp_overrides.py")))
    tables = (inheritance.FIXED, inheritance.FIXED_INFERENCE, inheritance.DANGEROUS, inheritance.DANGEROUS_TRAINING)
    keys = {key for table in (*tables, inheritance.HARMLESS) for key in table}
    assert not [key for key in sorted(keys) if not re.search(rf"\b{key}\b", text)]
