"""Evaluate: greedy answers verified, sampled answers verified and scored, on prompts no stage was trained on."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from data_prep.prompts import read_prompts
from data_prep.template import Template
from data_prep.verify import verify
from recipes.pipeline.artifacts import atomic_write_json, atomic_write_text
from recipes.stages import generate, score, training


def main(cfg: dict, stage_dir: Path) -> dict:
    template, policy_path = Template.load(cfg["template"]), Path(cfg["inputs"]["policy"])
    training.check_template(template, policy_path)
    prompts = read_prompts(Path(cfg["inputs"]["prompts"]))
    judge = Path(cfg["inputs"]["reward_model"]) if cfg["inputs"]["reward_model"] else None
    weights = judge and (cfg["reward_weights"] or score.trained_weights(judge))

    from recipes.engine import setup

    setup.load()
    from recipes.engine import inference
    from recipes.engine.metrics import JsonlLogger

    config = training.as_config(cfg)
    setup.configure(config)
    each = config.responses_per_prompt
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(prompts) * (each + 1))
    trainer = inference.create_trainer(config)
    policy = inference.load_policy(config, trainer, policy_path)
    greedy = generate.sample(policy, config, template, prompts, 1, generate.sampling(config, True), progress)
    sampled = generate.sample(policy, config, template, prompts, each, generate.sampling(config, False), progress)
    del policy

    rows = [{**p, "responses": [*g, *s]} for p, g, s in zip(prompts, greedy, sampled)]
    if judge:
        reward_model = inference.load_reward_model(config, trainer, judge)
        score.score_rows(reward_model, config, template, rows, weights, progress)
    _verify(rows)
    metrics = _metrics(rows)
    if training.is_first_rank():
        outputs = stage_dir / "outputs"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic_write_text(outputs / "samples.jsonl", text)
        atomic_write_json(outputs / "metrics.json", metrics)
    return metrics


def _verify(rows: list[dict]) -> None:
    """Put "verified" into every response whose prompt has a task."""
    for row in rows:
        if row.get("task"):
            for response in row["responses"]:
                response["verified"] = verify(row["task"], response["text"])


def _metrics(rows: list[dict]) -> dict[str, float]:
    """One number a metric; the first response of a row is the greedy one.

    accuracy, accuracy_<family>: verified share of greedy answers; sampled_accuracy, quality: of sampled answers
    (quality: the verifier's 0..1 score that includes manner); reward: mean scalar reward of sampled answers, and
    attribute means; tokens: mean length of sampled answers; finished: share that ended by themselves.
    """
    greedy = [row["responses"][0] for row in rows]
    sampled = [response for row in rows for response in row["responses"][1:]]
    metrics = {}
    judged = [(row["task"], response["verified"]) for row, response in zip(rows, greedy) if "verified" in response]
    if judged:
        families = defaultdict(list)
        for task, verdict in judged:
            families[task["family"]].append(verdict["correct"])
        metrics["accuracy"] = _mean(verdict["correct"] for _, verdict in judged)
        metrics |= {f"accuracy_{name}": _mean(values) for name, values in sorted(families.items())}
        metrics["sampled_accuracy"] = _mean(r["verified"]["correct"] for r in sampled if "verified" in r)
        metrics["quality"] = _mean(r["verified"]["quality"] for r in sampled if "verified" in r)
    if sampled and "reward" in sampled[0]:
        metrics["reward"] = _mean(r["reward"] for r in sampled)
        metrics |= {name: _mean(r["attributes"][name] for r in sampled) for name in sampled[0]["attributes"]}
    metrics["tokens"] = _mean(r["tokens"] for r in sampled)
    metrics["finished"] = _mean(r["finished"] for r in sampled)
    return metrics


def _mean(values) -> float:
    values = [float(value) for value in values]
    return sum(values) / len(values)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
