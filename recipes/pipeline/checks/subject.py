"""One stage as the rules see it: its config, and the model that its inputs lead to."""

from __future__ import annotations

from pathlib import Path

from recipes.checkpoints import hf_folder, nemo2
from recipes.pipeline import references
from recipes.pipeline.checks.external import Checkpoint, checkpoint
from recipes.pipeline.config import Pipeline, StageConfig
from recipes.pipeline.merge import leaves

MODEL_INPUTS = ("init", "policy", "reward_model", "model")
ARCHITECTURE = "num_layers"  # the key that tells a stage that builds a model from one that loads it


class Subject:
    """A stage under examination."""

    def __init__(self, pipeline: Pipeline, stage: StageConfig, run_dir: Path | None = None):
        self.pipeline, self.stage = pipeline, stage
        self.run_dir = run_dir  # where the stage would work, if that is known
        self.name, self.kind, self.cfg = stage.name, stage.kind, stage.cfg

    def get(self, key: str, default=None):
        """The value of a dotted key, `default` where the config does not have it."""
        node = self.cfg
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    def number(self, key: str, default: int | None = None) -> int | None:
        """A whole number, `default` where the key is absent or null."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def where(self, key: str) -> str:
        return self.stage.where(key)

    def keys_named(self, *names: str) -> list[tuple[str, object]]:
        """(dotted key, value) of every leaf whose last part is one of `names`."""
        return [(".".join(key), value) for key, value in leaves(self.cfg) if key[-1] in names]

    @property
    def loop(self) -> str | None:
        """Where the training loop is set: "trainer.sft", "trainer.rm" or "trainer.dpo"; None where nothing trains."""
        trainer = self.get("trainer", {})
        names = [name for name, value in trainer.items() if isinstance(value, dict) and "max_steps" in value]
        return f"trainer.{names[0]}" if names else None

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps, where the config alone tells (-1 means: as many as the data gives)."""
        steps = self.number(f"{self.loop}.max_steps")
        return steps if steps is not None and steps > 0 else None

    @property
    def data_parallel(self) -> int | None:
        """Ranks that see different rows; None where the ranks do not divide into model copies."""
        world = self.number("resources.nodes", 1) * self.number("resources.devices", 1)
        return world // self.model_ranks if world % self.model_ranks == 0 else None

    @property
    def model_ranks(self) -> int:
        """Ranks that hold one copy of the model: TP x PP x CP."""
        kinds = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
        tensor, pipeline, context = (self.number(f"model.{kind}", 1) for kind in kinds)
        return max(1, tensor * pipeline * context)

    def models(self) -> list[tuple[str, Subject | Checkpoint]]:
        """(input name, the stage or the checkpoint that it comes from) for every input that is a model."""
        found = []
        for name in MODEL_INPUTS:
            value = self.get(f"inputs.{name}")
            if isinstance(value, str):
                pair = references.thaw(value)
                parent = self.pipeline.stages.get(pair[0]) if pair else None
                found.append((name, Subject(self.pipeline, parent) if parent else checkpoint(Path(value))))
        if self.kind == "from_hf":
            path = Path(self.get("inputs.checkpoint"))
            found.append(("checkpoint", Checkpoint(path, hf_folder.nemo_config(path))))
        if self.kind == "from_nemo2":
            path, given = Path(self.get("inputs.checkpoint")), self.get("inputs.tokenizer")
            found.append(("checkpoint", Checkpoint(path, nemo2.nemo_config(path, Path(given) if given else None))))
        return found

    def architectures(self) -> list[tuple[str, dict, str]]:
        """(key to report, model config, whose it is) of the model that this stage builds or of each that it loads."""
        if self.get(f"model.{ARCHITECTURE}") is not None:
            return [(f"model.{ARCHITECTURE}", self.cfg["model"], f"stage {self.name}")]
        found = []
        for name, source in self.models():
            if isinstance(source, Subject):
                found += [(f"inputs.{name}", model, whose) for _, model, whose in source.architectures()[:1]]
            elif source.config:
                found.append((f"inputs.{name}", source.config, str(source.path)))
        return found
