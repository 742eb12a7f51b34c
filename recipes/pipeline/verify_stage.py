"""Compare one finished stage with its manifest; see verify.py for what is covered."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from recipes.errors import Problem
from recipes.pipeline.files import config_text, read_config
from recipes.pipeline.hashing import Reader, content_hash, walk_files
from recipes.pipeline.manifests import (
    CONFIG,
    FORMAT,
    MANIFEST,
    OUTPUTS,
    PIPELINE,
    config_sha256,
    read_manifest,
    record_files,
    resolve,
)
from recipes.pipeline.processes import ROOT, launch_script
from recipes.pipeline.seals import intact

LAUNCH = "launch.sh"
NOT_RECORDED = "not recorded"
DAMAGED = (OSError, ValueError, TypeError, AttributeError, KeyError)  # what reading a file with a wrong byte may raise


def stage_problems(stage_dir: Path, planned: dict | None, reader: Reader) -> Iterator[Problem]:
    """What differs from the stage's manifest. planned: the stages of pipeline.yaml, None if they are not known."""
    path = stage_dir / MANIFEST
    try:
        raw = reader.read_bytes(path)
        manifest = json.loads(raw)
        sound = isinstance(manifest, dict) and manifest["format"] == FORMAT
    except DAMAGED:
        sound = False
    if not sound:
        again = f"restore it, or run the pipeline again: it redoes {stage_dir.name}"
        yield Problem("", str(path), "missing or not readable", again)
        return
    whole = intact(manifest, raw)
    if whole is None:
        message = f"{NOT_RECORDED}: hashes of itself, metrics.jsonl, data/ and {LAUNCH}, by an older version"
        yield Problem("", str(path), message, f"`--fresh` makes {stage_dir.name} again")
    elif not whole:
        message = f"was changed after the stage wrote it; the other files of {stage_dir.name} were not compared with it"
        yield Problem("", str(path), message, _redo(stage_dir))
        return
    for look in (_verify_parents, _verify_inputs, _verify_config, _verify_records, _verify_outputs):
        try:
            yield from look(stage_dir, manifest, planned, reader)
        except (TypeError, AttributeError, KeyError) as error:  # of an older run, or edited by hand
            yield Problem("", str(path), f"lacks what it should hold: {error}", _redo(stage_dir))


def _redo(stage_dir: Path) -> str:
    return f"restore the file, or delete {stage_dir} and run the pipeline again"


# -- what the stage was made from --------------------------------------------------------------------


def _verify_parents(stage_dir: Path, manifest: dict, planned, reader: Reader) -> Iterator[Problem]:
    redo = "run the pipeline again: the stage is redone if its input's content differs"
    for parent, recorded in manifest["parents"].items():
        path = stage_dir.parent / parent / MANIFEST
        if not path.is_file() or reader.hash_files([path])[0] != recorded:
            yield Problem("", str(path), f"is not the manifest that {stage_dir.name} was made from", redo)


def _verify_inputs(stage_dir: Path, manifest: dict, planned, reader: Reader) -> Iterator[Problem]:
    """Inputs from outside the run; those from inside are verified as their stage's outputs."""
    for name, entry in manifest["inputs"].items():
        if not entry["producer"]:
            yield from input_problems(resolve(stage_dir, entry["path"]), name, stage_dir.name, entry["sha256"], reader)


def input_problems(path: Path, name: str, stage: str, recorded: str, reader: Reader) -> Iterator[Problem]:
    """What is wrong with an input from outside, of which the content hash was recorded."""
    if not path.exists():
        yield Problem("", str(path), f"input `{name}` of {stage} is gone", "restore it to reproduce the stage")
    elif content_hash(path, reader.hash_files) != recorded:
        redo = "restore it, or run the pipeline again: the stage is redone"
        yield Problem("", str(path), f"input `{name}` of {stage} was changed since", redo)
    else:
        yield from _published(path, name, stage, reader)


def _published(path: Path, name: str, stage: str, reader: Reader) -> Iterator[Problem]:
    """Files of an input in another run's outputs that are not as that run's manifest has them."""
    outputs = next((parent for parent in path.parents if parent.name == OUTPUTS), None)
    recorded = ((read_manifest(outputs.parent) if outputs and path.is_dir() else None) or {}).get("outputs") or {}
    prefix = f"{path.relative_to(outputs).as_posix()}/" if recorded else ""
    mine = {rel: entry for rel, entry in recorded.items() if rel.startswith(prefix)}
    for file, _ in _differing(outputs, mine, reader) if mine else ():
        message = f"was changed in the run that wrote it; it is in input `{name}` of {stage}"
        yield Problem("", str(file), message, "restore it to reproduce the stage")


