"""Hashes, fingerprints and manifests, against values worked out by hand where there are any."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.pipeline import artifacts, hashing, manifests, seals

CFG = {"stage": "a", "kind": "world", "seed": 1, "inputs": {}, "resources": {"nodes": 1, "devices": 1, "threads": 1}}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def finish(run_dir: Path, name: str, outputs: dict[str, str], inputs: dict | None = None, **cfg) -> dict:
    """A done stage with these output files."""
    whole = {**CFG, **cfg, "stage": name, "inputs": inputs or {}}
    put(run_dir / name / "config.yaml", artifacts.config_text(whole))
    for rel, text in outputs.items():
        put(run_dir / name / "outputs" / rel, text)
    return artifacts.write_manifest(run_dir / name, whole, {"rows": 1}, time.time())


# -- configs and writing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [1e-7, 3.0, "1e-7", "1e5", "12e4567", "0.5", "on", "null", "é\n", None, True, [1, "2"], {}, math.pi]
)
def test_a_config_is_read_back_as_it_was(tmp_path, value):
    path = put(tmp_path / "config.yaml", artifacts.config_text({"x": value}))
    read = artifacts.read_config(path)["x"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-7", 1e-7), ("1E5", 1e5), (".5", 0.5), ("2.5e3", 2500.0), ("5.", 5.0), ("7", 7)]
)
def test_numbers_as_people_write_them(tmp_path, text, value):
    read = artifacts.read_config(put(tmp_path / "c.yaml", f"lr: {text}\n"))["lr"]
    assert read == value and type(read) is type(value)


def test_what_is_no_config_is_a_value_error(tmp_path):
    for text in ("- a list", "a: [", ""):
        with pytest.raises(ValueError):
            artifacts.read_config(put(tmp_path / "c.yaml", text))


def test_json_holds_what_json_cannot(tmp_path):
    import numpy

    artifacts.atomic_write_json(
        tmp_path / "x.json", {"a": math.nan, "b": numpy.float32(0.5), "c": Path("p"), "d": (1, 2)}
    )
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": "nan", "b": 0.5, "c": "p", "d": [1, 2]}


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = put(tmp_path / "x.json", "old")
    code = (
        "import os, sys; from recipes.pipeline import artifacts\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "artifacts.atomic_write_text(sys.argv[1], 'new')"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, target], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == -9 and target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2 and artifacts.walk_files(tmp_path) == ["x.json"], (
        "the leftover is no artifact"
    )


# -- hashes ------------------------------------------------------------------------------------------


def test_hash_of_a_file_and_of_a_directory(tmp_path):
    put(tmp_path / "d/b.txt", "two")
    put(tmp_path / "d/a/x", "one")
    put(tmp_path / "d/.cache/x", "not counted")
    assert artifacts.content_hash(tmp_path / "d/b.txt") == sha("two")
    assert artifacts.content_hash(tmp_path / "d") == sha(f'[["a/x","{sha("one")}"],["b.txt","{sha("two")}"]]')
    with pytest.raises(FileNotFoundError):
        artifacts.content_hash(tmp_path / "none")


def test_a_model_directory_tells_its_own_hash(tmp_path):
    put(tmp_path / "m/CONTENT_SHA256", "abc\n")
    put(tmp_path / "m/weights", "one")
    assert artifacts.content_hash(tmp_path / "m") == "abc"


def test_the_cache_sees_a_change_of_the_same_size(tmp_path):
    path = put(tmp_path / "x", "one")
    artifacts.sha256_file(path)
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert artifacts.sha256_file(path) == sha("two")


def test_the_index_of_a_distributed_checkpoint_counts(tmp_path):
    put(tmp_path / "m/model_weights/.metadata", "one")
    before = artifacts.content_hash(tmp_path / "m")
    put(tmp_path / "m/model_weights/.metadata", "two, and longer")
    assert artifacts.content_hash(tmp_path / "m") != before


def test_links_to_directories_are_followed(tmp_path):
    put(tmp_path / "real/w", "one")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model_weights").symlink_to(tmp_path / "real")
    assert artifacts.walk_files(tmp_path / "m") == ["model_weights/w"]


@pytest.mark.parametrize("ref", ["../a/outputs/rows.jsonl", "../a/outputs/d", "../a/outputs/d/.meta"])
def test_an_input_is_hashed_from_its_producers_manifest(tmp_path, monkeypatch, ref):
    finish(tmp_path, "a", {"rows.jsonl": "row", "d/x": "one", "d/.meta": "hidden"})
    expected = artifacts.content_hash(tmp_path / ref.removeprefix("../"))
    hashing._hash_cache.clear()
    monkeypatch.setattr(hashing, "sha256_file", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(manifests, "content_hash", lambda path: pytest.fail(f"{path} was read"))
    assert artifacts.input_hashes(tmp_path / "b", {**CFG, "inputs": {"x": ref}}) == {"x": expected}


def test_a_touched_input_is_hashed_again(tmp_path):
    finish(tmp_path, "a", {"rows.jsonl": "row"})
    path = put(tmp_path / "a/outputs/rows.jsonl", "ROW")
    later = (tmp_path / "a/manifest.json").stat().st_mtime_ns + 1
    os.utime(path, ns=(later, later))
    assert artifacts.input_hashes(tmp_path / "b", {**CFG, "inputs": {"x": "../a/outputs/rows.jsonl"}}) == {
        "x": sha("ROW")
    }


# -- fingerprints ------------------------------------------------------------------------------------


def test_the_fingerprint_follows_contents_not_paths_or_threads(tmp_path):
    def of(**changes) -> str:
        first = changes.pop("cfg", {})  # also puts its keys in another order
        cfg = {**first, **CFG, "inputs": {"x": "p", "many": ["q", "r"], "none": None}, **first}
        return artifacts.fingerprint(cfg, {"x": "1", "many.0": "2", "many.1": "3", **changes})

    same = of()
    assert of(cfg={"inputs": {"x": "elsewhere", "many": ["s", "t"], "none": None}}) == same
    assert of(cfg={"resources": {**CFG["resources"], "threads": 8}}) == same
    assert of(cfg={"seed": 1, "stage": "a"}) == same
    changed = [of(x="9"), of(**{"many.1": "9"}), of(cfg={"seed": 2}), of(cfg={"resources": {"nodes": 1, "devices": 2}})]
    assert len({same, *changed}) == 5


# -- manifests ---------------------------------------------------------------------------------------


def test_the_manifest_names_inputs_outputs_and_parents(tmp_path):
    finish(tmp_path, "a", {"rows.jsonl": "row"})
    outside = put(tmp_path.parent / "outside.jsonl", "out")
    inputs = {"train": "../a/outputs/rows.jsonl", "extra": [str(outside)], "none": None}
    made = finish(tmp_path, "b", {"m/w": "four"}, inputs, kind="pairs")
    assert made == artifacts.read_manifest(tmp_path / "b")
    assert made["inputs"] == {
        "train": {"path": "../a/outputs/rows.jsonl", "sha256": sha("row"), "producer": "a"},
        "extra.0": {"path": str(outside), "sha256": sha("out"), "producer": None},
    }
    assert made["outputs"] == {"m/w": {"sha256": sha("four"), "bytes": 4}}
    assert made["parents"] == {"a": artifacts.sha256_file(tmp_path / "a/manifest.json")}
    assert made["versions"]["python"] == sys.version.split()[0] and made["facts"] == {"rows": 1}
    assert made["started"].endswith("Z") and made["wall_seconds"] >= 0


def test_the_manifest_holds_the_stages_records_and_a_hash_of_itself(tmp_path):
    put(tmp_path / "a/data/train.jsonl", "row")
    put(tmp_path / "a/metrics.jsonl", "step")
    for private in ("logs/stage.log", "checkpoints/step", "data/cache/x", "data/index/x", "wandb/x", ".lock"):
        put(tmp_path / "a" / private, "still written")
    made = finish(tmp_path, "a", {"x": "one"}, seed=math.nan)  # JSON has no nan: the hash is over what is read back
    assert set(made["records"]) == {"config.yaml", "metrics.jsonl", "data/train.jsonl"}
    assert made["records"]["metrics.jsonl"] == {"sha256": sha("step"), "bytes": 4}
    raw = (tmp_path / "a/manifest.json").read_bytes()
    assert seals.intact(json.loads(raw), raw) is True
    assert made["machine"]["cores"] == os.cpu_count()


def test_done_needs_the_fingerprint_and_the_outputs(tmp_path):
    made = finish(tmp_path, "a", {"x": "one"})
    assert artifacts.is_done(tmp_path / "a", made["fingerprint"])
    assert not artifacts.is_done(tmp_path / "a", "another")
    put(tmp_path / "a/outputs/x", "longer")
    assert not artifacts.is_done(tmp_path / "a", made["fingerprint"])
    put(tmp_path / "a/manifest.json", '{"format": 1, "sta')
    assert artifacts.read_manifest(tmp_path / "a") is None
