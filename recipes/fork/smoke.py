"""The smoke run of a fork: every stage of the pipeline on a CPU, on generated data and a small model of its shape."""

from __future__ import annotations

from recipes.fork import files
from recipes.pipeline import references
from recipes.pipeline.config import CONFIGS
from recipes.pipeline.layers import Layer, read

STEPS = 4  # of reward and preference stages in a smoke run
TIED = "share_embeddings_and_output_weights"  # not kept: a reward model needs an output layer to begin with (K5)
# Of the stages before them: the policy must learn to end its answers, or there are no pairs to make.
LEARN = {"base": (150, 4.0e-3), "sft": (100, 2.0e-3)}  # steps, learning rate


def pipeline(name: str, written: Layer) -> str:
    """Every stage of the pipeline with data of the generated world, and few steps of a small model."""
    stages = files.stages(written)
    mine = {stage: _small(stage, config, stages) for stage, config in stages.items()}
    rounds = {}
    for loop, body in (written.data.get("rounds") or {}).items():
        changed = {stage: _small(stage, config, stages) for stage, config in body["stages"].items()}
        rounds[loop] = {"stages": {stage: config for stage, config in changed.items() if config}}
    data = {
        "name": f"{name}-smoke",
        "from": f"./{name}.yaml",
        "model": "./smoke_model.yaml",
        "layout": [],
        "cluster": None,
        "stages": {**_world(), **{stage: config for stage, config in mine.items() if config != {}}},
        **({"rounds": rounds} if rounds else {}),
    }
    return files.text(
        [
            f"Smoke run of {name}: all of its stages, a few steps each, on generated data and a small model.",
            f"Hardware: 2 CPU cores, about a minute, no GPU. Command: align run {name}/smoke.yaml",
            "Expect: every stage done. It shows that the pipeline is whole, not that it learns.",
        ],
        data,
    )


def _world() -> dict:
    """The stages that make what the recipe takes from outside: data, and a model to begin with."""
    sizes = {
        "corpus": 4000, "corpus_validation": 32, "code_sft": 64, "code_sft_validation": 32, "general_sft": 2000,
        "general_sft_validation": 32, "human": 64, "human_validation": 16, "prompts": 64, "eval_prompts": 16,
    }  # fmt: skip
    return {
        "smoke_world": {"kind": "world", "sizes": sizes},
        "smoke_pairs": {
            "kind": "data",
            "makes": "preference",
            "inputs": {"human": "smoke_world/human.jsonl"},
            "rewards": {"from": "attributes", "weights": "nemotron4_340b"},
            "sources": {"human": {"schema": "helpsteer2_pairs", "human": True, "licence": "generated"}},
            "checks": {"duplicates": "keep"},
            "validation": {"rows": 16},
        },
        "smoke_base": {
            "kind": "base",
            "inputs": _files("smoke_world/corpus.jsonl", "smoke_world/corpus_validation.jsonl"),
            **_steps("sft", "base"),
        },
    }


def _files(train: str, validation: str) -> dict:
    return {"train": train, "validation": validation}


def _steps(loop: str, learns: str = "") -> dict:
    """A few optimizer steps at the recipe's rate, or enough at a rate for a small model to learn; one validation."""
    steps, rate = LEARN.get(learns, (STEPS, None))
    limits = {"max_steps": steps, "max_epochs": 8, "val_check_interval": steps, "save_interval": steps}
    size, optim = 8, {"sched": {"warmup_steps": 1}}
    if rate is not None:
        size, optim = 32, {"lr": rate, "sched": {"warmup_steps": 5, "min_lr": rate}}
    return {"trainer": {loop: limits}, "model": {"micro_batch_size": size, "global_batch_size": size, "optim": optim}}


def _small(stage: str, config: dict, stages: dict[str, dict]) -> dict | None:
    """What the smoke run changes in one stage; None leaves it out."""
    kind, inputs = config.get("kind"), config.get("inputs") or {}
    if files.is_import(config):
        return None
    small: dict = {}
    taken = {"init": "smoke_base/model"} if files.starts(stage, config, stages) else {}
    outside = isinstance(inputs.get("train"), str) and references.split(inputs["train"], stages) is None
    if kind == "sft":
        small = {"data": {"over_length": "drop"}, **_steps("sft", "sft")}
        taken |= _files("smoke_world/general_sft.jsonl", "smoke_world/general_sft_validation.jsonl") if outside else {}
    elif kind == "reward":
        small = {"data": {"over_length": "drop"}, **_steps("rm")}
        taken |= _files("smoke_world/human.jsonl", "smoke_world/human_validation.jsonl") if outside else {}
    elif kind == "preference":
        small = {"data": {"over_length": "drop"}, **_steps("dpo")}
        pairs = outside and "{" not in inputs["train"]  # {round}: of a stage of the same round
        taken |= _files("smoke_pairs/train.jsonl", "smoke_pairs/validation.jsonl") if pairs else {}
    elif kind == "generate":
        small = {"responses_per_prompt": 4, "max_new_tokens": 24, "batch_size": 256, "array_tasks": 1}
        taken |= {"prompts": "smoke_world/prompts_round1.jsonl"}
    elif kind == "pairs":
        small = {"pairs": {"validation_rows": 8, "min_margin": 0.0, "chosen_quantile": 0.0}}
    return {**({"inputs": taken} if taken else {}), **small}


def model(name: str, written: Layer, large: dict) -> str:
    """A model with the same kinds of parts: a layer or two, four heads, and groups where the large one has groups."""
    known = read(CONFIGS / "stage" / "base.yaml").data["model"]
    kept = [key for key in files.SHAPE if key != TIED and large.get(key) is not None]
    shape = {key: large[key] for key in kept if large[key] != known.get(key)}
    heads = large.get("num_attention_heads")
    grouped = large.get("num_query_groups") not in (None, heads)
    sizes = {"num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4}
    data = {
        "all": {"model": {"encoder_seq_length": 160}, **({"template": t} if (t := files.template(written)) else {})},
        "base": {"model": {**sizes, "num_query_groups": 2 if grouped else 4, **shape, "init_method_std": 0.1}},
    }
    return files.text(
        [
            f"A model of {name}'s shape that a CPU trains in seconds; its sizes mean nothing.",
            f"Hardware: one CPU core. Command: align run {name}/smoke.yaml",
            "Expect: about 0.1 M parameters.",
        ],
        data,
    )
