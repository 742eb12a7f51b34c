"""`align verify`: whatever byte of a run is changed, the first problem names its file."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from recipes.cli import main
from recipes.pipeline import artifacts, seals
from recipes.pipeline.hashing import Reader
from tests.pipeline import light
from tests.pipeline.test_artifacts import finish, put

# What a run may still write, and what is written again from the rest. Everything else is covered.
NOT_COVERED = {"logs", "checkpoints", "report", "cache", "index", ".lock", "engine.log", "timing.json"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with a file from outside and runs/light, which is done."""
    folder = tmp_path_factory.mktemp("desk")
    light.write_files(folder)
    light.run(light.pipeline(folder), folder / "runs/light")
    return folder


@pytest.fixture
def run_dir(desk, tmp_path) -> Path:
    """A copy to damage. The file from outside stays where it is."""
    return Path(shutil.copytree(desk / "runs/light", tmp_path / "runs/light"))


def covered(run_dir: Path) -> list[Path]:
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    return sorted(path for path in files if not NOT_COVERED & set(path.relative_to(run_dir).parts))


def flipped(raw: bytes, place: int, bit: int = 1) -> bytes:
    return raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :] if raw else b"x"


def first(run_dir: Path) -> str:
    problems = artifacts.verify_run(run_dir)
    return problems[0].where if problems else "nothing"


# -- any byte ----------------------------------------------------------------------------------------


