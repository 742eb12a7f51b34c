"""How fast the batch stage generates, against NeMo's own `generate` on the same checkpoint and prompts.

    python -m tests.bench.generation RUN [--times 3]     RUN: the directory of a finished `align run tiny`

NeMo's `generate` (nemo.collections.nlp.modules.common.text_generation_utils, what its server calls) gets the prompts
in the order of the file, the same number at once, as text. The stage is measured with all that it does besides:
sorting by length, decoding, its journal with an fsync a batch, and the output file. Both with the same settings.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    stage = options.run / "generate0"
    cfg = yaml.safe_load((stage / "config.yaml").read_text())
    cfg["inputs"] = {k: v if isinstance(v, list) else str((stage / v).resolve()) for k, v in cfg["inputs"].items()}
    cfg |= {"batch_size": options.batch, "responses_per_prompt": 1}
    bench(cfg, options.times)


def bench(cfg: dict, times: int) -> None:
    from recipes.engine import setup

    setup.load()
    from data_prep.prompts import read_prompts
    from data_prep.template import Template
    from recipes.engine import inference
    from recipes.stages import training

    config, template = training.as_config(cfg), Template.load(cfg["template"])
    setup.configure(config)
    model = inference.load_policy(config, inference.create_trainer(config), Path(cfg["inputs"]["policy"]))
    texts = [template.prompt(row["messages"]) for row in read_prompts(cfg["inputs"]["prompts"])]
    with inference.inference_mode(model):
        for _ in range(times):
            for name, run in (("NeMo's generate", nemo), ("the stage", ours)):
                started = time.perf_counter()
                tokens = run(model, config, cfg, template, texts)
                seconds = time.perf_counter() - started
                print(f"{name:16} {seconds:6.2f} s  {tokens / seconds:8.0f} tokens/s  {tokens} tokens", flush=True)


def nemo(model, config, cfg: dict, template, texts: list[str]) -> int:
    from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy
    from nemo.collections.nlp.modules.common.text_generation_utils import generate

    tokens = 0
    for start in range(0, len(texts), cfg["batch_size"]):
        batch = texts[start : start + cfg["batch_size"]]
        out = generate(
            model, batch, tokens_to_generate=cfg["max_new_tokens"], temperature=1.0, add_BOS=False, top_k=0, top_p=1.0,
            greedy=False, repetition_penalty=1.0, end_strings=[template.stop], min_tokens_to_generate=0,
            compute_logprob=False, random_seed=cfg["seed"], strategy=GPTModelTextGenerationStrategy(model),
        )  # fmt: skip
        stop = model.tokenizer.text_to_ids(template.stop)[-1]
        for prompt, ids in zip(batch, out["token_ids"]):
            answer = ids[len(model.tokenizer.text_to_ids(prompt)) :][: cfg["max_new_tokens"]]
            tokens += answer.index(stop) + 1 if stop in answer else len(answer)
    return tokens


def ours(model, config, cfg: dict, template, texts: list[str]) -> int:
    from data_prep.jsonl import write_rows
    from recipes.engine import batches
    from recipes.stages import generate

    with tempfile.TemporaryDirectory() as scratch:
        jobs = generate.Jobs(texts, template, 1, cfg["batch_size"])
        done = batches.Done(Path(scratch), [], len(jobs), jobs.size)
        batches.on_disk(done, jobs.sampler(cfg, False)(model), lambda count: None)
        totals = generate.Totals()
        write_rows(Path(scratch) / "r.jsonl", ({"r": [totals.add(r) for r in mine]} for mine in jobs.rows(done)))
    return totals.tokens


if __name__ == "__main__":
    main()
