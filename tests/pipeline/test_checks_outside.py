"""What the checks find outside the pipeline: in the checkpoints it starts from, in the engine, in a run's folder."""

from __future__ import annotations

import json

import pytest

from recipes import cli
from recipes.checkpoints import architecture
from recipes.pipeline import runner
from recipes.pipeline.checks import check_pipeline, inherited_rows, resume_plan, versions
from recipes.pipeline.config import compose
from tests.pipeline import checkpoints

STARTS = ("code_sft", "reward")  # the stages of nemotron4_340b that start from a checkpoint outside
ABOUT = ("C1", "C20", "K1")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return checkpoints.checkpoint(tmp_path_factory.mktemp("published") / "base")


def of_340b(path, *overrides):
    return compose("nemotron4_340b", [*(f"stages.{name}.inputs.init={path}" for name in STARTS), *overrides])


def found_in(path):
    """What is found in a checkpoint under nemotron4_340b, but for the one warning about the published config."""
    found = [problem for problem in check_pipeline(of_340b(path), list(STARTS)) if problem.rule in ABOUT]
    return [problem for problem in found if not problem.message.endswith("hold here: cross_entropy_loss_fusion True")]


# -- checkpoints -------------------------------------------------------------------------------------

HOLES = {
    "no index": lambda path: (path / "model_weights/.metadata").unlink(),
    "no format": lambda path: (path / "model_weights/metadata.json").unlink(),
    "an empty shard": lambda path: (path / "model_weights/__0_0.distcp").write_bytes(b""),
    "a lost shard": lambda path: (path / "model_weights/__0_0.distcp").unlink(),
    "a killed save": lambda path: (path / "model_weights-unfinished").touch(),
    "no tokenizer": lambda path: (path / checkpoints.TOKENIZER).unlink(),
    "text for a tokenizer": lambda path: (path / checkpoints.TOKENIZER).write_text("no model"),
}


@pytest.mark.parametrize("damage", HOLES.values(), ids=HOLES)
def test_a_checkpoint_with_a_hole_is_refused(tmp_path, damage):
    damage(checkpoints.checkpoint(tmp_path / "base"))
    (found,) = found_in(tmp_path / "base")
    assert found.rule == "K1" and str(tmp_path / "base") in found.message


def test_weights_in_zarr_are_taken_if_there_are_any(tmp_path):
    path = checkpoints.checkpoint(tmp_path / "base")
    (path / "model_weights/metadata.json").write_text(json.dumps({"sharded_backend": "zarr"}))
    assert [problem.rule for problem in found_in(path)] == ["K1"]
    (path / "model_weights/model.embedding.weight").mkdir()
    (path / "model_weights/model.embedding.weight/.zarray").write_text("{}")
    assert found_in(path) == []


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_a_tar_that_is_cut_off_behind_its_config_is_refused(tmp_path, compress):
    whole = checkpoints.tar(tmp_path / "whole.nemo", compress=compress)
    assert found_in(whole) == []
    (tmp_path / "cut.nemo").write_bytes(whole.read_bytes()[:-12000])
    (found,) = found_in(tmp_path / "cut.nemo")
    assert found.rule == "K1" and "cut off" in found.message


OTHERS = {"from_nemo2": ("context", "weights"), "from_hf": ("config.json",)}


@pytest.mark.parametrize("kind, parts", OTHERS.items(), ids=OTHERS)
def test_a_checkpoint_of_another_form_is_refused_with_the_stage_that_converts_it(tmp_path, kind, parts, capsys):
    for part in parts:
        (tmp_path / "start" / part).mkdir(parents=True)
    if kind == "from_hf":
        (tmp_path / "start/config.json").rmdir()
        (tmp_path / "start/config.json").write_text("{}")
    (found,) = found_in(tmp_path / "start")
    assert found.rule == "K1" and f"a stage of kind {kind}" in found.fix
    if kind == "from_nemo2":
        assert (
            cli.main(["new", str(tmp_path / "x"), "--from", "nemotron4_15b", "--checkpoint", f"{tmp_path}/start"]) == 2
        )


@pytest.mark.parametrize("recipe, sound", [("llama3_8b", True), ("minitron_4b", False)])
def test_a_hugging_face_folder_of_another_shape_is_refused(tmp_path, recipe, sound):
    inputs = [f"stages.base.inputs.checkpoint={tmp_path}"]
    theirs = compose("llama3_8b", inputs).architecture
    arch, _ = architecture.read_nemo(theirs, theirs["vocab_size"])
    (tmp_path / "config.json").write_text(json.dumps(architecture.to_hf(arch, "bfloat16")))
    found = [p for p in check_pipeline(compose(recipe, [*inputs, "all.template=llama3"]), ["base"]) if p.rule == "C1"]
    assert sound == (found == [])
    told = found[0].message + found[0].fix if found else ""
    assert sound or all(
        text in told for text in ("ffn_hidden_size 14336", "vocabulary 128256", "name another `model:`")
    )


