"""What the conversions share: waiting for the first rank, what a NeMo directory holds, and the last act."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from recipes.checkpoints import tensors
from recipes.engine.convert import torch_dist
from recipes.engine.digest import content_hash
from recipes.pipeline.artifacts import atomic_write_json
from recipes.ranks import attempt

WRITTEN = "written.json"


def say_written(stage_dir: Path, facts: dict) -> None:
    """The first rank has converted; the others may load the result."""
    (stage_dir / "data").mkdir(exist_ok=True)
    atomic_write_json(stage_dir / "data" / WRITTEN, {**facts, "attempt": attempt()})


def wait_written(stage_dir: Path) -> dict:
    """What say_written said. There is no process group before a model is loaded, only the shared file system."""
    ready = stage_dir / "data" / WRITTEN
    while True:
        if ready.exists() and (found := json.loads(ready.read_text()))["attempt"] == attempt():
            return found
        time.sleep(0.2)


def extra_states(layers: int) -> list[str]:
    """Transformer Engine's objects in a checkpoint of a whole model, see tensors.EXTRA_OF_LAYERS."""
    of_layers = (tensors.PREFIX + tensors.LAYERS + name for name in tensors.EXTRA_OF_LAYERS)
    of_model = (tensors.PREFIX + name for name in tensors.EXTRA_OF_MODEL)
    return torch_dist.extra_states(of_layers, layers) + torch_dist.extra_states(of_model, 1)


def publish_model(cfg, result: Unpublished, facts: dict) -> None:
    """Add the content hash to `facts`, write both into the NeMo directory, and give it its name."""
    facts["model_sha256"] = content_hash(result.path)
    said = {"kind": cfg["kind"], "stage": cfg["stage"], **facts}
    (result.path / "stage.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    (result.path / "CONTENT_SHA256").write_text(facts["model_sha256"])
    result.publish()


class Unpublished:
    """A directory under a temporary name: renamed to its own at the end, removed if anything goes wrong."""

    def __init__(self, target: Path):
        self.target, self.path = target, target.with_name(f".{target.name}.tmp")

    def start(self) -> Path:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        return self.path

    def publish(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        self.path.rename(self.target)

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
