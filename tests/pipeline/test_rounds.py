"""Rounds: written once, run several times, each from the policy before; what is wrong in them is found and placed."""

from __future__ import annotations

import pytest

from recipes.errors import UserInputError
from recipes.pipeline.config import compose

PIPELINE = """\
name: chain
model: tiny_nemotron4
stages:
  world: {kind: world}
  reward: {kind: reward, inputs: {init: a.nemo, train: world/human.jsonl, validation: world/human_validation.jsonl}}
  start: {kind: sft, inputs: {init: a.nemo, train: chat.jsonl, validation: chat.jsonl}}
rounds:
  rpo:
    count: 2
    previous: start
    stages:
      generate:
        kind: generate
        inputs: {policy: "{previous}/model", prompts: "world/prompts_round{round}.jsonl"}
      score: {kind: score, inputs: {reward_model: reward/model, responses: "generate{round}/responses.jsonl"}}
      pairs: {kind: pairs, inputs: {scored: "score{round}/scored.jsonl"}}
      rpo:
        kind: preference
        inputs:
          init: "{previous}/model"
          train: "pairs{round}/pairs.jsonl"
          validation: "pairs{round}/pairs_validation.jsonl"
        model: {optim: {lr: 1.0e-5}}
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function: text of a pipeline, overrides -> the composed pipeline."""
    monkeypatch.chdir(tmp_path)

    def make(text: str = PIPELINE, *overrides: str):
        (tmp_path / "chain.yaml").write_text(text)
        return compose("chain.yaml", list(overrides))

    return make


def test_each_round_starts_from_the_policy_of_the_one_before(made):
    stages = made().stages
    assert [name for name in stages if name[-1].isdigit()] == [
        "generate1", "score1", "pairs1", "rpo1", "generate2", "score2", "pairs2", "rpo2",
    ]  # fmt: skip
    assert stages["generate1"].cfg["inputs"]["policy"] == stages["rpo1"].cfg["inputs"]["init"]
    assert stages["generate1"].cfg["inputs"]["policy"] == "../start/outputs/model"
    assert stages["generate2"].cfg["inputs"]["policy"] == stages["rpo2"].cfg["inputs"]["init"]
    assert stages["rpo2"].cfg["inputs"]["init"] == "../rpo1/outputs/model"
    assert stages["generate2"].cfg["inputs"]["prompts"] == "../world/outputs/prompts_round2.jsonl"
    assert stages["score2"].parents == ["reward", "generate2"]


def test_one_round_can_be_changed_and_every_setting_knows_its_line(made):
    stages = made(PIPELINE, "stages.rpo2.model.optim.lr=2e-5").stages
    assert stages["rpo1"].origin("model.optim.lr") == (1e-5, "chain.yaml:23")
    assert stages["rpo2"].origin("model.optim.lr") == (2e-5, "command line")
    assert "rpo2" not in made(PIPELINE, "rounds.rpo.count=1").stages


def test_weak_to_strong_each_round_trains_a_base_of_its_own_on_data_of_the_policy_before(made):
    strong = PIPELINE.replace("count: 2", "each: [{base: small.nemo}, {base: large.nemo}]")
    stages = made(strong.replace('init: "{previous}/model"', 'init: "{base}"')).stages
    assert [stages[f"rpo{k}"].cfg["inputs"]["init"].rpartition("/")[2] for k in (1, 2)] == ["small.nemo", "large.nemo"]
    assert stages["generate2"].cfg["inputs"]["policy"] == "../rpo1/outputs/model"


BAD = {
    "no count": (("count: 2", "count: none"), "chain.yaml:9: `rounds.rpo` has count 'none'"),
    "a misspelt key": (("previous: start", "previos: start"), "chain.yaml:10: unknown key `rounds.rpo.previos`"),
    "a misspelt place": (("score{round}/", "score{rond}/"), "chain.yaml:16: `score{rond}/scored.jsonl` names {rond}"),
    "no policy": (("      rpo:\n", "      train:\n"), "does not say which stage makes the policy"),
    "a name that is taken": (("world: {kind: world}", "rpo1: {kind: world}"), "stage rpo1 exists already"),
    "a key no kind has": (("lr: 1.0e-5", "lrr: 1.0e-5"), "chain.yaml:23 (stage rpo1): unknown key `model.optim.lrr`"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_what_is_wrong_is_named_with_its_line(made, change, message):
    with pytest.raises(UserInputError) as caught:
        made(PIPELINE.replace(*change))
    assert message in str(caught.value)


def test_the_command_line_changes_every_round_and_a_single_stage_again(made):
    rounds, single = "rounds.rpo.stages.rpo.model.optim.lr=0.5", "stages.rpo2.model.optim.lr=0.25"
    stages = made(PIPELINE, rounds, single).stages
    assert [stages[f"rpo{n}"].cfg["model"]["optim"]["lr"] for n in (1, 2)] == [0.5, 0.25]
    assert stages["rpo1"].origin("model.optim.lr") == (0.5, "command line")


@pytest.mark.parametrize("override", ["stages.start=null", "stages=null", "rounds=null", "rounds.rpo=null"])
def test_the_command_line_cannot_leave_a_stage_out(made, override):
    with pytest.raises(UserInputError, match="cannot be left out here"):
        made(PIPELINE, override)


def test_a_slip_in_the_name_of_a_stage_of_rounds_is_told_once(made):
    with pytest.raises(UserInputError, match="did you mean `rpo`") as caught:
        made(PIPELINE, "rounds.rpo.stages.rop.model.optim.lr=0.5")
    assert len(caught.value.problems) == 1
