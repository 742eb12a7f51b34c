"""What a stage leaves behind: content hashes, fingerprints and manifests.

A stage is done when `manifest.json` is there and its fingerprint is the one its config and its inputs
give. The manifest is written last and atomically, so everything without one is unfinished work.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recipes.errors import Problem

FORMAT = 1
MANIFEST, CONFIG, OUTPUTS = "manifest.json", "config.yaml", "outputs"
# A directory that holds this file has the file's text as its content hash. Model directories write it:
# a digest over tensors, config and tokenizer does not depend on timestamps inside the checkpoint files.
CONTENT_FILE = "CONTENT_SHA256"
# Versions recorded in every manifest, where installed.
PACKAGES = (
    "nemo-aligner", "nemo-toolkit", "megatron-core", "torch", "pytorch-lightning", "transformer-engine",
    "apex", "flash-attn", "numpy", "sentencepiece", "transformers", "hydra-core", "omegaconf", "PyYAML",
)  # fmt: skip
_BUFFER = 1 << 20


# -- writing -----------------------------------------------------------------------------------------


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) so that a reader, or a machine that loses power, sees the old file or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(tmp, "w", encoding="utf-8", newline="") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def atomic_write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Numbers that JSON cannot hold become text ("nan", "inf")."""
    atomic_write_text(path, json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """`value` with only JSON types: numpy and torch scalars, paths and tuples come from stages' facts."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "item"):
        return _plain(value.item())
    return str(value)


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces. What fingerprints are taken over."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# -- configs -----------------------------------------------------------------------------------------


def read_config(path: str | Path) -> dict:
    """A frozen stage config (or any YAML mapping) as a plain dict."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        pass

    # YAML 1.1 reads `1e-7`, as people write it by hand, as text.
    number = r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(number), list("-+0123456789."))
    value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a YAML mapping")
    return value


def config_text(cfg: dict) -> str:
    """`cfg` as the YAML text of a config.yaml; `read_config` gives the same dict back."""
    import yaml

    return yaml.safe_dump(_plain(cfg), sort_keys=False, allow_unicode=True, width=100, default_flow_style=False)


# -- hashing -----------------------------------------------------------------------------------------

_hash_cache: dict[tuple[str, int, int], str] = {}


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes; computed once a process while path, size and mtime stay the same."""
    stat = os.stat(path)
    key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hash_cache:
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as source:
            while block := source.read(_BUFFER):
                digest.update(block)
        _hash_cache[key] = digest.hexdigest()
    return _hash_cache[key]


def content_hash(path: str | Path) -> str:
    """The content hash of a file or directory; FileNotFoundError if it is not there.

    A file: SHA-256 of its bytes. A directory: the text of its CONTENT_SHA256 if it has one, otherwise
    SHA-256 over the sorted (relative path, file SHA-256) pairs, leaving out names that start with ".".
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    if (path / CONTENT_FILE).is_file():
        return (path / CONTENT_FILE).read_text(encoding="utf-8").strip()
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or directory: {path}")
    files = [rel for rel in walk_files(path) if not _hidden(rel)]
    return _tree_hash(dict(zip(files, _hash_many([path / rel for rel in files]))))


def _hidden(rel: str) -> bool:
    return any(part.startswith(".") for part in rel.split("/"))


def _tree_hash(files: dict[str, str]) -> str:
    return hashlib.sha256(canonical_json(sorted(files.items())).encode()).hexdigest()


def walk_files(root: Path) -> list[str]:
    """Paths of all files under `root`, relative, "/"-separated and sorted. Links to directories are followed."""
    found = []
    for folder, _, names in os.walk(root, followlinks=True):
        base = Path(folder).relative_to(root)
        found += [(base / name).as_posix() for name in names if not _is_leftover(name)]
    return sorted(found)


def _is_leftover(name: str) -> bool:
    """A temporary file of `atomic_write_text` that a killed process left."""
    return name.startswith(".") and name.endswith(".tmp")


def _hash_many(paths: list[Path]) -> list[str]:
    # hashlib works outside the interpreter lock: the shards of a large checkpoint are hashed side by side.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(sha256_file, paths))


# -- inputs and fingerprints -------------------------------------------------------------------------


def input_paths(stage_dir: str | Path, cfg: dict) -> dict[str, Path]:
    """Absolute path of every input in use: {"train": ...}, and {"train.0": ..., "train.1": ...} for a list."""
    return {name: _resolve(stage_dir, ref) for name, ref in _input_refs(cfg)}


def _input_refs(cfg: dict) -> Iterator[tuple[str, str]]:
    for name, value in (cfg.get("inputs") or {}).items():
        if isinstance(value, (list, tuple)):
            yield from ((f"{name}.{index}", item) for index, item in enumerate(value) if item is not None)
        elif value is not None:
            yield name, value


def _resolve(stage_dir: str | Path, ref: str) -> Path:
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
    return _tree_hash({name: sha for name, sha in within.items() if not _hidden(name)})


def identity(cfg: dict, hashes: dict[str, str]) -> dict:
    """What makes two runs of a stage the same: the config without `resources.threads`, inputs by content."""
    same = {**cfg, "resources": {k: v for k, v in (cfg.get("resources") or {}).items() if k != "threads"}}
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
    """Hash of the config as written, paths included. `resources.threads` does not count, nor does the layout."""
    resources = {k: v for k, v in (cfg.get("resources") or {}).items() if k != "threads"}
    return hashlib.sha256(canonical_json({**cfg, "resources": resources}).encode()).hexdigest()


