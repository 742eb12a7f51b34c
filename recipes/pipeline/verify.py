"""Compare what is on disk with what the manifests say: `align verify`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from recipes.errors import Problem
from recipes.pipeline.files import read_config
from recipes.pipeline.hashing import content_hash, sha256_file, walk_files
from recipes.pipeline.manifests import CONFIG, MANIFEST, OUTPUTS, config_sha256, read_manifest, resolve


def verify_stage(stage_dir: str | Path) -> list[Problem]:
    """Read the stage's files again and compare with its manifest. Empty list: all as recorded."""
    stage_dir = Path(os.path.abspath(stage_dir))
    manifest = read_manifest(stage_dir)
    if manifest is None:
        again = f"run the pipeline again: it redoes {stage_dir.name}"
        return [Problem("", str(stage_dir / MANIFEST), "missing or not readable", again)]
    looks = (_verify_outputs, _verify_config, _verify_inputs)
    return [problem for look in looks for problem in look(stage_dir, manifest)]


def _verify_outputs(stage_dir: Path, manifest: dict) -> Iterator[Problem]:
    redo = f"restore the file, or delete {stage_dir} and run the pipeline again"
    on_disk = set(walk_files(stage_dir / OUTPUTS))
    for rel, entry in manifest["outputs"].items():
        where = str(stage_dir / OUTPUTS / rel)
        if rel not in on_disk:
            yield Problem("", where, "is in the manifest but not on disk", redo)
        elif sha256_file(where) != entry["sha256"]:
            message = f"was changed after the stage wrote it (SHA-256 is not {entry['sha256'][:12]}...)"
            yield Problem("", where, message, redo)
    for rel in sorted(on_disk - set(manifest["outputs"])):
        where = str(stage_dir / OUTPUTS / rel)
        yield Problem("", where, "is not in the manifest", "delete it: the stage did not write it")


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
        path = resolve(stage_dir, entry["path"])
        if not path.exists():
            message = f"input `{name}` of {stage_dir.name} is gone"
            yield Problem("", str(path), message, "restore it to reproduce the stage")
        elif content_hash(path) != entry["sha256"]:
            yield Problem("", str(path), f"input `{name}` of {stage_dir.name} was changed since", redo)


def verify_run(run_dir: str | Path) -> list[Problem]:
    """`verify_stage` for every stage that has a manifest, producers first: the first problem is the cause."""
    dirs = [path.parent for path in Path(run_dir).glob(f"*/{MANIFEST}")]
    if not dirs:
        return [Problem("", str(run_dir), "no finished stage here", "give the directory of a run (runs/<name>)")]
    dirs.sort(key=lambda path: ((read_manifest(path) or {}).get("finished", ""), path.name))
    return [problem for path in dirs for problem in verify_stage(path)]
