"""Running again from the directory of a run alone: the same hashes, or a refusal that says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recipes.cli import main
from recipes.pipeline import artifacts, seals
from tests.pipeline import light
from tests.pipeline.test_artifacts import put


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with a file from outside and runs/light, which is done and whose pipeline file is gone."""
    folder = tmp_path_factory.mktemp("desk")
    light.write_files(folder)
    light.run(light.pipeline(folder, engine=False), folder / "runs/light")
    (folder / "light.yaml").unlink()
    return folder


@pytest.fixture(autouse=True)
def here(desk, monkeypatch):
    monkeypatch.chdir(desk)


def outputs(run_dir: Path) -> dict[str, str]:
    """Hashes of what every stage hands over, without the files of a data set that name their own directory."""
    manifests = {path.parent.name: artifacts.read_manifest(path.parent) for path in run_dir.glob("*/manifest.json")}
    return {f"{stage}/{name}": entry["sha256"] for stage, manifest in manifests.items()
            for name, entry in manifest["outputs"].items()
            if name not in ("manifest.json", "config.yaml", "rows.sqlite")}  # fmt: skip


def test_the_same_hashes_come_out_at_any_depth(desk, capsys):
    assert main(["run", "runs/light", "--runs-dir", "far/away", "--run", "again"]) == 0
    again = desk / "far/away/again"
    assert outputs(again) == outputs(desk / "runs/light") and len(outputs(again)) == 21
    assert main(["diff", "light", "far/away/again"]) == 0
    assert main(["verify", "far/away/again"]) == 0
    capsys.readouterr()
    assert main(["run", "far/away/again/pipeline.yaml", "--run", "third", "--only", "world"]) == 0
    assert main(["run", "runs/light", "--run", "third"]) == 0
    assert "world: unchanged, skipped" in capsys.readouterr().out, "begun again, it goes on"


@pytest.mark.parametrize("command", ["run", "check", "submit"])
def test_a_changed_input_is_refused_by_name_before_anything_starts(desk, command, capsys):
    own = desk / "own.jsonl"
    raw = own.read_bytes()
    options = {"run": ["--run", "other"], "check": [], "submit": ["--run", "other", "--cluster", "slurm", "--dry-run"]}
    try:
        own.write_bytes(raw[:-3] + b"X" + raw[-2:])
        assert main([command, "runs/light", *options[command]]) == 2
        said = "".join(capsys.readouterr())
        assert f"{own}: input `own` of own was changed since" in said and "same hashes cannot come out" in said
        own.unlink()
        assert main([command, "runs/light", *options[command]]) == 2
        assert "input `own` of own is gone" in "".join(capsys.readouterr())
    finally:
        own.write_bytes(raw)
    assert not (desk / "runs/other").exists()


def test_what_is_frozen_stays_frozen(desk, tmp_path, capsys):
    assert main(["run", "runs/light", "--run", "other", "seed=8"]) == 2
    assert "are frozen: `seed=8` cannot change them" in capsys.readouterr().err
    edited = Path(shutil.copytree(desk / "runs/light", tmp_path / "edited"))
    put(edited / "pipeline.yaml", (edited / "pipeline.yaml").read_text().replace("corpus: 8000", "corpus: 9000"))
    assert main(["run", str(edited), "--run", "other"]) == 2
    assert "was changed after the run wrote it" in capsys.readouterr().err
    assert main(["run", "runs/light"]) == 2
    assert "align resume" in capsys.readouterr().err
    assert not (desk / "runs/other").exists()


def test_commands_take_a_run_as_a_pipeline(desk, capsys):
    assert main(["show", "runs/light", "own", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == artifacts.read_config(desk / "runs/light/own/config.yaml")
    assert main(["explain", "runs/light", "world.sizes.corpus"]) == 0
    assert "runs/light/pipeline.yaml:" in capsys.readouterr().out
    assert main(["check", "runs/light/pipeline.yaml"]) == 0
    assert main(["submit", "runs/light", "--run", "jobs", "--cluster", "slurm", "--dry-run"]) == 0
    assert "3 stages" in capsys.readouterr().out and (desk / "runs/jobs/slurm/own.sbatch").is_file()


def test_other_versions_are_said(desk, tmp_path, capsys):
    """They are not frozen: the run may go on, and `align diff` says afterwards whether they mattered."""
    old = Path(shutil.copytree(desk / "runs/light", tmp_path / "old"))
    text = (old / "pipeline.yaml").read_text().rpartition("# sha256")[0]
    version = artifacts.package_versions()["PyYAML"]
    put(old / "pipeline.yaml", seals.seal_text(text.replace(f"PyYAML: {version}", "PyYAML: 1.2.3")))
    assert main(["check", str(old)]) == 0
    assert f"note: the outputs may come out different: PyYAML was 1.2.3, is {version}" in capsys.readouterr().err


def test_a_pipeline_file_of_ones_own_is_no_run(desk):
    """A folder with a file called pipeline.yaml, and the name of a pipeline beside a folder of that name."""
    put(desk / "mine/pipeline.yaml", "stages: {world: {kind: world}}\n")
    assert main(["show", "mine/pipeline.yaml", "world", "seed=3"]) == 0
    (desk / "tiny").mkdir(exist_ok=True)
    assert main(["show", "tiny", "world"]) == 0
