"""A light run for tests about whole runs: real stages of the core under the real runner, in two seconds.

world -> code (a data set) -> own (another, with a file from outside) -> train -> leaf. The last two are engine stages
that fake_server.py plays; here they also prepare data, as training stages do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recipes.pipeline import runner
from recipes.pipeline.config import Pipeline, StageConfig, compose
from recipes.pipeline.graph import order

PIPELINE = """
name: light
seed: 7
stages:
  world: {kind: world, sizes: {corpus: 8000, code_sft: 300, general_sft: 100, human: 60, prompts: 20}}
  code: {kind: data, makes: sft, inputs: {code: world/code_sft.jsonl}, sources: {code: {}}, validation: {rows: 20}}
  own:
    kind: data
    makes: sft
    inputs: {code: code/train.jsonl, own: %s}
    sources: {code: {}, own: {}}
    validation: {rows: 20}
"""
# The fake engine with prepared data. NOISE stands for what no config knows and changes a result all the same.
ENGINE = """
import os, sys
sys.path.insert(0, {tests!r})
import fake_server
plain = fake_server.stage
def stage(stage_dir, cfg):
    for name in ("data/train.jsonl", "data/cache/shard", "data/index/train.idx", "nemo.yaml"):
        (stage_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (stage_dir / name).write_text("prepared\\n")
    (stage_dir / "data/empty.jsonl").touch()
    fake = {{**cfg["fake"], "text": cfg["fake"]["text"] + os.environ.get("NOISE", "")}}
    return plain(stage_dir, {{**cfg, "fake": fake}})
fake_server.stage = stage
fake_server.main()
"""
SERVER = [sys.executable, "-c", ENGINE.format(tests=str(Path(__file__).parent))]


def write_files(folder: Path) -> None:
    """light.yaml and the file from outside, own.jsonl."""
    rows = [[{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}"}] for i in range(50)]
    (folder / "own.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    (folder / "light.yaml").write_text(PIPELINE % (folder / "own.jsonl"))


def pipeline(folder: Path, overrides: list[str] = (), engine: bool = True) -> Pipeline:
    """The pipeline of `write_files`; engine: with the two stages of the fake engine."""
    made = compose(folder / "light.yaml", list(overrides))
    if engine:
        made.stages["train"] = _fake("train", "own/outputs/train.jsonl")
        made.stages["leaf"] = _fake("leaf", "train/outputs/out.txt")
    names = order({name: stage.parents for name, stage in made.stages.items()})
    made.stages = {name: made.stages[name] for name in names}
    return made


def _fake(name: str, reads: str) -> StageConfig:
    resources = {"nodes": 1, "devices": 1, "threads": 1}
    cfg = {"stage": name, "kind": "sft", "seed": 1, "inputs": {"init": f"../{reads}"}, "resources": resources}
    return StageConfig(name, "sft", {**cfg, "fake": {"text": name}}, [reads.partition("/")[0]])


def run(made: Pipeline, run_dir: Path) -> None:
    said: list[str] = []
    assert runner.run(made, run_dir, echo=said.append, server_command=SERVER) == 0, "\n".join(said)
