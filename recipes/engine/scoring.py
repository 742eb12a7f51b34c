"""What a reward model is worth: its scores on held-out rows, and how often it orders a pair as people did."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from recipes.engine import inference
from recipes.pipeline.artifacts import atomic_write_text
from recipes.ranks import rank

# NeMo-Aligner's label slots (nemo_aligner v0.7.0, steerlm common.py); the first four are legacy and not trained here.
SLOTS = tuple("quality toxicity humor creativity helpfulness correctness coherence complexity verbosity".split())
BATCH = 64


def named(values) -> dict[str, float]:
    """The trained attributes of one nine-slot row, by name."""
    return {name: float(value) for name, value in list(zip(SLOTS, values))[4:]}


def weighted(weights: list[float], values) -> float:
    """Scalar reward: weights . attributes, both of nine slots."""
    return sum(weight * float(value) for weight, value in zip(weights, values) if weight)


def held_out_pairs(cfg, stage_dir: Path, rows_path: Path, meta_path: Path) -> Callable:
    """A hook for engine.training.train: score the validation rows with the trained model, in memory.

    Writes outputs/validation_scores.jsonl; the facts are `pair_accuracy` (rows with the same prompt whose labelled
    rewards differ, ordered as labelled), `pairs` and `mse` (mean squared error over labelled attributes).
    """

    def after(model, nemo) -> dict:
        rows = [json.loads(line) for line in rows_path.read_text(encoding="utf-8").splitlines()]
        metas = [json.loads(line) for line in meta_path.read_text(encoding="utf-8").splitlines()]
        with inference.inference_mode(model):
            batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
            predicted = [p for batch in batches for p in inference.score(model, [r["text"] for r in batch]).tolist()]
        scored = [_scored(cfg, row, meta, p) for row, meta, p in zip(rows, metas, predicted)]
        if rank() == 0:
            text = "".join(json.dumps(row) + "\n" for row in scored)
            atomic_write_text(stage_dir / "outputs" / "validation_scores.jsonl", text)
        return _facts(scored)

    return after


def _scored(cfg, row: dict, meta: dict, predicted: list[float]) -> dict:
    mask = cfg.model.loss_mask_val
    known = [0.0 if label == mask else label for label in row["label"]]
    return {
        "id": meta["id"],
        "group": meta["group"],
        "predicted": named(predicted),
        "labelled": {name: v for name, v in named(row["label"]).items() if v != mask},
        "reward": weighted(cfg.reward_weights, predicted),
        "labelled_reward": weighted(cfg.reward_weights, known),
    }


def _facts(scored: list[dict]) -> dict:
    groups = defaultdict(list)
    for row in scored:
        groups[row["group"]].append(row)
    right, pairs = 0, 0
    for rows in groups.values():
        for a, b in combinations(rows, 2):
            labelled = a["labelled_reward"] - b["labelled_reward"]
            if labelled:
                pairs += 1
                right += (a["reward"] - b["reward"]) * labelled > 0
    errors = [(row["predicted"][name] - value) ** 2 for row in scored for name, value in row["labelled"].items()]
    accuracy = right / pairs if pairs else None
    return {"pair_accuracy": accuracy, "pairs": pairs, "mse": sum(errors) / len(errors)}
