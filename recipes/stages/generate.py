"""Generate: a policy's responses to a file of prompts, in batches that survive a kill and that an array can share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.first_turns import refuse_shared
from data_prep.jsonl import write_rows
from data_prep.prompts import read_prompts
from data_prep.template import Template
from data_prep.tokens import Tokenizer
from recipes.errors import Problem, UserInputError
from recipes.pipeline.artifacts import content_hash
from recipes.stages import training


def main(cfg: dict, stage_dir: Path) -> dict | None:
    template, policy_path = Template.load(cfg["template"]), Path(cfg["inputs"]["policy"])
    training.check_template(template, policy_path)
    prompts = read_prompts(Path(cfg["inputs"]["prompts"]))
    refuse_shared(prompts, cfg["inputs"]["prompts"], cfg["inputs"]["disjoint_from"], template)
    check_lengths(cfg, prompts, template, policy_path, stage_dir)

    from recipes.engine import setup

    setup.load()
    from recipes.engine import batches, inference
    from recipes.engine.metrics import JsonlLogger

    config = training.as_config(cfg)
    setup.configure(config)
    policy_sha256 = content_hash(policy_path)
    texts = [template.prompt(prompt["messages"]) for prompt in prompts]
    jobs = Jobs(texts, template, cfg["responses_per_prompt"], config.batch_size)
    identity = [policy_sha256, template.sha256, [(p["id"], p["messages"]) for p in prompts], decoding(cfg)]
    done = batches.Done(stage_dir / "data" / "batches", identity, len(jobs), jobs.size)
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(jobs))
    model = inference.load_policy(config, inference.create_trainer(config), policy_path)
    with inference.inference_mode(model):
        work = jobs.sampler(model, sampling(config, config.greedy), config.seed)
        if not batches.on_disk(done, work, progress, cfg["array_tasks"]):
            return None
    writer = f"{model_name(cfg)}@{policy_sha256[:12]}"
    totals = Totals()
    if training.is_first_rank():
        found = zip(prompts, jobs.rows(done))
        rows = ({**row, "responses": [totals.add(public(r, writer)) for r in mine]} for row, mine in found)
        write_rows(stage_dir / "outputs" / "responses.jsonl", rows)
    return totals.facts() | {"prompts": len(prompts), "template_sha256": template.sha256}


def decoding(cfg: dict) -> dict:
    names = ("seed", "max_new_tokens", "temperature", "top_k", "top_p", "greedy")
    return {name: cfg[name] for name in names if name in cfg}


def model_name(cfg: dict) -> str:
    """The stage that made the policy, or the file's name: what people call the model."""
    path = Path(cfg["inputs"]["policy"])
    return path.parent.parent.name if path.parent.name == "outputs" else path.stem


def check_lengths(cfg: dict, prompts: list[dict], template: Template, policy: Path, stage_dir: Path) -> None:
    """Refuse prompts that leave no room for max_new_tokens in the context (D6), before anything is loaded."""
    import yaml

    config = policy / "model_config.yaml"
    if not config.is_file():
        return  # a .nemo archive: the engine says it when it meets the prompt
    room = yaml.safe_load(config.read_text())["encoder_seq_length"] - cfg["max_new_tokens"]
    tokenizer = Tokenizer.open(training.tokenizer_of(policy, stage_dir))
    lengths = map(len, tokenizer.encode_batch([template.prompt(p["messages"]) for p in prompts]))
    long = [(prompt["id"], length) for prompt, length in zip(prompts, lengths) if length > room]
    if long:
        name, length = long[0]
        message = f"{len(long)} prompts leave no room for {cfg['max_new_tokens']} new tokens: {name} has {length}"
        fix = f"shorten them to {room} tokens, leave them out or lower max_new_tokens"
        raise UserInputError(Problem("D6", str(cfg["inputs"]["prompts"]), message, fix))


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

    def sampler(self, model, how, seed: int):
        from recipes.engine import inference

        def work(number: int, rows: range) -> list[dict]:
            texts = [self.prompt(row) for row in rows]
            return inference.generate(model, texts, how, self.stop, seed, number, self.before_stop)

        return work

    def rows(self, results) -> Iterator[list]:
        """The results of each text, in the order of the texts; `results[job]` is one of them."""
        place = {number: position for position, number in enumerate(self.order)}
        for number in range(len(self.texts)):
            first = place[number] * self.each
            yield [results[job] for job in range(first, first + self.each)]


def public(response: dict, writer: str) -> dict:
    """A response as it leaves the stage: without token ids, with the name of who wrote it."""
    return {key: value for key, value in response.items() if key != "ids"} | {"model": writer}


def sampling(config, greedy: bool):
    from recipes.engine.inference import Sampling

    return Sampling(config.max_new_tokens, config.temperature, config.top_k, config.top_p, greedy)


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
