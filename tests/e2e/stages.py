"""Stage directories made from those of a finished run: same config, other settings."""

from __future__ import annotations

import json
from pathlib import Path

import yaml


def derive(source: Path, target: Path, *overrides: str) -> Path:
    """A new stage directory with `source`'s config, its inputs absolute, changed by overrides like `model.seed=2`."""
    cfg = yaml.safe_load((source / "config.yaml").read_text())
    cfg["inputs"] = {k: _absolute(source, v) for k, v in cfg["inputs"].items()}
    for override in overrides:
        key, _, text = override.partition("=")
        *path, last = key.split(".")
        node = cfg
        for part in path:
            node = node[part]
        assert last in node, f"{key} is not in {source}/config.yaml"
        node[last] = yaml.safe_load(text)
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.yaml").write_text(yaml.safe_dump(cfg, sort_keys=False))
    return target


def _absolute(source: Path, value):
    if isinstance(value, list):
        return [_absolute(source, item) for item in value]
    return value and str((source / value).resolve())


def metrics(stage_dir: Path, event: str = "train") -> list[dict]:
    lines = (stage_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


def facts(stage_dir: Path) -> dict:
    return json.loads((stage_dir / "manifest.json").read_text())["facts"]


def log(stage_dir: Path) -> str:
    return (stage_dir / "logs" / "stage.log").read_text()
