"""What a stage leaves behind: its fingerprint and its manifest.

A stage is done when `manifest.json` is there and its fingerprint is the one its config and its inputs
give. The manifest is written last and atomically, so everything without one is unfinished work.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from recipes.pipeline.files import atomic_write_json, canonical_json
from recipes.pipeline.hashing import (
    CONTENT_FILE,
    content_hash,
    hash_files,
    is_hidden,
    sha256_file,
    tree_hash,
    walk_files,
)
from recipes.pipeline.provenance import git_commit, machine, package_versions
from recipes.pipeline.seals import seal

FORMAT = 1
MANIFEST, CONFIG, OUTPUTS = "manifest.json", "config.yaml", "outputs"
PIPELINE = "pipeline.yaml"  # of a run: every stage's frozen config
STARTED = ".started.json"  # what the unfinished work of a stage is made from
# Of `resources`: how a stage uses a machine and not what comes out: CPU threads, the time limit of its job,
# the kind of GPU that it is laid out for.
MACHINE = ("threads", "time", "gpu")
# What a stage may still write after it is done, or what only its own work needs: not in the manifest.
PRIVATE = ("logs", "checkpoints", "wandb", "data/cache", "data/index", "data/serve")
# What is, besides outputs/ and data/, as `records`.
RECORDED = (CONFIG, "launch.sh", "nemo.yaml", "metrics.jsonl", STARTED)


# -- inputs and fingerprints -------------------------------------------------------------------------


def input_paths(stage_dir: str | Path, cfg: dict) -> dict[str, Path]:
    """Absolute path of every input in use: {"train": ...}, and {"train.0": ..., "train.1": ...} for a list."""
    return {name: resolve(stage_dir, ref) for name, ref in input_refs(cfg)}


def input_refs(cfg: dict) -> Iterator[tuple[str, str]]:
    """(name, reference as frozen) of every input in use, under the names of `input_paths`."""
    for name, value in (cfg.get("inputs") or {}).items():
        if isinstance(value, (list, tuple)):
            yield from ((f"{name}.{index}", item) for index, item in enumerate(value) if item is not None)
        elif value is not None:
            yield name, value


def resolve(stage_dir: str | Path, ref: str) -> Path:
    return Path(os.path.normpath(os.path.join(os.path.abspath(stage_dir), ref)))


def producer_of(stage_dir: str | Path, path: Path) -> str | None:
    """Name of the stage of the same run under whose outputs/ `path` lies, or None."""
    run_dir = Path(os.path.abspath(stage_dir)).parent
    try:
        parts = path.relative_to(run_dir).parts
    except ValueError:
        return None
    return parts[0] if len(parts) > 1 and parts[1] == OUTPUTS else None


def input_hashes(stage_dir: str | Path, cfg: dict) -> dict[str, str]:
    """Content hash of every input, under the names of `input_paths`. FileNotFoundError if one is missing."""
    return {name: _input_hash(path) for name, path in input_paths(stage_dir, cfg).items()}


def _input_hash(path: Path) -> str:
    recorded = None if (path / CONTENT_FILE).is_file() else _recorded_hash(path)
    return recorded or content_hash(path)


def _recorded_hash(path: Path) -> str | None:
    """The content hash of `path` from the manifest of the stage that wrote it; None if that cannot be trusted.

    A file whose size differs from the recorded one or that is younger than the manifest was touched
    since: it is read again.
    """
    outputs = next((parent for parent in path.parents if parent.name == OUTPUTS), None)
    manifest_path = outputs.parent / MANIFEST if outputs else None
    if manifest_path is None or not manifest_path.is_file() or not path.exists():
        return None
    recorded = read_manifest(outputs.parent) or {}
    made, rel = manifest_path.stat().st_mtime_ns, path.relative_to(outputs).as_posix()
    names = [rel] if path.is_file() else [f"{rel}/{name}" for name in walk_files(path)]
    hashes = {}
    for name in names:
        entry, stat = recorded.get("outputs", {}).get(name), (outputs / name).stat()
        if entry is None or entry["bytes"] != stat.st_size or stat.st_mtime_ns > made:
            return None
        hashes[name] = entry["sha256"]
    if path.is_file():
        return hashes[rel]
    within = {name[len(rel) + 1 :]: sha for name, sha in hashes.items()}
    return tree_hash({name: sha for name, sha in within.items() if not is_hidden(name)})


def identity(cfg: dict, hashes: dict[str, str]) -> dict:
    """What makes two runs of a stage the same: the config without MACHINE, inputs by content."""
    same = without_machine(cfg)
    same["inputs"] = {
        name: [hashes.get(f"{name}.{i}") for i in range(len(value))] if isinstance(value, (list, tuple))
        else None if value is None else hashes[name]
        for name, value in (cfg.get("inputs") or {}).items()
    }  # fmt: skip
    return same


def fingerprint(cfg: dict, hashes: dict[str, str]) -> str:
    """Hex SHA-256 of `identity(cfg, hashes)`; `hashes` is what `input_hashes` returns."""
    return hashlib.sha256(canonical_json(identity(cfg, hashes)).encode()).hexdigest()


def config_sha256(cfg: dict) -> str:
    """Hash of the config as written, paths included. MACHINE does not count."""
    return hashlib.sha256(canonical_json(without_machine(cfg)).encode()).hexdigest()


def without_machine(cfg: dict) -> dict:
    """The config as a fingerprint sees it: without MACHINE."""
    return {**cfg, "resources": {k: v for k, v in (cfg.get("resources") or {}).items() if k not in MACHINE}}


def record_start(stage_dir: str | Path, cfg: dict) -> None:
    """Note what the work that begins now is made from, so that it is never resumed with another config or input."""
    hashes = input_hashes(stage_dir, cfg)
    record = {"fingerprint": fingerprint(cfg, hashes), "identity": identity(cfg, hashes)}
    atomic_write_json(Path(stage_dir) / STARTED, record)


def read_start(stage_dir: str | Path) -> dict | None:
    """{"fingerprint", "identity"} of the last start of this stage, None if there is no readable record."""
    try:
        record = json.loads((Path(stage_dir) / STARTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"fingerprint", "identity"} <= record.keys() else None


# -- manifests ---------------------------------------------------------------------------------------


def write_manifest(stage_dir: str | Path, cfg: dict, facts: dict, started: float) -> dict:
    """Hash everything in outputs/ and the stage's records and write manifest.json; returns what was written.

    cfg: the stage's frozen config. facts: what the stage's main() returned. started: unix seconds.
    """
    stage_dir = Path(os.path.abspath(stage_dir))
    hashes, paths, refs = input_hashes(stage_dir, cfg), input_paths(stage_dir, cfg), dict(input_refs(cfg))
    inputs = {
        name: {"path": refs[name], "sha256": hashes[name], "producer": producer_of(stage_dir, paths[name])}
        for name in refs
    }
    now = time.time()
    outputs = _entries(stage_dir / OUTPUTS, walk_files(stage_dir / OUTPUTS))
    parents = {entry["producer"] for entry in inputs.values() if entry["producer"]}
    manifest = {
        "format": FORMAT,
        "stage": cfg["stage"],
        "kind": cfg["kind"],
        "fingerprint": fingerprint(cfg, hashes),
        "config_sha256": config_sha256(cfg),
        "inputs": inputs,
        "outputs": outputs,
        "records": _entries(stage_dir, record_files(stage_dir)),
        "parents": {
            name: sha256_file(stage_dir.parent / name / MANIFEST)
            for name in sorted(parents)
            if (stage_dir.parent / name / MANIFEST).is_file()
        },
        "facts": facts or {},
        "versions": package_versions(),
        "commit": git_commit(),
        "machine": machine(),
        "started": _utc(started),
        "finished": _utc(now),
        "wall_seconds": round(now - started, 3),
    }
    manifest = seal(manifest)
    atomic_write_json(stage_dir / MANIFEST, manifest)
    return manifest


def record_files(stage_dir: Path) -> list[str]:
    """What a finished stage leaves besides outputs/ and its manifest and does not touch again, relative to its folder.

    Its config and launch script, what the trainer got, the curves that the report shows, and the data that was prepared
    for it. Not PRIVATE.
    """
    data = [f"data/{name}" for name in walk_files(stage_dir / "data")]
    found = [name for name in RECORDED if (stage_dir / name).is_file()]
    return found + [name for name in data if not name.startswith(tuple(f"{folder}/" for folder in PRIVATE))]


def _entries(folder: Path, names: list[str]) -> dict[str, dict]:
    hashes = hash_files([folder / name for name in names])
    return {n: {"sha256": sha, "bytes": (folder / n).stat().st_size} for n, sha in zip(names, hashes, strict=True)}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_manifest(stage_dir: str | Path) -> dict | None:
    """The stage's manifest, or None if there is none or it cannot be read (then the stage is not done)."""
    try:
        manifest = json.loads((Path(stage_dir) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def is_done(stage_dir: str | Path, expected_fingerprint: str) -> bool:
    """True if the manifest has this fingerprint and every output it names is there with its size."""
    manifest = read_manifest(stage_dir)
    return bool(manifest) and manifest["fingerprint"] == expected_fingerprint and outputs_present(stage_dir, manifest)


def outputs_present(stage_dir: str | Path, manifest: dict) -> bool:
    """True if every output of the manifest is on disk with the recorded size. Reads no contents."""
    try:
        outputs = Path(stage_dir) / OUTPUTS
        return all((outputs / rel).stat().st_size == entry["bytes"] for rel, entry in manifest["outputs"].items())
    except OSError:
        return False
