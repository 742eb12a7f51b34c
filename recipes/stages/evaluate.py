"""Evaluate: greedy answers verified, sampled answers verified, scored and compared with a reference policy, on prompts
that no stage was trained on."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from data_prep.jsonl import write_rows
from data_prep.prompts import read_prompts
from data_prep.template import Template
from data_prep.verify import verify
from recipes.pipeline.artifacts import atomic_write_json
from recipes.stages import batched, generate, score, training


def main(cfg: dict, stage_dir: Path) -> dict:
    template = Template.load(cfg["template"])
    inputs = {name: Path(path) for name, path in cfg["inputs"].items() if path}
    training.check_template(template, inputs["policy"])
    prompts = read_prompts(inputs["prompts"], template)
    texts, ids = [template.prompt(prompt["messages"]) for prompt in prompts], [prompt["id"] for prompt in prompts]
    batched.check_lengths(texts, ids, cfg["max_new_tokens"], inputs["policy"], inputs["prompts"], stage_dir)
    judge = inputs.get("reward_model")
    weights = judge and (cfg["reward_weights"] or score.trained_weights(judge))

    config = training.load_engine(cfg)
    from recipes.engine import inference
    from recipes.engine.metrics import JsonlLogger

    each = config.responses_per_prompt
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(prompts) * (each + 1))
    trainer = inference.create_trainer(config)
    policy = inference.load_policy(config, trainer, inputs["policy"])
    greedy = _answers(policy, cfg, generate.Jobs(texts, template, 1, config.batch_size), True, progress)
    jobs = generate.Jobs(texts, template, each, config.batch_size)
    sampled = _answers(policy, cfg, jobs, False, progress)
    shift = _Shift(jobs, sampled)
    if "reference" in inputs:
        shift.measure(policy, config)
    del policy
    if "reference" in inputs:
        shift.measure(inference.load_policy(config, trainer, inputs["reference"]), config)

    rows = [
        {**prompt, "responses": [generate.public(r) for r in (*first, *others)]}
        for prompt, first, others in zip(prompts, greedy, sampled)
    ]
    if judge:
        _score(inference.load_reward_model(config, trainer, judge), config, template, rows, weights, progress)
    _verify(rows)
    metrics = _metrics(rows) | shift.metrics()
    if training.is_first_rank():
        write_rows(stage_dir / "outputs" / "samples.jsonl", rows)
        atomic_write_json(stage_dir / "outputs" / "metrics.json", metrics)
    return metrics


def _answers(policy, cfg: dict, jobs: generate.Jobs, greedy: bool, progress) -> list[list[dict]]:
    """Responses by prompt, with their token ids; every rank has all of them."""
    from recipes.engine import batches, inference

    with inference.inference_mode(policy):
        flat = batches.in_memory(len(jobs), jobs.size, jobs.sampler(cfg, greedy)(policy), progress)
    return list(jobs.rows(flat))


def _score(reward_model, config, template: Template, rows: list[dict], weights, progress) -> None:
    from recipes.engine import batches, inference

    texts = score.Texts(rows, template)
    with inference.inference_mode(reward_model):
        values = batches.in_memory(len(texts), config.batch_size, texts.scorer(reward_model), progress)
    texts.put(values, weights)


class _Shift:
    """How far the policy has moved from the reference policy: KL(policy || reference), on the policy's own samples.

    The mean over samples y ~ policy of log policy(y|x) - log reference(y|x) is an unbiased estimate of it, in nats a
    response, if samples are drawn at temperature 1 from all tokens; with other settings it is not reported.
    """

    def __init__(self, jobs: generate.Jobs, sampled: list[list[dict]]):
        self.prompts = [text for text, mine in zip(jobs.texts, sampled) for _ in mine]
        self.ids = [response["ids"] for mine in sampled for response in mine]
        self.logprobs: list[list[float]] = []
        self.unbiased = True

    def measure(self, model, config) -> None:
        """Log-probabilities of the samples under one more model; first the policy, then the reference."""
        from recipes.engine import batches, inference

        self.unbiased = config.temperature == 1.0 and config.top_p == 1.0 and not config.top_k
        rows = [i for i, ids in enumerate(self.ids) if ids]

        def work(number: int, batch: range) -> list[float]:
            chosen = [rows[i] for i in batch]
            return inference.logprobs(model, [self.prompts[i] for i in chosen], [self.ids[i] for i in chosen])

        with inference.inference_mode(model):
            self.logprobs.append(batches.in_memory(len(rows), config.batch_size, work, lambda count: None))

    def metrics(self) -> dict[str, float]:
        if len(self.logprobs) < 2 or not self.unbiased:
            return {}
        total = sum(ours - theirs for ours, theirs in zip(*self.logprobs))
        return {"kl": total / len(self.ids), "kl_per_token": total / sum(map(len, self.ids))}


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