# -- manifests ---------------------------------------------------------------------------------------


def write_manifest(stage_dir: str | Path, cfg: dict, facts: dict, started: float) -> dict:
    """Hash everything in outputs/ and write manifest.json; returns what was written.

    cfg: the stage's frozen config. facts: what the stage's main() returned. started: unix seconds.
    """
    stage_dir = Path(os.path.abspath(stage_dir))
    hashes, paths, refs = input_hashes(stage_dir, cfg), input_paths(stage_dir, cfg), dict(_input_refs(cfg))
    inputs = {
        name: {"path": refs[name], "sha256": hashes[name], "producer": producer_of(stage_dir, paths[name])}
        for name in refs
    }
    outputs_dir, now = stage_dir / OUTPUTS, time.time()
    names = walk_files(outputs_dir)
    files = zip(names, _hash_many([outputs_dir / name for name in names]))
    parents = {entry["producer"] for entry in inputs.values() if entry["producer"]}
    manifest = {
        "format": FORMAT,
        "stage": cfg["stage"],
        "kind": cfg["kind"],
        "fingerprint": fingerprint(cfg, hashes),
        "config_sha256": config_sha256(cfg),
        "inputs": inputs,
        "outputs": {n: {"sha256": sha, "bytes": (outputs_dir / n).stat().st_size} for n, sha in files},
        "parents": {
            name: sha256_file(stage_dir.parent / name / MANIFEST)
            for name in sorted(parents)
            if (stage_dir.parent / name / MANIFEST).is_file()
        },
        "facts": facts or {},
        "versions": package_versions(),
        "commit": git_commit(),
        "started": _utc(started),
        "finished": _utc(now),
        "wall_seconds": round(now - started, 3),
    }
    atomic_write_json(stage_dir / MANIFEST, manifest)
    return manifest


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def package_versions() -> dict[str, str]:
    """Versions of this code, of Python and of those of PACKAGES that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    import recipes

    versions = {"recipes": recipes.__version__, "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit this code was checked out at, read from .git without starting git; None if it is not a checkout."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head[len("ref: ") :]
        if (git / ref).is_file():
            return (git / ref).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), None)
    except OSError:
        return None


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


# -- verification ------------------------------------------------------------------------------------


def verify_stage(stage_dir: str | Path) -> list[Problem]:
    """Read the stage's files again and compare with its manifest. Empty list: all as recorded."""
    stage_dir = Path(os.path.abspath(stage_dir))
    manifest = read_manifest(stage_dir)
    if manifest is None:
        again = f"run the pipeline again: it redoes {stage_dir.name}"
        return [Problem("", str(stage_dir / MANIFEST), "missing or not readable", again)]
    return [*_verify_outputs(stage_dir, manifest), *_verify_config(stage_dir, manifest), *_verify_inputs(stage_dir, manifest)]


def _verify_outputs(stage_dir: Path, manifest: dict) -> Iterator[Problem]:
    redo = f"restore the file, or run the pipeline again with --fresh {stage_dir.name}"
    on_disk = set(walk_files(stage_dir / OUTPUTS))
    for rel, entry in manifest["outputs"].items():
        where = str(stage_dir / OUTPUTS / rel)
        if rel not in on_disk:
            yield Problem("", where, "is in the manifest but not on disk", redo)
        elif sha256_file(where) != entry["sha256"]:
            yield Problem("", where, f"was changed after the stage wrote it (SHA-256 is not {entry['sha256'][:12]}...)", redo)
    for rel in sorted(on_disk - set(manifest["outputs"])):
        yield Problem("", str(stage_dir / OUTPUTS / rel), "is not in the manifest", "delete it: the stage did not write it")


def _verify_config(stage_dir: Path, manifest: dict) -> Iterator[Problem]:
    path = stage_dir / CONFIG
    try:
        if config_sha256(read_config(path)) == manifest["config_sha256"]:
            return
        message = "is not the config that the outputs were made with"
    except (OSError, ValueError) as error:
        message = f"cannot be read: {error}"
    yield Problem("", str(path), message, "run the pipeline again: it writes the config and redoes what differs")


def _verify_inputs(stage_dir: Path, manifest: dict) -> Iterator[Problem]:
    redo = "run the pipeline again: the stage is redone if its input's content differs"
    for parent, recorded in manifest["parents"].items():
        path = stage_dir.parent / parent / MANIFEST
        if not path.is_file() or sha256_file(path) != recorded:
            yield Problem("", str(path), f"is not the manifest that {stage_dir.name} was made from", redo)
    for name, entry in manifest["inputs"].items():
        if entry["producer"]:
            continue  # verified as that stage's output
        path = _resolve(stage_dir, entry["path"])
        if not path.exists():
            yield Problem("", str(path), f"input `{name}` of {stage_dir.name} is gone", "restore it to reproduce the stage")
        elif content_hash(path) != entry["sha256"]:
            yield Problem("", str(path), f"input `{name}` of {stage_dir.name} was changed since", redo)


def verify_run(run_dir: str | Path) -> list[Problem]:
    """`verify_stage` for every stage that has a manifest, producers first: the first problem is the cause."""
    dirs = [path.parent for path in Path(run_dir).glob(f"*/{MANIFEST}")]
    if not dirs:
        return [Problem("", str(run_dir), "no finished stage here", "give the directory of a run (runs/<name>)")]
    dirs.sort(key=lambda path: ((read_manifest(path) or {}).get("finished", ""), path.name))
    return [problem for path in dirs for problem in verify_stage(path)]
