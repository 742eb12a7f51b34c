"""Generate: a policy's responses to a file of prompts, in batches that survive a kill and that an array can share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.first_turns import refuse_shared
from data_prep.jsonl import write_rows
from data_prep.prompts import read_prompts
from data_prep.template import Template
from recipes.pipeline.artifacts import content_hash
from recipes.stages import batched, training


def main(cfg: dict, stage_dir: Path) -> dict | None:
    template, policy_path = Template.load(cfg["template"]), Path(cfg["inputs"]["policy"])
    training.check_template(template, policy_path)
    prompts = read_prompts(Path(cfg["inputs"]["prompts"]), template)
    refuse_shared(prompts, cfg["inputs"]["prompts"], cfg["inputs"]["disjoint_from"], template)
    texts, ids = [template.prompt(prompt["messages"]) for prompt in prompts], [prompt["id"] for prompt in prompts]
    batched.check_lengths(texts, ids, cfg["max_new_tokens"], policy_path, cfg["inputs"]["prompts"], stage_dir)

    config = training.load_engine(cfg)
    from recipes.engine.inference import load_policy

    policy_sha256 = content_hash(policy_path)
    jobs = Jobs(texts, template, cfg["responses_per_prompt"], cfg["batch_size"])
    identity, work = [policy_sha256, template.sha256, texts, decoding(cfg)], jobs.sampler(cfg, cfg["greedy"])
    done = batched.finish(config, stage_dir, identity, len(jobs), load_policy, policy_path, work)
    if done is None:
        return None
    writer = f"{model_name(cfg)}@{policy_sha256[:12]}"
    totals = Totals()
    if training.is_first_rank():
        found = zip(prompts, jobs.rows(done))
        rows = ({**row, "responses": [totals.add(public(r) | {"model": writer}) for r in mine]} for row, mine in found)
        write_rows(stage_dir / "outputs" / "responses.jsonl", rows)
    return totals.facts() | {"prompts": len(prompts), "template_sha256": template.sha256}


def decoding(cfg: dict) -> dict:
    names = ("seed", "max_new_tokens", "temperature", "top_k", "top_p", "greedy")
    return {name: cfg[name] for name in names if name in cfg}


def model_name(cfg: dict) -> str:
    """The stage that made the policy, or the file's name: what people call the model."""
    path = Path(cfg["inputs"]["policy"])
    return path.parent.parent.name if path.parent.name == "outputs" else path.stem


class Jobs:
    """What is to be generated: `each` continuations of every text; texts of similar length share a batch.

    Job j is the (j % each)-th continuation of text order[j // each]. stop, before_stop: as in inference.generate.
    """

    def __init__(self, texts: list[str], template: Template, each: int, size: int):
        self.texts, self.each, self.size = texts, each, size
        self.stop, self.before_stop = template.stop, template.before_stop
        self.order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))

    def __len__(self) -> int:
        return len(self.texts) * self.each

    def prompt(self, job: int) -> str:
        return self.texts[self.order[job // self.each]]

    def sampler(self, cfg: dict, greedy: bool) -> Callable:
        """model -> the work of one batch (engine.batches), with the decoding settings of `cfg`."""
        from recipes.engine import inference

        how = inference.Sampling(cfg["max_new_tokens"], cfg["temperature"], cfg["top_k"], cfg["top_p"], greedy)

        def sample(model):
            def work(number: int, rows: range) -> list[dict]:
                texts = [self.prompt(row) for row in rows]
                return inference.generate(model, texts, how, self.stop, cfg["seed"], number, self.before_stop)

            return work

        return sample

    def rows(self, results) -> Iterator[list]:
        """The results of each text, in the order of the texts; `results[job]` is one of them."""
        place = {number: position for position, number in enumerate(self.order)}
        for number in range(len(self.texts)):
            first = place[number] * self.each
            yield [results[job] for job in range(first, first + self.each)]


def public(response: dict) -> dict:
    """A response as it leaves the stage: without token ids."""
    return {key: value for key, value in response.items() if key != "ids"}


class Totals:
    """Sums over responses while they are written."""

    def __init__(self):
        self.responses = self.finished = self.tokens = 0

    def add(self, response: dict) -> dict:
        self.responses += 1
        self.finished += response["finished"]
        self.tokens += response["tokens"]
        return response

    def facts(self) -> dict:
        if not self.responses:  # not the first rank
            return {}
        return {
            "responses": self.responses,
            "finished_share": self.finished / self.responses,
            "tokens_mean": self.tokens / self.responses,
        }


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
