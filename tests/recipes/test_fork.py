"""`align new`: an overlay with only what differs, from a recipe and a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from recipes import cli
from recipes.pipeline.config import compose
from tests.recipes import site


@pytest.mark.parametrize("recipe", [*site.RECIPES, "tiny"])
def test_a_fork_is_a_few_lines_and_its_smoke_run_is_sound(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "mine", "--from", recipe]) == 0
    own = Path("mine/mine.yaml").read_text()
    assert len(own.splitlines()) <= 30 and yaml.safe_load(own) == {"name": "mine", "from": recipe}
    assert cli.main(["check", "mine/smoke.yaml"]) == 0, capsys.readouterr()
    kinds = [stage.kind for stage in compose("mine/smoke.yaml").stages.values()]
    there = compose(recipe, site.inputs(recipe)).stages if recipe != "tiny" else compose("tiny").stages
    assert {s.kind for s in there.values()} - {"from_hf"} <= set(kinds)


def test_a_fork_of_a_hugging_face_folder_has_its_architecture_and_is_not_refused(at, tmp_path, capsys):
    at("llama3_8b")
    name = "mine_8b"
    assert cli.main(["new", name, "--from", "nemotron4_15b", "--checkpoint", "models/Meta-Llama-3-8B"]) == 0
    mine = compose(f"{name}/{name}.yaml")
    assert mine.architecture["hidden_size"] == 4096 and mine.architecture["activation"] == "fast-swiglu"
    assert mine.architecture["vocab_size"] == 128256
    assert [mine.stages[s].parents for s in ("code_sft", "reward")] == [["base"], ["base"]]
    assert mine.stages["base"].cfg["inputs"]["checkpoint"].endswith("models/Meta-Llama-3-8B")
    assert "has not the control tokens of the template nemotron" in capsys.readouterr().err
    # the recipe's template is Nemotron's, the tokenizer in the folder is Llama 3's: said before anything runs
    assert cli.main(["check", f"{name}/{name}.yaml"]) == 2
    assert "control token" in capsys.readouterr().out


def test_a_fork_of_a_nemo_directory_leaves_the_import_out(at, tmp_path):
    at("nemotron4_15b")
    assert cli.main(["new", "mine_15b", "--from", "llama3_8b", "--checkpoint", "models/Nemotron-4-15B-Base"]) == 0
    mine = compose("mine_15b/mine_15b.yaml")
    assert "base" not in mine.stages and mine.stages["reward"].cfg["inputs"]["init"].endswith("Nemotron-4-15B-Base")
    assert mine.architecture["ffn_hidden_size"] == 24576


def test_what_changes_in_the_recipe_reaches_the_fork(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("from: nemotron4_15b\nstages: {dpo: {model: {optim: {lr: 1.0e-6}}}}\n")
    assert cli.main(["new", "mine", "--from", "./recipe.yaml"]) == 0
    path, given = "mine/mine.yaml", site.inputs("nemotron4_15b")
    assert compose(path, given).stages["dpo"].cfg["model"]["optim"]["lr"] == 1.0e-6
    Path("recipe.yaml").write_text("from: nemotron4_15b\nstages: {dpo: {model: {optim: {lr: 2.0e-6}}}}\n")
    assert compose(path, given).stages["dpo"].cfg["model"]["optim"]["lr"] == 2.0e-6


def test_the_smoke_run_follows_what_the_fork_has_become(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "mine", "--from", "nemotron4_15b"]) == 0
    own = Path("mine/mine.yaml")
    own.write_text(own.read_text() + "stages:\n  code_sft: null\n  general_sft: {inputs: {init: models/base}}\n")
    assert cli.main(["new", "mine", "--smoke"]) == 0
    assert cli.main(["check", "mine/smoke.yaml"]) == 0, capsys.readouterr()
    stages = compose("mine/smoke.yaml").stages
    assert "code_sft" not in stages and stages["general_sft"].parents[0] == "smoke_base"


@pytest.mark.parametrize(
    "words, told",
    [
        (["mine", "--from", "nemotron4_16b"], "did you mean `nemotron4_15b`?"),
        (["a=b", "--from", "nemotron4_15b"], "letters, digits"),
        (["there", "--from", "nemotron4_15b"], "exists already"),
        (["mine", "--from", "nemotron4_15b", "--checkpoint", "nowhere"], "no such file"),
        (["mine", "--from", "nemotron4_15b", "--checkpoint", "gpt2"], "NemotronForCausalLM"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_left(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("gpt2").mkdir()
    Path("gpt2/config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    assert cli.main(["new", *words]) == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2", "there"]
