"""Composition: the order of merging, what is refused, references, provenance."""

from pathlib import Path

import pytest

from recipes.errors import UserInputError
from recipes.pipeline import document, layers
from recipes.pipeline.artifacts import config_text
from recipes.pipeline.config import CONFIGS, compose, from_run
from recipes.pipeline.merge import leaves
from recipes.stages import KINDS

BASE = """\
kind: train
seed: 1
resources: {nodes: 1, devices: 1, threads: 1}
inputs:
  init: ???
  train: null
  extra: []
trainer:
  max_steps: 100
  precision: 32
model:
  length: 64
  optim: {lr: 1e-3, betas: [0.9, 0.98], name: adam}
  flag: false
  limit: null
  data:
    length: ${model.length}
tags: {}
"""
OTHER = """\
kind: other
seed: 1
resources: {nodes: 1, devices: 1, threads: 1}
inputs:
  policy: null
top_k: 0
model: {flag: false}
"""
PIPELINE = """\
name: demo
seed: 7
stages:
  second: {kind: train, inputs: {init: first/model}}
  first:
    kind: train
    inputs: {init: start}
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that writes config files into an empty working directory and composes the pipeline there."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("stage/train.yaml", BASE)
    write("stage/other.yaml", OTHER)
    write("pipeline/demo.yaml", PIPELINE)

    def build(*overrides, **files):
        for name, text in files.items():
            write(name.replace("__", "/") + ".yaml", text)
        return compose("demo", list(overrides), configs=Path("configs"))

    return build


def refused(build, *overrides, **files):
    with pytest.raises(UserInputError) as caught:
        build(*overrides, **files)
    return str(caught.value)


def pipeline_with(stage="", top=""):
    return f"name: demo\n{top}stages:\n  first: {{kind: train, inputs: {{init: start}}{stage}}}\n"


# -- merging -----------------------------------------------------------------------------------------


def test_a_stage_has_the_head_first_and_the_values_of_its_base(tree):
    cfg = tree().stages["first"].cfg
    assert list(cfg)[:5] == ["stage", "kind", "seed", "inputs", "resources"]
    assert cfg["stage"] == "first" and cfg["kind"] == "train"
    assert cfg["model"]["optim"] == {"lr": 1e-3, "betas": [0.9, 0.98], "name": "adam"}


def test_later_layers_win(tree):
    def overlay(value):
        return f"all: {{trainer: {{max_steps: {value}}}}}\ntrain: {{trainer: {{max_steps: {value + 1}}}}}\n"

    def steps(pipeline):
        return pipeline.stages["first"].cfg["trainer"]["max_steps"]

    files = {"model__m": "all: {trainer: {max_steps: 1}}\n", "cluster__c": "{}"}
    top = "model: m\ncluster: c\n"
    assert steps(tree(**files, pipeline__demo=pipeline_with(top=top))) == 1
    files["model__m"] = overlay(1)
    assert steps(tree(**files, pipeline__demo=pipeline_with(top=top))) == 2
    files["cluster__c"] = overlay(3)
    assert steps(tree(**files, pipeline__demo=pipeline_with(top=top))) == 4
    top += "all: {trainer: {max_steps: 5}}\n"
    assert steps(tree(**files, pipeline__demo=pipeline_with(top=top))) == 5
    text = pipeline_with(", trainer: {max_steps: 6}", top)
    assert steps(tree(**files, pipeline__demo=text)) == 6
    assert steps(tree("stages.first.trainer.max_steps=7", **files, pipeline__demo=text)) == 7


def test_lists_are_replaced_and_open_mappings_grow(tree):
    pipeline = tree("stages.first.model.optim.betas=[0.5]", "stages.first.tags={a: {b: 1}}", "stages.first.tags.a.c=2")
    cfg = pipeline.stages["first"].cfg
    assert cfg["model"]["optim"]["betas"] == [0.5]
    assert cfg["tags"] == {"a": {"b": 1, "c": 2}}
    assert pipeline.stages["second"].cfg["tags"] == {}


def test_all_reaches_the_kinds_that_have_the_key(tree):
    both = pipeline_with(top="all: {top_k: 3, model: {flag: true, length: 8}}\n") + "  gen: {kind: other}\n"
    pipeline = tree(pipeline__demo=both)
    assert pipeline.stages["gen"].cfg["top_k"] == 3 and pipeline.stages["gen"].cfg["model"] == {"flag": True}
    assert "top_k" not in pipeline.stages["first"].cfg and pipeline.stages["first"].cfg["model"]["length"] == 8


@pytest.mark.parametrize(
    "overrides, seeds", [([], (7, 7)), (["seed=2"], (2, 2)), (["seed=2", "stages.first.seed=3"], (3, 2))]
)
def test_the_seed_of_the_pipeline_reaches_stages_without_their_own(tree, overrides, seeds):
    pipeline = tree(*overrides)
    assert (pipeline.stages["first"].cfg["seed"], pipeline.stages["second"].cfg["seed"]) == seeds


def test_interpolations_are_resolved_in_the_config_of_the_stage(tree):
    pipeline = tree("stages.first.model.length=8", "stages.second.model.data.length=9")
    assert pipeline.stages["first"].cfg["model"]["data"]["length"] == 8
    assert pipeline.stages["second"].cfg["model"]["data"]["length"] == 9


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override, key, hint",
    [
        ("stages.first.model.optim.lrr=1", "model.optim.lrr", "`model.optim.lr`"),
        ("+stages.first.model.optim.lrr=1", "model.optim.lrr", "`model.optim.lr`"),
        ("++stages.first.modle.length=1", "modle", "`model`"),
        ("stages.first.optim.lr=1", "optim", "`model.optim`"),
        ("stages.first.length=1", "length", "`model.length`"),
        ("all.model.lenght=1", "model.lenght", "`model.length`"),
        ("sede=1", "sede", "`seed`"),
        ("first.seed=1", "first", "`stages.first.`"),
        ("stages.frist.seed=1", "frist", "`first`"),
    ],
)
def test_unknown_keys_are_refused_with_a_suggestion(tree, override, key, hint):
    text = refused(tree, override)
    assert f"`{key}`" in text and hint in text and "command line" in text


def test_an_unknown_key_in_a_file_is_named_with_its_line(tree):
    text = refused(tree, pipeline__demo=PIPELINE + "    modell: {length: 3}\n")
    assert "configs/pipeline/demo.yaml:8 (stage first)" in text and "`model`" in text


def test_unknown_keys_of_overlays_are_refused(tree):
    text = refused(tree, model__m="alle: {}\nall: {trainer: {max_step: 1}}\n", pipeline__demo="model: m\n" + PIPELINE)
    assert "configs/model/m.yaml:1: no kind of stage takes `alle`" in text and "`all`" in text
    assert "configs/model/m.yaml:2" in text and "`trainer.max_steps`" in text


def test_all_problems_are_told_at_once(tree):
    text = refused(tree, "stages.first.model.lenth=1", "stages.second.trainer.max_step=1", "all.tagz=1")
    assert text.count("fix:") == 3


@pytest.mark.parametrize(
    "override, takes",
    [
        ("trainer.max_steps=1.5", "a whole number"),
        ("trainer.max_steps=true", "a whole number"),
        ("trainer.max_steps=null", "a whole number"),
        ("trainer.max_steps='3'", "a whole number"),
        ("model.optim.lr=fast", "a number"),
        ("model.optim.lr=true", "a number"),
        ("model.optim.name=3", "text"),
        ("model.optim.betas=0.9", "a list"),
        ("model.flag=1", "true or false"),
        ("model.data.length=long", "a whole number"),
        ("model.data.length=${model.optim.name}", "a whole number"),
        ("model.optim=3", "group of settings"),
        ("model.length={a: 1}", "a whole number"),
        ("trainer.precision=1.5", "precision"),
    ],
)
def test_wrong_types_are_refused(tree, override, takes):
    assert takes in refused(tree, f"stages.first.{override}")


@pytest.mark.parametrize(
    "override", ["model.optim.lr=1", "model.limit=3", "model.limit=x", "trainer.precision=bf16", "model.limit=[1]"]
)
def test_right_types_are_taken(tree, override):
    tree(f"stages.first.{override}")


@pytest.mark.parametrize("value", ["???", "null"])
def test_what_must_be_set_is_named(tree, value):
    text = refused(tree, f"stages.first.inputs.init={value}")
    assert "`inputs.init` must be set" in text and "set stages.first.inputs.init" in text


def test_an_interpolation_that_leads_nowhere_is_named(tree):
    text = refused(tree, "stages.first.model.length=${model.nothing}")
    assert "`model.length`" in text or "`model.data.length`" in text
    assert "model.nothing" in text


@pytest.mark.parametrize(
    "files, hint",
    [
        ({"pipeline__demo": PIPELINE.replace("kind: train", "kind: trian")}, "did you mean `train`?"),
        ({"pipeline__demo": "name: demo\n"}, "no stages"),
        ({"pipeline__demo": PIPELINE.replace("first:", "report:")}, "another folder"),
        ({"pipeline__demo": PIPELINE.replace("first:", "a=b:")}, "cannot be a folder's name"),
        ({"pipeline__demo": PIPELINE.replace("name: demo", "name: a/b")}, "`name` is 'a/b'"),
        ({"pipeline__demo": PIPELINE.replace("seed: 7", "seed: x")}, "`seed` is 'x'"),
        ({"pipeline__demo": PIPELINE + "model: n\n", "model__nn": "{}"}, "did you mean `nn`?"),
        ({"pipeline__demo": PIPELINE + "    stage: other\n"}, "`stage` of stage first cannot be 'other'"),
        ({"pipeline__demo": "name: [\n"}, "demo.yaml:2: not valid YAML"),
        ({"pipeline__demo": "name: demo\nname: demo\n"}, "demo.yaml:2: the key `name` stands twice"),
        ({"pipeline__demo": "- a\n"}, "not a mapping"),
        ({"pipeline__demo": "stages: 3\n"}, "`stages` must be a mapping"),
    ],
)
def test_a_bad_pipeline_file_is_refused(tree, files, hint):
    assert hint in refused(tree, **files)


@pytest.mark.parametrize("override", ["~seed", "seed=1,2", "seed@a=1", "seed", "seed=[1", "stages.first.kind=other"])
def test_bad_overrides_are_refused(tree, override):
    assert "command line" in refused(tree, override)


def test_an_unknown_pipeline_is_refused_with_a_suggestion(tree):
    with pytest.raises(UserInputError, match="did you mean `demo`"):
        compose("dmeo", configs=Path("configs"))
    with pytest.raises(UserInputError, match="no such file"):
        compose("configs/pipeline/dmeo.yaml", configs=Path("configs"))
    assert compose("configs/pipeline/demo.yaml", configs=Path("configs")).name == "demo"


# -- references --------------------------------------------------------------------------------------


def test_references_to_stages_are_relative_and_paths_absolute(tree, tmp_path):
    pipeline = tree("stages.second.inputs.train=data/x.jsonl", "stages.second.inputs.extra=[first/a.jsonl,/b.jsonl]")
    second = pipeline.stages["second"]
    assert second.cfg["inputs"] == {
        "init": "../first/outputs/model",
        "train": str(tmp_path / "data/x.jsonl"),
        "extra": ["../first/outputs/a.jsonl", "/b.jsonl"],
    }
    assert second.parents == ["first"] and list(pipeline.stages) == ["first", "second"]


@pytest.mark.parametrize(
    "override, hint",
    [
        ("inputs.init=first", "names a stage but none of its outputs"),
        ("inputs.init=first/outputs/model", "write first/model"),
        ("inputs.init=first/../second/model", "must be relative to the outputs"),
        ("inputs.init=[a,b]", "one reference, not a list"),
        ("inputs.train=[a,b]", "one reference, not a list"),
        ("inputs.train=3", "not a reference"),
        ("inputs.extra=[1]", "not a reference"),
        ("inputs.extra=[first/model,2]", "not a reference"),
    ],
)
def test_bad_references_are_refused(tree, override, hint):
    assert hint in refused(tree, f"stages.second.{override}")


def test_a_circle_is_named(tree):
    assert "second -> first -> second" in refused(tree, "stages.first.inputs.init=second/model")


# -- where values come from --------------------------------------------------------------------------


def test_every_leaf_says_where_it_was_set(tree):
    stage = tree("stages.first.model.length=8").stages["first"]
    assert stage.origin("seed") == (7, "configs/pipeline/demo.yaml:2")
    assert stage.origin("model.optim.lr") == (1e-3, "configs/stage/train.yaml:13")
    assert stage.origin("model.length") == (8, "command line")
    assert stage.origin("inputs.init") == ("start", "configs/pipeline/demo.yaml:7")
    with pytest.raises(UserInputError, match="model.optim.lr"):
        stage.origin("optim.lr")
    with pytest.raises(UserInputError):
        stage.explain("nothing")
    below = {entry["key"]: entry for entry in stage.explain("model")}
    assert below["model.data.length"]["value"] == 8
    assert below["model.data.length"]["history"] == [
        {"value": "${model.length}", "where": "configs/stage/train.yaml:17"}
    ]
    assert [step["value"] for step in below["model.length"]["history"]] == [64, 8]


def test_a_replaced_group_leaves_no_old_keys_behind(tree):
    stage = tree("stages.first.tags={a: {b: 1}}", "all.tags={a: 2}").stages["first"]
    assert [entry["key"] for entry in stage.explain("tags")] == ["tags.a.b"]
    assert stage.cfg["tags"] == {"a": {"b": 1}}


def test_a_run_gives_its_pipeline_back(tree, tmp_path):
    pipeline = tree("stages.second.inputs.extra=[first/a.jsonl]")
    (tmp_path / "pipeline.yaml").write_text(config_text(pipeline.to_dict()))
    again = from_run(tmp_path)
    assert again.to_dict() == pipeline.to_dict() and again.parents == pipeline.parents
    assert list(again.stages) == list(pipeline.stages)


# -- YAML --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-7", 1e-7),
        ("1.5e3", 1500.0),
        ("-3", -3),
        ("04:00:00", "04:00:00"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        (".inf", float("inf")),
        ("12_000", 12000),
        ("'1e-7'", "1e-7"),
    ],
)
def test_numbers_are_what_they_look_like(tmp_path, text, value):
    (tmp_path / "a.yaml").write_text(f"key: {text}\n")
    read = layers.read(tmp_path / "a.yaml").data["key"]
    assert read == value and type(read) is type(value)


# -- the configs of this repository ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_base_with_the_common_keys(kind):
    base = layers.read(CONFIGS / "stage" / f"{kind}.yaml").data
    assert base["kind"] == kind
    assert {"seed", "inputs", "resources"} <= set(base)


@pytest.mark.parametrize("path", sorted((CONFIGS / "pipeline").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_pipeline_composes(path):
    written = document.load(CONFIGS, path.stem).data
    open_inputs = [f"{'.'.join(key)}=x" for key, value in leaves(written) if value == "???"]
    pipeline = compose(path.stem, open_inputs)
    assert pipeline.name == path.stem


@pytest.mark.parametrize("folder", ["model", "layout", "cluster"])
def test_every_overlay_fits_the_bases(folder, tmp_path):
    for overlay in (CONFIGS / folder).glob("*.yaml"):
        for kind in KINDS:
            inputs = layers.read(CONFIGS / "stage" / f"{kind}.yaml").data["inputs"]
            path = tmp_path / "p.yaml"
            filled = ", ".join(f"{name}: x" for name, value in inputs.items() if value == "???")
            path.write_text(f"{folder}: {overlay.stem}\nstages:\n  s: {{kind: {kind}, inputs: {{{filled}}}}}\n")
            try:
                compose(path)
            except UserInputError as error:
                assert all("must be set" in problem.message for problem in error.problems), str(error)
