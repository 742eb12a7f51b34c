"""The `align` command: what it calls, what it prints, its exit codes."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.cli import main
from recipes.commands import pipelines
from recipes.errors import Problem, StageFailed, UserInputError
from recipes.pipeline import runner
from recipes.pipeline.artifacts import config_text
from recipes.pipeline.config import CONFIGS, compose

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = """\
# Two stages.
name: two
model: tiny_nemotron4
stages:
  base: {kind: base, inputs: {train: text.jsonl, validation: held.jsonl}}
  sft: {kind: sft, inputs: {init: base/model, train: chat.jsonl, validation: more.jsonl}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with a pipeline file and its data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(PIPELINE)
    for name in ("text", "held"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n' * 20)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for name in ("chat", "more"):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 20)
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """What the runner was called with, in place of a run."""
    calls = []

    def run(pipeline, run_dir, *, selection, jobs, fresh, echo):
        echo("running")
        calls.append({"name": pipeline.name, "run_dir": run_dir, "selection": selection, "jobs": jobs, "fresh": fresh})
        calls[-1]["pipeline"] = pipeline
        return 0

    monkeypatch.setattr(runner, "run", run)
    return calls


@pytest.fixture
def finished(folder):
    """The directory of a run of which only pipeline.yaml is there."""
    run_dir = folder / "runs/one"
    run_dir.mkdir(parents=True)
    (run_dir / "pipeline.yaml").write_text(config_text(compose("two.yaml", ["seed=5"]).to_dict()))
    return run_dir


def python(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_help_is_quick():
    def once():  # processor time: other work on the machine does not count
        before = os.times()
        subprocess.run([sys.executable, "-m", "recipes.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(once() for _ in range(3)) < 0.3


def test_help_imports_nothing_heavy():
    heavy = {"torch", "nemo", "nemo_aligner", "megatron", "omegaconf", "hydra", "matplotlib", "rich", "yaml"}
    code = (
        "import sys\nfrom recipes.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('MODULES', *sys.modules)"
    )
    loaded = python(code).rpartition("MODULES")[2].split()
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_check_imports_no_engine():
    code = (
        "import sys\nfrom recipes.cli import main\ncode = main(['check', 'two.yaml'])\n"
        "print('MODULES', code, *sys.modules)"
    )
    code, *loaded = python(code).rpartition("MODULES")[2].split()
    assert code == "0"
    assert not {"torch", "nemo", "nemo_aligner", "megatron", "numpy"} & {name.split(".")[0] for name in loaded}


def test_ls_lists_the_pipelines_of_the_repository(capsys):
    assert main(["ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["pipeline"] for row in rows} == {path.stem for path in (CONFIGS / "pipeline").glob("*.yaml")}
    assert all(row["summary"] and row["stages"] for row in rows)


def test_show(capsys):
    assert main(["show", "two.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "kind", "devices", "parents"] and lines[2].split() == [
        "sft",
        "sft",
        "1",
        "base",
    ]
    assert main(["show", "two.yaml", "sft", "seed=9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 9
    assert main(["show", "two.yaml", "seed=9", "--json"]) == 0
    assert [row["stage"] for row in json.loads(capsys.readouterr().out)] == ["base", "sft"]
    assert main(["show", "two.yaml", "sff"]) == 2
    assert "did you mean `sft`" in capsys.readouterr().err


def test_explain(capsys):
    assert main(["explain", "two.yaml", "sft.model.optim.lr", "stages.sft.model.optim.lr=1e-7"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "sft.model.optim.lr = 1e-07"
    assert out[1].split() == ["command", "line", "1e-07"]
    assert "configs/stage/sft.yaml:" in out[2] and out[2].endswith("(overridden)")
    assert main(["explain", "two.yaml", "sft.model.optim", "--json"]) == 0
    assert "model.optim.lr" in {entry["key"] for entry in json.loads(capsys.readouterr().out)}
    assert main(["explain", "two.yaml", "sft.model.optim.lrr"]) == 2
    assert "model.optim.lr" in capsys.readouterr().err


def test_check(capsys):
    assert main(["check", "two.yaml"]) == 0
    assert "0 problems" in capsys.readouterr().out
    assert main(["check", "two.yaml", "stages.sft.model.fp8=true"]) == 2
    assert "[C10] sft.model.fp8 (command line)" in capsys.readouterr().out
    assert main(["check", "two.yaml", "--json", "stages.sft.model.fp8=true"]) == 2
    assert json.loads(capsys.readouterr().out)[0]["rule"] == "C10"
    assert main(["check", "two.yaml", "--json", "stages.sft.model.fp9=true"]) == 2
    assert "model.fp8" in json.loads(capsys.readouterr().out)[0]["fix"]
    assert main(["check", "two.yaml", "stages.sft.trainer.sft.limit_val_batches=1"]) == 0
    assert "1 warning\n" in capsys.readouterr().out
    assert main(["check", "--explain", "C2"]) == 0
    assert "divide" in capsys.readouterr().out
    assert main(["check"]) == 2


def test_check_looks_at_the_rows_of_external_files(folder, capsys):
    (folder / "chat.jsonl").write_text('{"messages": []}\n' * 20)
    assert main(["check", "two.yaml"]) == 2
    assert "chat.jsonl:1" in capsys.readouterr().out


def test_wrong_input_is_an_exit_code_and_no_traceback(capsys):
    for words in (
        ["show", "no_such"],
        ["run", "two.yaml", "sede=1"],
        ["run", "two.yaml", "~seed"],
        ["status", "no_such"],
    ):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert "fix:" in captured.err and "Traceback" not in captured.err and captured.out == ""


@pytest.mark.parametrize("words", [[], ["rnu"], ["run"], ["run", "two.yaml", "--job", "2"], ["status", "a", "b"]])
def test_wrong_usage_is_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_run(runs, capsys):
    assert main(["run", "two.yaml", "--jobs", "3", "--fresh", "seed=4", "--run", "mine", "name=other"]) == 0
    call = runs.pop()
    assert call["run_dir"] == Path("runs/mine") and call["jobs"] == 3 and call["fresh"] is True
    assert call["name"] == "other" and call["pipeline"].stages["sft"].cfg["seed"] == 4
    assert call["selection"] == ["base", "sft"] and "running" in capsys.readouterr().out
    assert main(["run", "two.yaml", "--runs-dir", "elsewhere", "--only", "sft"]) == 0
    call = runs.pop()
    assert call["run_dir"] == Path("elsewhere/two") and call["selection"] == ["sft"] and call["fresh"] is False


def test_run_refuses_before_anything_starts(runs, capsys):
    for words in (
        ["stages.sft.model.fp8=true"],
        ["--run", "step=3"],
        ["--only", "sff"],
        ["--only", "sft", "--from", "sft"],
    ):
        assert main(["run", "two.yaml", *words]) == 2
        assert "fix:" in capsys.readouterr().err
    assert runs == []


def test_run_looks_only_at_the_stages_that_it_runs(runs):
    assert main(["run", "two.yaml", "--only", "base", "stages.sft.model.fp8=true"]) == 0


def test_a_warning_does_not_stop_a_run(runs, capsys):
    assert main(["run", "two.yaml", "stages.sft.trainer.sft.limit_val_batches=1"]) == 0
    assert "warning: [C14]" in capsys.readouterr().err and len(runs) == 1


def test_resume_runs_the_configs_that_the_run_has(runs, finished):
    (finished.parents[1] / "two.yaml").unlink()
    for name in ("one", "runs/one", str(finished)):
        assert main(["resume", name]) == 0
        call = runs.pop()
        assert call["run_dir"].resolve() == finished and call["selection"] == ["base", "sft"]
        assert call["pipeline"].stages["sft"].cfg["seed"] == 5


def test_commands_on_a_run(finished, capsys):
    assert main(["status", "one", "--json"]) == 0
    assert [(row["stage"], row["state"]) for row in json.loads(capsys.readouterr().out)] == [
        ("base", "pending"),
        ("sft", "pending"),
    ]
    log = finished / "sft/logs/stage.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\nsecond\n")
    assert main(["logs", "one", "sft"]) == 0
    assert capsys.readouterr().out == "first\nsecond\n"
    assert main(["logs", "one", "stf"]) == 2
    assert main(["verify", "one"]) == 1
    capsys.readouterr()
    assert main(["status", "oen"]) == 2
    assert "did you mean `one`" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_wrong_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("afile").touch()
    assert main(["run", "tiny", "--only", "world", "--runs-dir", "afile"]) == 2
    assert main(["plan", "nemotron4_15b", "--gpus", "8", "--gpu", "H100", "--write", "afile/layout.yaml"]) == 2
    assert capsys.readouterr().err.count("fix: choose a place that can be written to") == 2


def test_problems_of_a_worker_process_arrive_whole():
    problem = Problem("D1", "rows.jsonl:3", "is not JSON", "remove it")
    assert pickle.loads(pickle.dumps(UserInputError(problem))).problems == [problem]


def test_a_failed_stage_is_exit_code_1(monkeypatch, capsys):
    def ls(args):
        raise StageFailed("sft: lost")

    monkeypatch.setattr(pipelines, "ls", ls)
    assert main(["ls"]) == 1
    assert capsys.readouterr().err == "sft: lost\n"
