"""`align diff`: one thing is changed between two real runs, and it is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recipes.cli import main
from recipes.pipeline import artifacts, diff, seals
from tests.pipeline import light
from tests.pipeline.test_artifacts import finish, put


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with a file from outside and runs/a, which is done."""
    folder = tmp_path_factory.mktemp("desk")
    light.write_files(folder)
    light.run(light.pipeline(folder), folder / "runs/a")
    return folder


def states(a: Path, b: Path) -> dict[str, str]:
    return {row.stage: row.state for row in diff.diff(a, b)}


def copy(desk: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(desk / "runs/a", tmp_path / "b"))


def edit(stage_dir: Path, change) -> None:
    """Change a manifest as if the stage had written it so."""
    manifest = json.loads((stage_dir / "manifest.json").read_text())
    change(manifest)
    artifacts.atomic_write_json(stage_dir / "manifest.json", seals.seal(manifest))


# -- two real runs -----------------------------------------------------------------------------------


def test_a_changed_setting_is_named_and_what_follows_from_it_is_told_apart(desk, tmp_path):
    light.run(light.pipeline(desk, ["stages.own.validation.rows=10", "all.resources.threads=3"]), tmp_path / "b")
    rows = diff.diff(desk / "runs/a", tmp_path / "b")
    assert {row.stage: row.state for row in rows} == {
        "world": "same", "code": "same", "own": "config", "train": "follows", "leaf": "follows"
    }  # fmt: skip
    assert [(d.key, d.a, d.b) for d in diff.first(rows).differences if d.what == "config"] == [
        ("validation.rows", 20, 10)
    ]
    assert [row.why for row in rows[3:]] == ["own", "train"]


def test_a_changed_byte_outside_is_named(desk, tmp_path, capsys):
    own = desk / "own.jsonl"
    shutil.copytree(desk / "runs/a", tmp_path / "a")
    raw = own.read_bytes()
    try:
        own.write_bytes(raw.replace(b"q 7", b"q 8"))
        light.run(light.pipeline(desk), tmp_path / "b")
    finally:
        own.write_bytes(raw)
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    said = capsys.readouterr().out
    assert "first difference: stage own, an input from outside\n  inputs.own: " in said and str(own) in said
    assert list(states(tmp_path / "a", tmp_path / "b").values()) == ["same", "same", "input", "follows", "follows"]


def test_a_stage_that_is_not_reproducible_is_said_to_be_so(desk, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NOISE", "another rounding")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    light.run(light.pipeline(desk, ["all.resources.threads=3"]), tmp_path / "b")
    rows = diff.diff(desk / "runs/a", tmp_path / "b")
    assert [row.state for row in rows] == ["same", "same", "same", "outputs", "follows"]
    assert {d.key: d.b for d in diff.first(rows).machine} == {"omp_threads": "64"}
    assert main(["diff", str(desk / "runs/a"), str(tmp_path / "b")]) == 1
    said = capsys.readouterr().out
    assert "stage train, not reproducible: config, inputs and versions are the same" in said
    assert "on other machines: omp_threads: " in said


# -- copies of one run -------------------------------------------------------------------------------


def test_a_copy_is_equal(desk, tmp_path, capsys):
    copy(desk, tmp_path)
    assert main(["diff", str(desk / "runs/a"), str(tmp_path / "b")]) == 0
    assert "equal: 5 stages have the same configs, inputs, versions and outputs" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["numpy", "commit"])
def test_a_version_is_named_with_whether_it_matters(desk, tmp_path, key, capsys):
    run = copy(desk, tmp_path)
    edit(run / "code", lambda m: m.update(commit="f" * 40) if key == "commit" else m["versions"].update(numpy="9.9"))
    rows = diff.diff(desk / "runs/a", run)
    assert [row.state for row in rows] == ["same", "versions", "same", "same", "same"]
    assert [(d.key, d.b) for d in rows[1].differences] == [(key, "f" * 40 if key == "commit" else "9.9")]
    assert main(["diff", str(desk / "runs/a"), str(run)]) == 1
    assert "all outputs that both runs have are equal" in capsys.readouterr().out


def test_harmless_versions_do_not_hide_what_changed_the_outputs(desk, tmp_path, capsys):
    light.run(light.pipeline(desk, ["stages.own.validation.rows=10"]), tmp_path / "b")
    edit(tmp_path / "b/world", lambda m: m["versions"].update(numpy="9.9"))
    assert main(["diff", str(desk / "runs/a"), str(tmp_path / "b")]) == 1
    said = capsys.readouterr().out
    assert "first difference: stage world, what it was made with" in said
    assert "first outputs that differ: stage own, its config\n  validation.rows: 20 in A, 10 in B" in said


def test_a_stage_of_one_run_is_a_difference(desk, tmp_path):
    run = copy(desk, tmp_path)
    (run / "leaf/manifest.json").unlink()
    assert states(desk / "runs/a", run)["leaf"] == "only in A"
    light.run(light.pipeline(desk, engine=False), tmp_path / "c")
    assert states(tmp_path / "c", desk / "runs/a") == {
        "world": "same", "code": "same", "own": "same", "train": "only in B", "leaf": "only in B"
    }  # fmt: skip


def test_stages_that_neither_run_has_done_are_compared_by_config(desk, tmp_path):
    a, b = copy(desk, tmp_path), tmp_path / "c"
    shutil.rmtree(a / "leaf")
    shutil.copytree(a, b)
    assert states(a, b)["leaf"] == "not done" and diff.first(diff.diff(a, b)) is None
    text = (b / "pipeline.yaml").read_text()
    (b / "pipeline.yaml").write_text(text.replace("text: leaf", "text: other"))
    assert states(a, b)["leaf"] == "config"


def test_a_model_is_the_same_if_its_content_is(tmp_path):
    """Its files hold times and are in another order on another number of ranks; .nemo is a tar of them."""
    for run, weights in (("a", "one"), ("b", "two")):
        files = {"model/w": weights, "model/CONTENT_SHA256": "abc", "model.nemo": weights, "gaps.jsonl": "row"}
        finish(tmp_path / run, "dpo", files, kind="preference")
        cfg = artifacts.read_config(tmp_path / run / "dpo/config.yaml")
        put(tmp_path / run / "pipeline.yaml", artifacts.config_text({"name": "x", "seed": 1, "stages": {"dpo": cfg}}))
    assert states(tmp_path / "a", tmp_path / "b") == {"dpo": "same"}
    finish(tmp_path / "b", "dpo", {"model/CONTENT_SHA256": "abd"}, kind="preference")
    assert [d.key for d in diff.diff(tmp_path / "a", tmp_path / "b")[0].differences] == ["model/CONTENT_SHA256"]


# -- the command -------------------------------------------------------------------------------------


def test_json_and_exit_codes(desk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    assert main(["diff", "a", "runs/a", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["equal"] and told["first"] is None and [row["outputs"] for row in told["stages"]] == ["equal"] * 5
    light.run(light.pipeline(desk, ["seed=8"], engine=False), tmp_path / "b")
    assert main(["diff", "a", str(tmp_path / "b"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["first"] == "world"
    assert {"what": "config", "key": "seed", "a": 7, "b": 8} in told["stages"][0]["differences"]
    assert main(["diff", "a", "no_such"]) == 2
    assert "there is no such run" in capsys.readouterr().err


def test_a_damaged_run_is_wrong_input(desk, tmp_path, capsys):
    run = copy(desk, tmp_path)
    (run / "own/config.yaml").write_text("[")
    assert main(["diff", str(desk / "runs/a"), str(run)]) == 2
    assert "`align verify` names the file" in capsys.readouterr().err
