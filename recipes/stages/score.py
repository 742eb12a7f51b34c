"""Score: attributes and scalar reward of candidate responses, by the regression reward model."""

from __future__ import annotations

from pathlib import Path

from data_prep.candidates import read_candidates
from data_prep.jsonl import refuse, write_rows
from data_prep.template import Template
from recipes.errors import Problem, UserInputError
from recipes.pipeline.artifacts import content_hash
from recipes.stages import batched, training


def main(cfg: dict, stage_dir: Path) -> dict | None:
    template, model_path = Template.load(cfg["template"]), Path(cfg["inputs"]["reward_model"])
    training.check_template(template, model_path)
    weights = cfg["reward_weights"] or trained_weights(model_path)
    source = cfg["inputs"]["responses"]
    rows = read_candidates(source)
    texts = Texts(rows, template)
    if not len(texts):
        raise refuse(", ".join(source), None, "has no response to score", "D14")
    names = [row.get("id", "a row without id") for row, _ in texts.responses]
    batched.check_lengths(texts.texts, names, 0, model_path, ", ".join(source), stage_dir)

    config = training.load_engine(cfg)
    from recipes.engine.inference import load_reward_model

    model_sha256 = content_hash(model_path)
    identity = [model_sha256, template.sha256, texts.texts]
    done = batched.finish(config, stage_dir, identity, len(texts), load_reward_model, model_path, texts.scorer)
    if done is None:
        return None
    facts = {"responses": len(texts), "reward_weights": weights, "reward_model_sha256": model_sha256,
             "template_sha256": template.sha256}  # fmt: skip
    if training.is_first_rank():
        texts.put(done, weights)
        judge = {"name": model_path.parent.parent.name, "sha256": model_sha256, "template_sha256": template.sha256}
        for row in rows:
            row["reward_model"] = model_sha256
            row["judges"] = {**row.get("judges", {}), "reward": judge}
        write_rows(stage_dir / "outputs" / "scored.jsonl", rows)
        facts["reward_mean"] = sum(r["reward"] for row in rows for r in row["responses"]) / len(texts)
    return facts


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


class Texts:
    """The rendered conversations to be scored; those of similar length share a batch. Job j is text order[j]."""

    def __init__(self, rows: list[dict], template: Template):
        self.responses = [(row, response) for row in rows for response in row["responses"]]
        self.texts = [template.scoring(row["messages"], response["text"] or " ") for row, response in self.responses]
        self.order = sorted(range(len(self.texts)), key=lambda i: (len(self.texts[i]), i))

    def __len__(self) -> int:
        return len(self.texts)

    def scorer(self, model):
        from recipes.engine import inference

        def work(number: int, batch: range) -> list:
            return inference.score(model, [self.texts[self.order[i]] for i in batch]).tolist()

        return work

    def put(self, values, weights: list[float]) -> None:
        """Put "attributes" and "reward" into every response, in place; `values[job]` are its nine slots."""
        from recipes.engine import scoring

        for job, index in enumerate(self.order):
            response = self.responses[index][1]
            response["attributes"] = scoring.named(values[job])
            response["reward"] = scoring.weighted(weights, values[job])


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