def test_one_byte_in_any_file_is_named_first(desk, run_dir):
    files = covered(run_dir)
    kinds = {path.relative_to(run_dir).parts[1:2] or path.name for path in files}
    assert len(files) > 50 and {("data",), ("outputs",), ("metrics.jsonl",), ("launch.sh",), "pipeline.yaml"} <= kinds
    assert artifacts.verify_run(run_dir) == []
    outside = shutil.copy(desk / "own.jsonl", desk / "copy")
    try:
        for path in [*files, desk / "own.jsonl"]:
            raw = path.read_bytes()
            for place in sorted({0, len(raw) // 2, max(len(raw) - 1, 0)}):
                path.write_bytes(flipped(raw, place))
                assert first(run_dir) == str(path), f"byte {place} of {len(raw)}"
            path.write_bytes(raw)
    finally:
        shutil.move(outside, desk / "own.jsonl")
    assert artifacts.verify_run(run_dir) == []


@pytest.mark.parametrize("name", ["pipeline.yaml", "own/manifest.json", "leaf/manifest.json", "own/config.yaml",
                                  "own/launch.sh", "own/.started.json"])  # fmt: skip
def test_no_byte_of_the_files_that_say_what_a_run_is_can_change(run_dir, name):
    path, dice = run_dir / name, random.Random(name)
    raw = path.read_bytes()
    for place in dice.sample(range(len(raw)), 40):
        path.write_bytes(flipped(raw, place, 1 << dice.randrange(8)))
        assert first(run_dir) == str(path), f"byte {place} of {len(raw)}: {raw[place - 20 : place + 20]}"


def test_what_a_run_may_still_write_is_no_problem(run_dir):
    for name in ("engine.log", "train/logs/stage.log", "train/checkpoints/step", "train/data/index/train.idx",
                 "train/data/cache/shard", "timing.json", "report/index.html", "train/.lock"):  # fmt: skip
        with (run_dir / name).open("a") as file:
            file.write("more")
    assert artifacts.verify_run(run_dir) == []


def test_a_change_of_the_same_size_and_time_is_found_by_the_process_that_hashed_the_file(tmp_path):
    put(tmp_path / "pipeline.yaml", seals.seal_text("stages: {}\n"))
    finish(tmp_path, "a", {"x": "one"})
    path, times = tmp_path / "a/outputs/x", (tmp_path / "a/outputs/x").stat()
    put(path, "two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [problem.where for problem in artifacts.verify_run(tmp_path)] == [str(path)]


# -- the cause comes first ---------------------------------------------------------------------------


def run_of_three(run_dir: Path) -> None:
    outside = put(run_dir.parent / "train.jsonl", "rows")
    finish(run_dir, "z", {"x": "one"}, {"train": str(outside)})
    finish(run_dir, "m", {"x": "two"}, {"init": "../z/outputs/x"})
    finish(run_dir, "a", {"x": "three"}, {"init": "../m/outputs/x"})
    configs = {name: artifacts.read_config(run_dir / name / "config.yaml") for name in "zma"}
    put(run_dir / "pipeline.yaml", seals.seal_text(artifacts.config_text({"stages": configs})))


@pytest.mark.parametrize(
    ("damage", "named", "says"),
    [
        (lambda run: put(run / "m/outputs/x", "TWO"), "m/outputs/x", "was changed"),
        (lambda run: (run / "m/outputs/x").unlink(), "m/outputs/x", "not on disk"),
        (lambda run: put(run / "m/outputs/new", ""), "m/outputs/new", "not in the manifest"),
        (lambda run: put(run / "m/data/new", ""), "m/data/new", "not in the manifest"),
        (lambda run: put(run / "m/config.yaml", "seed: 7\n"), "m/config.yaml", "not the config"),
        (lambda run: put(run / "m/manifest.json", "{"), "m/manifest.json", "not readable"),
        (lambda run: (run / "m/manifest.json").unlink(), "m/manifest.json", "made from"),
        (lambda run: finish(run, "z", {"x": "ONE"}, {"train": str(run.parent / "train.jsonl")}),
         "z/manifest.json", "made from"),
        (lambda run: finish(run, "a", {"x": "three"}, {"init": "../m/outputs/x"}, seed=9),
         "run/pipeline.yaml", "another config for a"),
        (lambda run: (run / "pipeline.yaml").unlink(), "run/pipeline.yaml", "cannot be read"),
        (lambda run: put(run.parent / "train.jsonl", "ROWS!"), "train.jsonl", "input `train` of z"),
        (lambda run: (run.parent / "train.jsonl").unlink(), "train.jsonl", "is gone"),
    ],
)  # fmt: skip
def test_the_first_problem_is_the_cause(tmp_path, damage, named, says):
    run = tmp_path / "run"
    run_of_three(run)
    assert artifacts.verify_run(run) == []
    damage(run)
    found = artifacts.verify_run(run)[0]
    assert found.where.endswith(named) and says in found.message and found.fix


def test_a_producer_comes_before_its_consumers_whatever_their_age(tmp_path):
    run_of_three(tmp_path / "run")
    finish(tmp_path / "run", "z", {"x": "one"}, {"train": str(tmp_path / "train.jsonl")})  # now the youngest
    put(tmp_path / "run/z/outputs/x", "ONE")
    put(tmp_path / "run/a/outputs/x", "THREE")
    assert first(tmp_path / "run").endswith("z/outputs/x")


def test_a_checkpoint_of_another_run_is_compared_with_that_runs_manifest(tmp_path):
    finish(tmp_path / "other", "sft", {"model/w": "weights", "model/CONTENT_SHA256": "abc"})
    finish(tmp_path / "run", "dpo", {"x": "one"}, {"init": str(tmp_path / "other/sft/outputs/model")})
    put(tmp_path / "run/pipeline.yaml", seals.seal_text("stages: {}\n"))
    assert artifacts.verify_run(tmp_path / "run") == []
    put(tmp_path / "other/sft/outputs/model/w", "Weights")
    found = artifacts.verify_run(tmp_path / "run")[0]
    assert found.where.endswith("other/sft/outputs/model/w") and "input `init` of dpo" in found.message


# -- legitimate changes ------------------------------------------------------------------------------


def test_another_python_or_checkout_in_a_launch_script_is_no_damage(run_dir, tmp_path):
    script = run_dir / "own/launch.sh"
    text = script.read_text()
    python = put(tmp_path / "another python", "")
    script.write_text(text.replace(sys.executable, f"'{python}'"))
    assert artifacts.verify_run(run_dir) == []
    script.write_text(text.replace(sys.executable, sys.executable + "x"))
    assert first(run_dir) == str(script)


def test_a_run_of_an_older_version_says_what_it_did_not_record(run_dir):
    """Without seals and records: damage is still found and comes first."""
    for path in run_dir.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        for key in ("self_sha256", "records", "machine", "parents"):
            manifest.pop(key)
        artifacts.atomic_write_json(path, {**manifest, "parents": {}})
    lines = (run_dir / "pipeline.yaml").read_text().splitlines(keepends=True)
    (run_dir / "pipeline.yaml").write_text("".join(lines[:-1]))
    assert {problem.message.split(":")[0] for problem in artifacts.verify_run(run_dir)} == {"not recorded"}
    put(run_dir / "leaf/outputs/out.txt", "other")
    assert first(run_dir) == str(run_dir / "leaf/outputs/out.txt")


# -- the command -------------------------------------------------------------------------------------


def test_the_command_counts_what_it_read(run_dir, monkeypatch, capsys):
    monkeypatch.chdir(run_dir.parents[1])
    assert main(["verify", "light"]) == 0
    said = capsys.readouterr().out
    total = sum(path.stat().st_size for path in covered(run_dir))
    assert said.startswith("every file is as it was recorded (5 of 5 stages done, ") and " read)" in said
    reader = Reader()
    assert artifacts.verify_run(run_dir, reader) == []
    assert reader.bytes > total and reader.files == len(covered(run_dir)) + 1, "all covered files and own.jsonl"
    put(run_dir / "own/outputs/train.jsonl", "x")
    assert main(["verify", "light", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["where"].endswith("own/outputs/train.jsonl") and "1 problems (5 of 5" in err


def test_a_directory_without_stages_is_no_run(tmp_path):
    assert "no finished stage" in artifacts.verify_run(tmp_path)[0].message
