"""Pipelines made from others, layouts, and what a pipeline assumes of its data."""

from __future__ import annotations

import pytest

from recipes.errors import UserInputError
from recipes.pipeline.config import compose

OPEN = ["stages.code_sft.inputs.init=a.nemo", "stages.reward.inputs.init=a.nemo"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a pipeline file into an empty working directory; its path."""
    monkeypatch.chdir(tmp_path)

    def text_to(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return name

    return text_to


def problems(*arguments) -> list[str]:
    with pytest.raises(UserInputError) as caught:
        compose(*arguments)
    return [f"{p.where} {p.message} {p.fix}" for p in caught.value.problems]


def test_a_file_made_from_another_holds_only_what_differs(write):
    path = write("mine.yaml", "from: nemotron4_340b\nstages:\n  dpo: {model: {optim: {lr: 2.0e-7}}}\n")
    theirs, mine = compose("nemotron4_340b", OPEN), compose(path, OPEN)
    assert mine.name == "mine" and list(mine.stages) == list(theirs.stages)
    assert {n for n in mine.stages if mine.stages[n].cfg != theirs.stages[n].cfg} == {"dpo"}
    assert mine.stages["dpo"].origin("model.optim.lr") == (2.0e-7, "mine.yaml:3")
    assert mine.stages["dpo"].origin("model.dpo.ref_policy_kl_penalty")[1].startswith("/")  # not of this folder
    assert mine.assumed == theirs.assumed and mine.architecture == theirs.architecture


def test_rounds_are_changed_where_they_are_written_once(write):
    path = write("mine.yaml", "from: nemotron4_340b\nrounds: {rpo: {count: 2, stages: {rpo: {model: {global_batch_size: 512}}}}}\n")  # fmt: skip  # noqa: E501
    mine = compose(path, OPEN)
    assert [mine.stages[f"rpo{n}"].cfg["model"]["global_batch_size"] for n in (1, 2)] == [512, 512]
    assert "rpo3" not in mine.stages


def test_a_stage_that_is_null_is_left_out(write):
    path = write(
        "mine.yaml", "from: nemotron4_340b\nstages:\n  code_sft: null\n  general_sft: {inputs: {init: b.nemo}}\n"
    )
    mine = compose(path, OPEN[1:])
    assert "code_sft" not in mine.stages and mine.stages["general_sft"].parents == []


def test_paths_with_a_dot_are_relative_to_the_file(write, tmp_path):
    write("mine/mine.yaml", "from: nemotron4_15b\nlayout: [gpu, ./eight.yaml]\n")
    write("mine/eight.yaml", "sft: {resources: {devices: 8}, model: {tensor_model_parallel_size: 2}}\n")
    other = write("other/other.yaml", "from: ../mine/mine.yaml\n")
    mine = compose(other, OPEN)
    assert mine.stages["code_sft"].origin("model.tensor_model_parallel_size") == (2, "mine/eight.yaml:1")


def test_a_pipeline_that_is_made_from_itself_is_refused(write):
    write("a.yaml", "from: ./b.yaml\n")
    write("b.yaml", "from: ./a.yaml\n")
    assert ["made from itself" in text for text in problems("a.yaml")] == [True]


def test_a_stage_that_the_other_does_not_have_is_refused_with_a_suggestion(write):
    path = write("mine.yaml", "from: nemotron4_340b\nstages:\n  dop: {model: {optim: {lr: 2.0e-7}}}\n")
    assert any("mine.yaml:3 stage dop has no kind" in text and "`dpo`" in text for text in problems(path, OPEN))


def test_later_layouts_win_over_earlier_ones_and_the_cluster_over_both(write):
    layouts = "layout=[gpu,nemotron4_340b_192,nemotron4_340b_768]"
    assert compose("nemotron4_340b", [*OPEN, layouts]).stages["dpo"].cfg["resources"]["nodes"] == 96
    cluster = write("site.yaml", "slurm: {}\nall: {resources: {gpu: A100}}\npreference: {resources: {nodes: 48}}\n")
    mine = compose("nemotron4_340b", OPEN, cluster=cluster).stages["dpo"].cfg["resources"]
    assert (mine["nodes"], mine["gpu"]) == (48, "A100")


def test_a_layout_that_does_not_exist_is_refused_with_a_suggestion():
    (told,) = problems("nemotron4_340b", [*OPEN, "layout=[gpu,nemotron4_340b_193]"])
    assert "no layout of this name" in told and "nemotron4_340b_192" in told


def test_what_is_assumed_reaches_every_round_and_the_command_line_wins():
    mine = compose("nemotron4_340b", [*OPEN, "assume.rpo.rows=1000", "assume.rpo2.tokens=900"])
    assert mine.assumed["rpo1"] == {"rows": 1000} and mine.assumed["rpo2"] == {"rows": 1000, "tokens": 900}


@pytest.mark.parametrize(
    "override, told",
    [
        ("assume.rpo.row=1", "did you mean `rows`?"),
        ("assume.rpo.rows=0", "a whole number above 0"),
        ("assume.dop.rows=1", "did you mean `dpo`?"),
    ],
)
def test_assumptions_are_checked(override, told):
    assert any(told in text for text in problems("nemotron4_340b", [*OPEN, override]))