# rule, changes of the published config, what is said
BROUGHT = [
    ("C1", {"num_layers": 32}, "num_layers 32 (there 96)"),
    ("C1", {"kv_channels": 128}, "kv_channels 128 (there 192)"),
    ("C1", {"rotary_percentage": 1.0}, "rotary_percentage 1.0 (there 0.5)"),
    ("C1", {"activation": "fast-swiglu"}, "activation 'swiglu' (there 'squared-relu')"),
    ("C1", {"share_embeddings_and_output_weights": True}, "share_embeddings_and_output_weights True (there False)"),
    ("C1", {"calculate_per_token_loss": True}, "not their mean"),
    ("C1", {"expert_model_parallel_size": 8}, "no layout here has expert-parallel ranks"),
    ("C20", {"do_layer_norm_weight_decay": True}, "do_layer_norm_weight_decay True"),
    ("C20", {"a_new_key": 3}, "a_new_key 3"),
]


@pytest.mark.parametrize("rule, changes, text", BROUGHT, ids=lambda v: "-".join(v) if isinstance(v, dict) else None)
def test_what_a_checkpoint_brings_along_is_found(tmp_path, rule, changes, text):
    (found,) = found_in(checkpoints.checkpoint(tmp_path / "base", **changes))
    assert found.rule == rule and text in found.message


def test_what_only_a_training_stage_sets_is_found_where_a_policy_is_asked(tmp_path):
    path = checkpoints.checkpoint(tmp_path / "base", dist_ckpt_load_strictness="log_all")
    assert found_in(path) == []
    pipeline = compose("tiny", [f"stages.eval_base.inputs.policy={path}"])
    (found,) = [problem for problem in check_pipeline(pipeline, ["eval_base"]) if problem.rule == "C1"]
    assert "missing in the checkpoint are not reported" in found.message


def test_the_published_340b_is_taken_with_its_layout_left_behind(published):
    assert found_in(published) == []
    rows = {row["key"]: row for row in inherited_rows(of_340b(published)) if row["stage"] == "code_sft"}
    assert rows["virtual_pipeline_model_parallel_size"]["checkpoint"] == 12
    assert {rows[key]["holds"] for key in ("overlap_p2p_comm", "defer_embedding_wgrad_compute")} == {"fixed"}
    holds = [rows[key]["holds"] for key in ("virtual_pipeline_model_parallel_size", "data", "num_layers")]
    assert holds == ["stage", "cut", "checkpoint"]


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path):
    (found,) = found_in(checkpoints.checkpoint(tmp_path / "small", pieces=32000))
    assert "vocabulary 32000 (there 256000)" in found.message and "configs/model/nemotron4_340b.yaml" in found.message


def test_the_table_of_what_is_inherited_is_shown(published, capsys):
    inputs = [f"stages.{name}.inputs.init={published}" for name in STARTS]
    assert cli.main(["check", "nemotron4_340b", "--inherited", *inputs]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["code_sft", "init", "pipeline_model_parallel_size", "8", "24", "stage"] in lines


# -- the engine of this machine, and work that is there ----------------------------------------------


@pytest.mark.parametrize("rules, version", [({"E1", "E2"}, "0.6.0"), ({"E2"}, "0.7.1")])
def test_another_version_of_nemo_aligner_is_found(published, monkeypatch, rules, version):
    monkeypatch.setattr(versions, "installed", {**versions.pins(), "nemo-aligner": version}.get)
    found = [problem for problem in check_pipeline(of_340b(published), ["dpo"]) if problem.rule in ("E1", "E2")]
    assert {problem.rule for problem in found} == rules and all(f"nemo-aligner {version}" in p.message for p in found)


def test_an_optimizer_of_apex_without_apex_is_found(published, monkeypatch):
    monkeypatch.setattr(versions, "installed", versions.pins().get)
    pipeline = of_340b(published, "stages.dpo.model.optim.name=distributed_fused_adam")
    (found,) = [problem for problem in check_pipeline(pipeline, ["dpo"]) if problem.rule == "E1"]
    assert "Apex is not installed here" in found.message


def test_work_of_another_config_is_named_before_it_is_set_aside(tmp_path, capsys):
    sizes = ("corpus", "corpus_validation", "code_sft", "general_sft", "human", "prompts", "eval_prompts")
    small = [f"stages.world.sizes.{name}=20" for name in sizes]
    run = tmp_path / "runs/tiny"
    assert runner.run(compose("tiny", small), run, selection=["world"], echo=lambda text: None) == 0
    same, other = compose("tiny", small), compose("tiny", [*small, "stages.world.annotators=5"])
    assert "K3" not in {problem.rule for problem in check_pipeline(same, run_dir=run)}
    (found,) = [problem for problem in check_pipeline(other, run_dir=run) if problem.rule == "K3"]
    assert "annotators" in found.message and "set aside" in found.message
    plan = {row["stage"]: row["action"] for row in resume_plan(same, run)}
    assert plan["world"] == "left alone" and plan["base"] == "begins"
    capsys.readouterr()
    words = [*small, "stages.world.annotators=5", "--run", "tiny", "--runs-dir", str(tmp_path / "runs")]
    cli.main(["check", "tiny", *words])
    assert "[K3] world.inputs" in (said := capsys.readouterr().out) and "begins anew" in said
