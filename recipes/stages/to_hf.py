"""To Hugging Face: a trained model, or reward model, becomes a folder that transformers and vLLM read."""

from __future__ import annotations

from pathlib import Path

from recipes.checkpoints.hf_folder import dtype_problems
from recipes.checkpoints.nemo_folder import NemoFolder
from recipes.errors import Problem, UserInputError
from recipes.stages import score, training


def main(cfg: dict, stage_dir: Path) -> dict:
    source = NemoFolder.open(Path(cfg["inputs"]["model"]))
    if found := [Problem("K4", *trouble) for trouble in dtype_problems(cfg["dtype"])]:
        raise UserInputError(found)
    weights = _reward_weights(cfg, source)

    config = training.load_engine(cfg)
    from recipes.engine.convert import to_hf

    return to_hf.convert(config, stage_dir, source, weights)


def _reward_weights(cfg: dict, source: NemoFolder) -> list[float] | None:
    """Of a reward model: those of the config, else of the stage that trained it, else none are known."""
    if cfg["reward_weights"] is not None or not source.config.get("reward_model_type"):
        return cfg["reward_weights"]
    try:
        return score.trained_weights(source.path)
    except UserInputError:
        return None


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
