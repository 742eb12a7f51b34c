"""What `align plan` says: steps, work, time, disk; layouts that it finds; refusals."""

import gzip
import json
import subprocess
import sys

import pytest

from recipes import cli
from recipes.errors import UserInputError
from recipes.pipeline.checks import check_pipeline, memory
from recipes.pipeline.config import CONFIGS, compose
from recipes.planner import data, gpus, layouts, work
from recipes.planner.plan import plan
from recipes.planner.settings import Settings
from recipes.planner.work import Assumptions
from tests.planner.test_memory import laid_out
from tests.planner.test_parameters import architecture

UNSET = ["stages.code_sft.inputs.init=base", "stages.reward.inputs.init=base"]
SHORT = ["assume.generate.tokens=300"]


def said(capsys, *words) -> tuple[int, dict]:
    code = cli.main(["plan", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


# -- steps and work ----------------------------------------------------------------------------------


def test_steps_are_the_published_ones():
    """800K / 128, 200K x 3 / 128, 20,324 x 2 / 128 (max_steps of NeMo-Aligner's own recipe), 160K / 256, 300K / 256."""
    made = plan(compose("nemotron4_340b", UNSET), Assumptions())
    steps = {stage.name: stage.steps for stage in made.stages if stage.settings.trains}
    expected = {"code_sft": 6250, "general_sft": 4687, "reward": 317, "dpo": 625}
    assert steps == {**expected, "rpo1": 1171, "rpo2": 1171, "rpo3": 1171}


def test_a_forward_pass_is_two_operations_a_parameter_and_token_and_a_little_attention():
    model = architecture("nemotron4_340b")
    flops = work.forward(model, 4096, 4096)
    matrices = 2 * (model.total - model.table()) * 4096
    assert matrices < flops < 1.06 * matrices


@pytest.mark.parametrize(
    "kind, recompute, lora, expected",
    [
        ("sft", "none", (), 3),
        ("sft", "full", (), 4),
        ("preference", "full", (), 5),
        ("preference", "full", ("all",), 4),
    ],
)
def test_a_row_costs_so_many_forward_passes(kind, recompute, lora, expected):
    assert work.units(Settings(kind, recompute=recompute, lora=lora)) == expected


def test_the_bubble_is_what_one_forward_one_backward_leaves():
    assert laid_out("preference", "full", (8, 24, 1)).bubble == 23 / 256
    assert laid_out("preference", "full", (8, 12, 2)).bubble == 11 / 128


def test_a_step_of_dpo_on_192_gpus_takes_what_a_second_estimate_says():
    """110 s at 45 % with NVIDIA's 1.01e16 operations a sequence, which counts keys and values of every head."""
    settings, model = laid_out("preference", "full", (8, 24, 1)), architecture("nemotron4_340b")
    seconds = work.step_seconds(settings, model, gpus.find("h100"), Assumptions(efficiency=0.45))
    own = 3 * work.forward(model, 4096, 4096)
    assert seconds * 1.01e16 / own == pytest.approx(110, rel=0.02)


def test_a_checkpoint_has_the_size_of_those_of_finished_runs():
    """12 bytes a parameter in float32, 6.1 MB of the tiny chain's, and 14 in bf16: 4.8 TB."""
    made = plan(compose("tiny"), Assumptions(), only=["base"])
    assert made.stages[0].save_bytes == 12 * 505_536
    assert made.stages[0].disk == ((3 * 12 + 4) * 505_536, (12 + 4) * 505_536)
    large = work.save_bytes(laid_out("sft", "full", (8, 24, 1)), architecture("nemotron4_340b"))
    assert large / 1e12 == pytest.approx(4.8, abs=0.03)


def test_max_steps_and_epochs_both_limit():
    cfg = compose("tiny").stages["code_sft"].cfg  # max_steps 80, one epoch, batches of 32
    assert [work.steps(cfg, rows) for rows in (None, 320, 32_000)] == [80, 10, 80]


def test_rows_of_known_length_give_a_time_without_padding_as_well(capsys):
    _, made = said(capsys, "nemotron4_340b", "--stage", "dpo", "assume.dpo.tokens=1024")
    (stage,) = made["stages"]
    assert 0.2 * stage["seconds"] < stage["seconds_unpadded"] < 0.3 * stage["seconds"]
    assert stage["tokens"] == 625 * 256 * 2 * 1024


def test_the_document_lists_every_key_of_the_json(capsys):
    _, made = said(capsys, "tiny", "--gpu", "H100", "--stage", "dpo")
    text = (CONFIGS.parent / "docs/planner.md").read_text(encoding="utf-8")
    keys = [*made, *made["stages"][0], *made["stages"][0]["memory"]["first"]]
    assert not [key for key in keys if f"`{key}`" not in text and key != "assumptions"]


# -- rows --------------------------------------------------------------------------------------------


def test_lines_are_counted_packed_or_not_with_or_without_the_last_end(tmp_path):
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_bytes(b"{}\n{}\n{}")
    packed.write_bytes(gzip.compress(b"{}\n" * 5))
    assert (data.count(plain), data.count(packed)) == (3, 5)


def test_rows_follow_the_chain_from_prompts_to_pairs():
    """512 prompts, 4 responses each; at most one pair a prompt, 32 of them held out."""
    stages = {stage.name: stage.data for stage in plan(compose("tiny"), Assumptions()).stages}
    assert (stages["generate0"].rows, stages["generate0"].rows_from) == (512, "config")
    assert (stages["score0"].rows, stages["score0"].rows_from) == (2048, "config")
    assert (stages["dpo"].rows, stages["dpo"].rows_from) == (480, "upper bound")


def test_a_file_that_exists_is_counted_and_no_assumption_asked(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}\n" * 1000)
    override = [f"stages.dpo.inputs.train={tmp_path}/pairs.jsonl", "assume.dpo.rows=7"]
    (stage,) = plan(compose("tiny", override), Assumptions(), only=["dpo"]).stages
    assert (stage.data.rows, stage.data.rows_from) == (1000, "counted")


def test_prompts_that_are_counted_hold_over_what_is_assumed_of_the_stages_behind_them(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("{}\n" * 768)
    given = [*UNSET, f"stages.generate1.inputs.prompts={tmp_path}/prompts.jsonl"]
    stages = {stage.name: stage.data for stage in plan(compose("nemotron4_340b", given), Assumptions()).stages}
    found = {name: (stages[name].rows, stages[name].rows_from) for name in ("generate1", "score1", "rpo1", "rpo2")}
    assert found == {
        "generate1": (768, "counted"),
        "score1": (3072, "counted"),
        "rpo1": (256, "upper bound"),  # 512 are held out
        "rpo2": (300_000, "assumed"),
    }
    fewer = compose("nemotron4_340b", [*given, "assume.rpo1.rows=200"])
    (stage,) = plan(fewer, Assumptions(), only=["rpo1"]).stages
    assert (stage.data.rows, stage.data.rows_from) == (200, "assumed")


def test_a_torn_file_is_not_counted(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 5)[:-9])
    assert data.count(tmp_path / "a.jsonl.gz") is None


# -- time limits -------------------------------------------------------------------------------------


def test_jobs_are_counted_under_the_time_limit_and_a_short_grace_is_told():
    site = ["slurm.account=null", "slurm.partition=null", "slurm.container.image=nemo"]
    times = ["slurm.time='04:00:00'", "slurm.grace=60"]
    pipeline = compose("nemotron4_340b", [*UNSET, *site, *times], cluster="nemo_pyxis")
    (stage,) = plan(pipeline, Assumptions(), only=["dpo"]).stages
    weights = 2 * stage.model.total / 10e9
    assert stage.jobs == -(-stage.seconds // (4 * 3600 - 60 - weights)) == 5
    assert any("the job leaves 60 s" in note for note in stage.notes)


# -- fits --------------------------------------------------------------------------------------------


def test_a_layout_that_does_not_fit_is_refused_with_the_reason_and_the_fix(capsys):
    too_much = ["stages.dpo.model.activations_checkpoint_granularity=null"]
    code, made = said(capsys, "nemotron4_340b", *SHORT, *too_much, "--stage", "dpo")
    (problem,) = made["problems"]
    assert code == 2 and problem["rule"] == "C9" and "full recompute" in problem["fix"]
    assert "needs 103 GB on the first pipeline stage" in problem["message"]


@pytest.mark.parametrize("change", [[], ["stages.dpo.model.activations_checkpoint_granularity=null"]])
def test_the_check_and_the_plan_agree(change):
    pipeline = compose("nemotron4_340b", [*UNSET, *SHORT, *change])
    checked = {problem.message for problem in check_pipeline(pipeline) if problem.rule == "C9"}
    assert checked == {problem.message for problem in plan(pipeline, Assumptions()).problems}


def test_a_gpu_that_is_asked_for_holds_over_the_layouts(capsys):
    assert cli.main(["plan", "nemotron4_340b", "--gpu", "h200", "--stage", "dpo"]) == 0
    said = capsys.readouterr().out
    assert "141 GB" in said and "GPU: H200 (--gpu) in place of H100 (resources.gpu)" in said
    assert cli.main(["plan", "nemotron4_340b", "--gpu", "RTX-4090", "--stage", "dpo", "--json"]) == 2
    assert {problem["rule"] for problem in json.loads(capsys.readouterr().out)["problems"]} == {"C9"}


def test_a_layout_without_the_layout_gpu_is_refused_with_the_reason(capsys):
    code, made = said(capsys, "nemotron4_340b", "layout=nemotron4_340b_768", "--stage", "general_sft")
    (problem,) = made["problems"]
    assert code == 2 and problem["rule"] == "C9" and "layout: [gpu, ...]" in problem["fix"]


# -- layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, count", [("nemotron4_340b", 192), ("nemotron4_15b", 16), ("minitron_4b", 8)])
def test_a_layout_that_is_written_fits_and_is_not_slower_than_the_one_before(name, count, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    code, made = said(capsys, name, *SHORT, "--gpus", str(count), "--gpu", "H100", "--write", str(file))
    assert code == 0
    now = {stage["stage"]: stage for stage in made["stages"]}
    best = {stage["stage"]: stage for kind in made["suggested"].values() for stage in kind}
    code, after = said(capsys, name, *SHORT, f"layout=[{file}]")
    assert (code, after["problems"]) == (0, [])
    for stage in after["stages"]:
        assert stage["memory"] == best[stage["stage"]]["memory"]
        alike = stage["tasks_at_once"] == best[stage["stage"]]["tasks_at_once"]
        assert stage["seconds"] == pytest.approx(best[stage["stage"]]["seconds"]) or not alike
        old = now[stage["stage"]]
        if old["fits"] and old["nodes"] * old["devices"] * old["tasks_at_once"] <= count:
            assert stage["seconds"] <= 1.001 * old["seconds"]


def test_no_layout_of_a_plain_search_is_faster_and_fits():
    """Every split of 16 GPUs for one kind, counted here; the search may not miss a faster one."""
    import dataclasses

    gpu = gpus.find("H100")
    stages = plan(compose("nemotron4_15b", UNSET), Assumptions(), only=["dpo"]).stages
    (found,) = layouts.suggest(stages, 16, gpu)
    best = found.stages[0]
    for tensor in (1, 2, 4, 8):
        for pipeline in (1, 2, 4, 8, 16):
            for recompute in ("none", "full"):
                if 16 % (tensor * pipeline) == 0:
                    split = {"tensor": tensor, "pipeline": pipeline, "sequence_parallel": tensor > 1}
                    other = dataclasses.replace(best.settings, recompute=recompute, **split)
                    tried = dataclasses.replace(best, settings=other)
                    assert not tried.fits or tried.seconds >= best.seconds - 1e-3, other


def test_where_nothing_fits_the_command_says_so(capsys):
    assert cli.main(["plan", "nemotron4_340b", "--stage", "dpo", "--gpus", "8", "--gpu", "A100"]) == 2
    assert "preference: nothing fits on 8 GPUs" in capsys.readouterr().out


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, text",
    [
        (["tiny", "--gpu", "H10"], "did you mean H100"),
        (["nemotron4_340b", "--gpu", "H20"], "did you mean H200"),
        (["tiny", "--gpus", "8"], "add --gpu"),
        (["tiny", "--gpus", "12", "--gpu", "H100"], "give 8 or 16"),
        (["tiny", "--write", "x.yaml"], "add --gpus"),
        (["tiny", "--stage", "dop"], "did you mean `dpo`"),
        (["tiny", "stages.dpo.model.optim.lrr=1"], "unknown key"),
        (["tiny", "stages.dpo.resources.gpu=H1000"], "did you mean H100"),
    ],
)
def test_a_wrong_request_is_refused_with_a_fix(words, text, capsys):
    assert cli.main(["plan", *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        "model.tensor_model_parallel_size=0",
        "model.pipeline_model_parallel_size=-2",
        "model.pipeline_model_parallel_size=5",
        "model.micro_batch_size=0",
        "model.global_batch_size=0",
        "model.encoder_seq_length=0",
        "model.dpo.log_prob_forward_micro_batch_size=0",
        "model.peft={peft_scheme: lora, lora_tuning: {target_modules: [nothing], adapter_dim: 0}}",
        "resources.devices=0",
        "trainer.dpo.save_interval=0",
        "trainer.dpo.max_epochs=0",
    ],
)
def test_numbers_that_cannot_be_end_in_words(change, capsys):
    """With and without a search for a layout: exit code 0 or 2, never a traceback; `align check` as well."""
    for words in ([], ["--gpus", "8"], ["--json"]):
        assert cli.main(["plan", "tiny", f"stages.dpo.{change}", "--stage", "dpo", "--gpu", "H100", *words]) in (0, 2)
    check_pipeline(compose("tiny", [f"stages.dpo.{change}", "stages.dpo.resources.gpu=H100"]))


@pytest.mark.parametrize("option", [["--efficiency", "0"], ["--efficiency", "1.5"], ["--disk-rate", "0"]])
def test_a_rate_that_cannot_be_is_refused(option):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["plan", "tiny", *option])


def test_a_layout_file_that_exists_is_kept(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("kept")
    assert cli.main(["plan", "minitron_4b", *SHORT, "--gpus", "8", "--gpu", "H100", "--write", str(file)]) == 2
    assert file.read_text() == "kept"


def test_a_gpu_has_a_source_and_a_grade():
    assert all(gpu.source and gpu.grade in "BCM" for gpu in gpus.GPUS.values())
    with pytest.raises(UserInputError):
        gpus.find("V100")


def test_planning_needs_no_engine():
    engine = "{'torch', 'nemo', 'numpy'}"
    code = f"import sys; from recipes import cli; cli.main(['plan', 'tiny']); print({engine} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


def test_a_disk_that_is_too_small_for_the_whole_run_is_told(tmp_path):
    """`align check` looks at single stages below ./runs; this at a run directory and everything that stays there."""
    (problem,) = memory.check_disk(compose("nemotron4_340b", UNSET), tmp_path / "new" / "run")
    assert problem.rule == "K2" and "38.2 TB" in problem.message
    assert memory.check_disk(compose("tiny"), tmp_path) == []