# -- what it is and what it made ---------------------------------------------------------------------


def _verify_config(stage_dir: Path, manifest: dict, planned: dict | None, reader: Reader) -> Iterator[Problem]:
    path, mine = stage_dir / CONFIG, (planned or {}).get(stage_dir.name)
    again = "run the pipeline again: it writes the config and redoes what differs"
    try:
        text = path.read_text(encoding="utf-8")
        same = config_sha256(read_config(path)) == manifest["config_sha256"]
    except DAMAGED as error:
        yield Problem("", str(path), f"cannot be read: {error}", again)
        return
    if not same:
        yield Problem("", str(path), "is not the config that the outputs were made with", again)
        return
    # The runner writes the file again when only `resources` that do not count differ; it then says what pipeline.yaml
    # says.
    recorded = (manifest.get("records") or {}).get(CONFIG)
    if recorded and reader.hash_files([path])[0] != recorded["sha256"] and (not mine or text != config_text(mine)):
        yield Problem("", str(path), "was changed, though in nothing that the outputs depend on", again)
    elif mine and config_sha256(mine) != manifest["config_sha256"]:
        message = f"has another config for {stage_dir.name} than the one its outputs were made with"
        fix = f"`align run` or `align resume` redoes {stage_dir.name}"
        yield Problem("", str(stage_dir.parent / PIPELINE), message, fix)


def _verify_records(stage_dir: Path, manifest: dict, planned, reader: Reader) -> Iterator[Problem]:
    if "records" not in manifest:
        return  # of an older version, which was said
    recorded = {name: entry for name, entry in manifest["records"].items() if name != CONFIG}
    for path, message in _differing(stage_dir, recorded, reader):
        if path != stage_dir / LAUNCH or not _is_launch_script(path, read_config(stage_dir / CONFIG)):
            yield Problem("", str(path), message, _redo(stage_dir))
    data = (name for name in record_files(stage_dir) if name.startswith("data/"))
    yield from _not_written(stage_dir, data, recorded)


def _is_launch_script(path: Path, cfg: dict) -> bool:
    """Is this what a runner would write now, or one that has another Python or another checkout, which exist?"""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        python = shlex.split(next(line for line in lines if line.startswith("exec ")))[1]
        root = shlex.split(next(line for line in lines if line.startswith("export ")))[1]
        root = root.removeprefix("PYTHONPATH=").removesuffix("${PYTHONPATH:+:$PYTHONPATH}")
        text = launch_script(cfg["stage"], cfg["kind"], cfg["resources"]["devices"])
    except (*DAMAGED, StopIteration, IndexError):
        return False
    for ours, its in ((sys.executable, python), (str(ROOT), root)):
        text = text.replace(shlex.quote(ours), shlex.quote(its), 1)
    return text.encode() == path.read_bytes() and Path(python).is_file() and Path(root).is_dir()


def _verify_outputs(stage_dir: Path, manifest: dict, planned, reader: Reader) -> Iterator[Problem]:
    for path, message in _differing(stage_dir / OUTPUTS, manifest["outputs"], reader):
        yield Problem("", str(path), message, _redo(stage_dir))
    yield from _not_written(stage_dir / OUTPUTS, walk_files(stage_dir / OUTPUTS), manifest["outputs"])


def _differing(folder: Path, recorded: dict[str, dict], reader: Reader) -> Iterator[tuple[Path, str]]:
    there = [folder / rel for rel in recorded if (folder / rel).is_file()]
    hashes = dict(zip(there, reader.hash_files(there), strict=True))
    for rel, entry in recorded.items():
        path = folder / rel
        if path not in hashes:
            yield path, "is in the manifest but not on disk"
        elif hashes[path] != entry["sha256"]:
            yield path, f"was changed after the stage wrote it (SHA-256 is not {entry['sha256'][:12]}...)"


def _not_written(folder: Path, on_disk: Iterable[str], recorded: dict) -> Iterator[Problem]:
    for rel in sorted(set(on_disk) - set(recorded)):
        yield Problem("", str(folder / rel), "is not in the manifest", "delete it: the stage did not write it")
