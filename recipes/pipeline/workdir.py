"""The folder of one stage before it is started: is it done, can it resume, or must it begin anew?"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from recipes.pipeline import artifacts
from recipes.pipeline.processes import launch_script

# Work that a killed attempt leaves. A folder without these (config and launch script alone) is a new one.
WORK = ("checkpoints", "outputs", "data", "metrics.jsonl", artifacts.MANIFEST)
REPLACED = ".replaced"  # the previous contents of stages that were redone, one generation of each


@dataclass(frozen=True)
class Decision:
    """action: "skip" (done), "start" (new), "resume" (unfinished, same config and inputs), "redo" (begin anew)."""

    action: str
    reason: str
    fingerprint: str


def decide(stage_dir: Path, cfg: dict, fresh: bool = False) -> Decision:
    """What to do with a stage whose inputs are all there. FileNotFoundError if one is missing."""
    hashes = artifacts.input_hashes(stage_dir, cfg)
    expected = artifacts.fingerprint(cfg, hashes)
    manifest = artifacts.read_manifest(stage_dir)
    if not has_work(stage_dir):
        return Decision("start", "", expected)
    if fresh:
        return Decision("redo", "as asked for", expected)
    if manifest is not None:
        if manifest["fingerprint"] != expected:
            reason = changes(_done_identity(stage_dir, manifest), artifacts.identity(cfg, hashes))
            return Decision("redo", reason, expected)
        if not artifacts.outputs_present(stage_dir, manifest):
            return Decision("redo", "an output is missing or has another size", expected)
        return Decision("skip", "unchanged", expected)
    started = artifacts.read_start(stage_dir)
    if started is None:
        return Decision("redo", "it holds unfinished work of an unknown config", expected)
    if started["fingerprint"] != expected:
        return Decision("redo", changes(started["identity"], artifacts.identity(cfg, hashes)), expected)
    if not _config_unchanged(stage_dir, expected):
        return Decision("redo", "its config.yaml was edited after the unfinished work began", expected)
    return Decision("resume", "", expected)


def has_work(stage_dir: Path) -> bool:
    """True if the folder holds anything that a stage wrote."""
    return any((stage_dir / name).exists() for name in WORK)


def _config_unchanged(stage_dir: Path, expected: str) -> bool:
    try:
        cfg = artifacts.read_config(stage_dir / artifacts.CONFIG)
        return artifacts.fingerprint(cfg, artifacts.input_hashes(stage_dir, cfg)) == expected
    except (OSError, ValueError):
        return False


def _done_identity(stage_dir: Path, manifest: dict) -> dict:
    """What a done stage was made from: its config.yaml if that is still the one, with the inputs of the manifest."""
    hashes = {name: entry["sha256"] for name, entry in manifest["inputs"].items()}
    try:
        cfg = artifacts.read_config(stage_dir / artifacts.CONFIG)
        if artifacts.config_sha256(cfg) == manifest["config_sha256"]:
            return artifacts.identity(cfg, hashes)
    except (OSError, ValueError, KeyError):
        pass
    return {}


def changes(old: dict, new: dict, show: int = 3) -> str:
    """One line on what differs between two `artifacts.identity` values."""
    if not old:
        return "it was made with another config"
    before, after = _leaves(old), _leaves(new)
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key, _ABSENT) != after.get(key, _ABSENT)]
    shown = [_change(key, before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in keys[:show]]
    more = f" and {len(keys) - show} more" if len(keys) > show else ""
    return ", ".join(shown) + more + " changed"


_ABSENT = "not set"


def _change(key: str, old: object, new: object) -> str:
    if key == "inputs" or key.startswith("inputs."):
        return f"input {key.removeprefix('inputs.')}"
    old, new = str(old), str(new)
    return f"{key} ({old} -> {new})" if len(old) + len(new) < 80 else key


def _leaves(value: object, key: str = "") -> dict[str, object]:
    if not isinstance(value, dict) or not value:
        return {key: value}
    found = {}
    for name, item in value.items():
        found.update(_leaves(item, f"{key}.{name}" if key else str(name)))
    return found


# -- writing -----------------------------------------------------------------------------------------


def write_files(stage_dir: Path, cfg: dict) -> None:
    """config.yaml and launch.sh, each only if its text changes."""
    _write_if_new(stage_dir / artifacts.CONFIG, artifacts.config_text(cfg))
    script = stage_dir / "launch.sh"
    _write_if_new(script, launch_script(cfg["stage"], cfg["kind"], cfg["resources"]["devices"]))
    script.chmod(0o755)


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        artifacts.atomic_write_text(path, text)


def write_early(stage_dir: Path, cfg: dict) -> None:
    """`write_files`, unless the folder holds work of another config: that config is needed to say what changed."""
    try:
        there = artifacts.read_config(stage_dir / artifacts.CONFIG)
        same = artifacts.config_sha256(there) == artifacts.config_sha256(cfg)
    except (OSError, ValueError):
        same = False
    if same or not has_work(stage_dir):
        write_files(stage_dir, cfg)


def open_attempt(stage_dir: Path, cfg: dict, decision: Decision) -> None:
    """Make the folder ready for an attempt and record what the work in it is made from, before any of it exists."""
    if decision.action == "redo":
        set_aside(stage_dir)
    write_files(stage_dir, cfg)
    artifacts.record_start(stage_dir, cfg)
    (stage_dir / "logs").mkdir(exist_ok=True)


def set_aside(stage_dir: Path) -> None:
    """Move the folder to <run>/.replaced/<stage>, in place of what was there, so that nothing in it is resumed."""
    target = stage_dir.parent / REPLACED / stage_dir.name
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    stage_dir.rename(target)
