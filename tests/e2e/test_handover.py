"""What one stage hands to the next: a model directory or a .nemo tar, and the same generations in any layout."""

from __future__ import annotations

import json

import pytest

from tests.e2e.stages import derive, log, metrics
from tests.e2e.test_parity import LAYOUTS, five_steps


def responses(stage_dir) -> list[str]:
    rows = (stage_dir / "outputs" / "responses.jsonl").read_text().splitlines()
    return [response["text"] for row in map(json.loads, rows) for response in row["responses"]]


def test_a_nemo_tar_is_as_good_a_parent_as_the_directory(tiny_run, engine, tmp_path):
    parent = derive(tiny_run / "general_sft", tmp_path / "parent", *five_steps("general_sft"), "export_nemo=true")
    assert engine.run(parent) == 0, log(parent)[-3000:]
    losses = []
    for name in ("model", "model.nemo"):
        child = derive(tiny_run / "dpo", tmp_path / f"from_{name}", *five_steps("dpo"))
        derive(child, child, f"inputs.init={parent / 'outputs' / name}")
        assert engine.run(child) == 0, log(child)[-3000:]
        losses.append([row["loss"] for row in metrics(child)])
    assert losses[0] == losses[1]
    assert losses[0][0] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_answers_do_not_depend_on_the_layout(tiny_run, engine, tmp_path, layout):
    greedy = ["greedy=true", "responses_per_prompt=1"]
    one = derive(tiny_run / "generate0", tmp_path / "one", *greedy)
    two = derive(tiny_run / "generate0", tmp_path / "two", *greedy, *LAYOUTS[layout])
    assert engine.run(one) == 0, log(one)[-3000:]
    assert engine.run(two) == 0, log(two)[-3000:]
    same = [a == b for a, b in zip(responses(one), responses(two), strict=True)]
    # Two logits that are equal up to the last bit may be ordered otherwise; that is rare.
    assert sum(same) / len(same) >= 0.99


def test_samples_depend_on_the_seed_only(tiny_run, engine, tmp_path):
    runs = [derive(tiny_run / "generate0", tmp_path / str(n)) for n in range(2)]
    runs.append(derive(tiny_run / "generate0", tmp_path / "other", "seed=77"))
    assert [engine.run(directory) for directory in runs] == [0, 0, 0]
    first, again, other = map(responses, runs)
    assert first == again == responses(tiny_run / "generate0")
    assert first != other


def test_cached_generation_is_what_the_model_predicts(tiny_run, engine, tmp_path):
    """Greedy decoding with a key-value cache against one uncached forward pass over prompt and answer."""
    check = """
import json, sys
from pathlib import Path
from recipes.engine import setup
setup.load()
import torch
from omegaconf import OmegaConf
from nemo.collections.nlp.modules.common.megatron.utils import get_ltor_masks_and_position_ids
from data_prep.template import Template
from recipes.engine import inference
cfg = OmegaConf.load(sys.argv[1])
setup.configure(cfg)
model = inference.load_policy(cfg, inference.create_trainer(cfg), Path(cfg.inputs.policy))
template = Template.load("nemotron")
rows = [json.loads(l) for l in open(cfg.inputs.prompts)][:16]
prompts = [template.prompt(row["messages"]) for row in rows]
agree = total = 0
with inference.inference_mode(model):
    answers = inference.generate(model, prompts, inference.Sampling(24, greedy=True), template.stop, 0, 0)
    for prompt, answer in zip(prompts, answers):
        start = len(model.tokenizer.text_to_ids(prompt))
        ids = torch.tensor([model.tokenizer.text_to_ids(prompt + answer["text"] + "\\n" + template.stop)])
        mask, _, positions = get_ltor_masks_and_position_ids(ids, model.tokenizer.eos_id, False, False, False)
        logits = model.model(ids, positions, mask)
        predicted = logits[0, start - 1 : -1].argmax(-1)
        agree += (predicted == ids[0, start:]).sum().item()
        total += ids.shape[1] - start
print("AGREE", agree, total)
"""
    import subprocess
    import sys

    stage = derive(tiny_run / "generate0", tmp_path / "cached")
    command = [sys.executable, "-c", check, str(stage / "config.yaml")]
    out = subprocess.run(command, text=True, capture_output=True, cwd=tmp_path, env=_with_repository()).stdout
    agree, total = map(int, out.split("AGREE")[1].split())
    assert total > 100 and agree / total >= 0.99


def _with_repository() -> dict:
    import os

    from tests.e2e.conftest import ROOT

    return {**os.environ, "PYTHONPATH": str(ROOT)}
