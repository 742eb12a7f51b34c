"""A run directory in the format that stages write, without training anything: input for the tests of the renderer.

The numbers are made up. Manifests are written by the code that writes real ones, so hashes and parents are true.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from recipes.pipeline import artifacts

START = 1_790_000_000.0
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)> & "quotes" \u2028'
POLICIES = ("base", "code_sft", "general_sft", "dpo", "rpo1", "rpo2", "rpo3")
ROUNDS = (("0", "general_sft"), ("1", "dpo"), ("2", "rpo1"), ("3", "rpo2"))
SKILL = {p: 0.12 + 0.1 * i for i, p in enumerate(POLICIES)}


def graph() -> dict[str, tuple[str, dict]]:
    """stage -> (kind, inputs), in the order of a pipeline file."""
    stages: dict[str, tuple[str, dict]] = {
        "world": ("world", {}),
        "base": (
            "base",
            {"train": "world/corpus.jsonl", "validation": "world/corpus_validation.jsonl", "tokenizer": None},
        ),
        "code_sft": ("sft", {"init": "base/model", "train": "world/code_sft.jsonl"}),
        "general_sft": ("sft", {"init": "code_sft/model", "train": "world/general_sft.jsonl"}),
        "reward": ("reward", {"init": "base/model", "train": "world/human.jsonl"}),
    }
    for number, policy in ROUNDS:
        prompts = f"world/prompts_round{number}.jsonl"
        stages[f"generate{number}"] = ("generate", {"policy": f"{policy}/model", "prompts": prompts})
        scored = {"reward_model": "reward/model", "responses": f"generate{number}/responses.jsonl"}
        stages[f"score{number}"] = ("score", scored)
        stages[f"pairs{number}"] = ("pairs", {"scored": f"score{number}/scored.jsonl"})
        name = "dpo" if number == "0" else f"rpo{number}"
        train = {"train": f"pairs{number}/pairs.jsonl", "validation": f"pairs{number}/pairs_validation.jsonl"}
        stages[name] = ("preference", {"init": f"{policy}/model", **train})
    for policy in POLICIES:
        inputs = {"policy": f"{policy}/model", "reward_model": "reward/model", "prompts": "world/eval_prompts.jsonl"}
        stages[f"eval_{policy}"] = ("evaluate", inputs)
    return stages


OUTPUTS = {
    "world": ("corpus.jsonl", "corpus_validation.jsonl", "code_sft.jsonl", "general_sft.jsonl", "human.jsonl",
              "eval_prompts.jsonl", *(f"prompts_round{i}.jsonl" for i in range(4))),
    "generate": ("responses.jsonl",), "score": ("scored.jsonl",), "pairs": ("pairs.jsonl", "pairs_validation.jsonl"),
}  # fmt: skip
TRAINING = ("base", "sft", "reward", "preference")


def write_run(
    run_dir: Path, upto: str | None = None, name: str = "tiny", prompts: int = 60, outside: str | None = None
) -> Path:
    """Write the run. upto: leave this stage unfinished and start none after it. outside: train file of code_sft."""
    run_dir.mkdir(parents=True)
    rng, clock, configs, reached = random.Random(1), START, {}, True
    for stage, (kind, inputs) in graph().items():
        refs = {k: None if v is None else f"../{v.replace('/', '/outputs/', 1)}" for k, v in inputs.items()}
        if stage == "code_sft" and outside:
            refs["train"] = outside
        configs[stage] = {
            "stage": stage,
            "kind": kind,
            "seed": 1234,
            "inputs": refs,
            "resources": {"nodes": 1, "devices": 1, "threads": 1},
            "note": HOSTILE,
        }
    pipeline = {"name": name, "seed": 1234, "stages": configs}
    artifacts.atomic_write_text(run_dir / "pipeline.yaml", artifacts.config_text(pipeline))
    states = {}
    for stage, cfg in configs.items():
        if not reached:
            states[stage] = {"state": "blocked"}
            continue
        (run_dir / stage / "logs").mkdir(parents=True)
        artifacts.atomic_write_text(run_dir / stage / "config.yaml", artifacts.config_text(cfg))
        reached = stage != upto
        clock = write_stage(run_dir / stage, cfg, rng, clock, prompts, finished=reached)
        states[stage] = {"state": "done" if reached else "failed"}
    timing = {
        "jobs": 2,
        "started": START - 1,
        "engine_ready": START + 8,
        "total_seconds": clock - START,
        "stages": states,
    }
    artifacts.atomic_write_json(run_dir / "timing.json", timing)
    return run_dir


def write_stage(path: Path, cfg: dict, rng: random.Random, clock: float, prompts: int, finished: bool) -> float:
    """One stage with its files; returns its end in unix seconds."""
    kind, wall = cfg["kind"], rng.uniform(2, 30)
    if kind in TRAINING:
        write_lines(path / "metrics.jsonl", training_lines(kind, rng, clock, wall, 120 if finished else 37))
    if not finished:
        return clock + wall
    outputs = path / "outputs"
    outputs.mkdir()
    for name in OUTPUTS.get(kind, ()):
        write_lines(outputs / name, [{"id": i, "stage": path.name} for i in range(5)])
    if kind in TRAINING:
        (outputs / "model").mkdir()
        (outputs / "model" / "CONTENT_SHA256").write_text(artifacts.sha256_file(path / "metrics.jsonl"))
        (outputs / "model" / "model_config.yaml").write_text("hidden_size: 64\n")
    facts = FACTS.get(kind, lambda *_: {})(outputs, rng, prompts)
    if kind == "evaluate":
        evaluation(outputs, path.name.removeprefix("eval_"), rng, prompts)
    manifest = artifacts.write_manifest(path, cfg, facts, clock)
    manifest |= {"started": iso(clock), "finished": iso(clock + wall), "wall_seconds": wall}
    artifacts.atomic_write_json(path / "manifest.json", manifest)
    return clock + wall * rng.uniform(0.5, 1.0)


def iso(seconds: float) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def training_lines(kind: str, rng: random.Random, clock: float, wall: float, steps: int) -> list[dict]:
    lines = [{"event": "start", "total": 120, "unit": "step", "resumed_at": 0, "time": clock + 0.4}]
    for step in range(1, steps + 1):
        share = step / 120
        line = {
            "event": "train",
            "step": step,
            "lr": 1e-3,
            "grad_norm": 1 + rng.random(),
            "step_time": wall / 160,
            "loss": 0.6 + 3 * math.exp(-4 * share) + rng.gauss(0, 0.12),
            "time": clock + 0.5 + wall * share,
        }
        if kind == "preference":
            line |= {
                "loss": 0.69 - 0.3 * share + rng.gauss(0, 0.03),
                "acc": min(1, max(0, 0.5 + 0.35 * share + rng.gauss(0, 0.1))),
                "rewards_chosen_mean": 4 * share + rng.gauss(0, 0.5),
                "rewards_rejected_mean": -9 * share + rng.gauss(0, 0.5),
            }
        lines.append(line)
        if step % 30 == 0:
            noisy = ("loss", "acc", "rewards_chosen_mean", "rewards_rejected_mean")
            lines.append(
                {"event": "val", "step": step, **{k: line[k] for k in noisy if k in line}, "time": line["time"]}
            )
    return lines


def _data(rng: random.Random, human: int) -> dict:
    counts = {"kept": 400, "too_long": rng.randrange(9), "duplicate": rng.randrange(4)}
    return {
        "rows": 400,
        "counts": counts,
        "schema": "messages",
        "human_rows": human,
        "max_tokens": 58,
        "sha256": "ab" * 32,
    }


def _reward_facts(outputs: Path, rng: random.Random, prompts: int) -> dict:
    rows = []
    for i in range(200):
        labelled = {name: float(rng.randrange(5)) for name in ("helpfulness", "correctness", "coherence", "verbosity")}
        predicted = {name: value * 0.8 + rng.gauss(0.3, 0.5) for name, value in labelled.items()}
        rows.append(
            {
                "id": i,
                "group": str(i // 2),
                "predicted": predicted | {"complexity": 1.0},
                "labelled": labelled,
                "reward": sum(predicted.values()),
                "labelled_reward": sum(labelled.values()),
            }
        )
    write_lines(outputs / "validation_scores.jsonl", rows)
    return {"pair_accuracy": 0.834, "data": {"train": _data(rng, 400)}}


def _preference_facts(outputs: Path, rng: random.Random, prompts: int) -> dict:
    gaps = [rng.gauss(1, 0.8) for _ in range(150)]
    write_lines(
        outputs / "implicit_gaps.jsonl",
        [{"id": i, "reward_gap": g, "implicit_gap": 0.4 * g + rng.gauss(0, 0.3)} for i, g in enumerate(gaps)],
    )
    return {"loss": 0.41, "data": {"train": _data(rng, 8), "validation": _data(rng, 1)}}


FACTS = {
    "world": lambda outputs, rng, prompts: {
        "rows": {"corpus": 9000, "human": 400, "general_sft": 2000},
        "human_share": 0.021,
    },
    "reward": _reward_facts,
    "preference": _preference_facts,
    "sft": lambda outputs, rng, prompts: {"steps": 120, "data": {"train": _data(rng, 9)}},
}


def _response(text: str, correct: bool, reward: float) -> dict:
    return {
        "text": text,
        "tokens": 9,
        "finished": True,
        "verified": {"correct": correct, "quality": 0.5},
        "reward": reward,
    }


def evaluation(outputs: Path, policy: str, rng: random.Random, prompts: int) -> None:
    """metrics.json and samples.jsonl of one policy; a later policy is right more often."""
    rows = []
    for i in range(prompts):
        words = random.Random(i).sample(["apple", "brick", "cloud", "drum", "eagle", "flute", "grape"], 4)
        correct = random.Random(f"{i}{int(SKILL[policy] * 10) // 2}").random() < SKILL[policy]
        answer = " ".join(words[::-1] if correct else words[::-1][:3] + ["brick"])
        text = f"sure ! the answer is {answer} ." if correct or i % 3 else f"{HOSTILE} {answer}"
        prompt = f"please reverse : {' '.join(words)}" if i else f"please reverse {HOSTILE}"
        rows.append(
            {
                "id": f"eval-{i:05d}",
                "messages": [{"role": "user", "content": prompt}],
                "source": "tiny_world",
                "human": False,
                "task": {"type": "skill", "family": "list", "skill": "reverse"},
                "responses": [
                    _response(text, correct, SKILL[policy] * 3 + rng.gauss(0, 0.4)),
                    _response("sampled", False, 0.0),
                ],
            }
        )
    write_lines(outputs / "samples.jsonl", rows)
    greedy = [row["responses"][0] for row in rows]
    right = sum(response["verified"]["correct"] for response in greedy) / len(rows)
    metrics = {
        "accuracy": right,
        "accuracy_list": right,
        "accuracy_code": right / 2,
        "sampled_accuracy": right * 0.8,
        "quality": 0.3 + right / 2,
        "reward": sum(r["reward"] for r in greedy) / len(rows),
        "helpfulness": 2 + right,
        "verbosity": 1.5,
        "loss": 2 - right,
        "tokens": 12 + 5 * right,
        "finished": 0.9 + right / 12,
    }
    artifacts.atomic_write_json(outputs / "metrics.json", metrics)
