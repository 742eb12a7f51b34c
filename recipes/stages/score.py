"""Score: attributes and scalar reward of generated responses, by the regression reward model."""

from __future__ import annotations

import json
from pathlib import Path

from data_prep.template import Template
from recipes.errors import Problem, UserInputError
from recipes.pipeline.artifacts import atomic_write_text, content_hash
from recipes.stages import training


def main(cfg: dict, stage_dir: Path) -> dict:
    template, model_path = Template.load(cfg["template"]), Path(cfg["inputs"]["reward_model"])
    training.check_template(template, model_path)
    weights = cfg["reward_weights"] or trained_weights(model_path)
    source = Path(cfg["inputs"]["responses"])
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]

    from recipes.engine import setup

    setup.load()
    from recipes.engine import inference
    from recipes.engine.metrics import JsonlLogger

    config = training.as_config(cfg)
    setup.configure(config)
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", sum(len(row["responses"]) for row in rows))
    model = inference.load_reward_model(config, inference.create_trainer(config), model_path)
    score_rows(model, config, template, rows, weights, progress)
    model_sha256 = content_hash(model_path)
    if training.is_first_rank():
        text = "".join(json.dumps({**row, "reward_model": model_sha256}, ensure_ascii=False) + "\n" for row in rows)
        atomic_write_text(stage_dir / "outputs" / "scored.jsonl", text)
    rewards = [r["reward"] for row in rows for r in row["responses"]]
    return {"reward_mean": sum(rewards) / len(rewards), "responses": len(rewards), "reward_weights": weights,
            "reward_model_sha256": model_sha256, "template_sha256": template.sha256}  # fmt: skip


def trained_weights(model_path: Path) -> list[float]:
    """The weights the reward model's own stage published with it."""
    import yaml

    config = model_path.parent.parent / "config.yaml"
    if config.is_file() and (weights := yaml.safe_load(config.read_text()).get("reward_weights")):
        return weights
    raise UserInputError(
        Problem("", "reward_weights", f"is null and {model_path} was not made by a reward stage of this project",
                "set the nine weights")
    )  # fmt: skip


def score_rows(model, config, template: Template, rows: list[dict], weights: list[float], progress) -> None:
    """Put "attributes" and "reward" into every response of `rows`, in place."""
    from recipes.engine import inference, scoring

    responses = [(row, response) for row in rows for response in row["responses"]]
    texts = [template.scoring(row["messages"], response["text"] or " ") for row, response in responses]
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))

    def work(number: int, batch: range) -> list:
        return inference.score(model, [texts[order[i]] for i in batch]).tolist()

    with inference.inference_mode(model):
        values = inference.sharded(len(order), config.batch_size, work, progress)
    for index, attributes in zip(order, values):
        responses[index][1]["attributes"] = scoring.named(attributes)
        responses[index][1]["reward"] = scoring.weighted(weights, attributes)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
