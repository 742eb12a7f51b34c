"""What preference training did to held-out pairs: the implicit reward gap of each, beside the reward model's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from nemo_aligner.algorithms.dpo import dpo_custom_collate
from nemo_aligner.data.nlp.builders import build_train_valid_test_dpo_datasets

from recipes.engine import inference
from recipes.pipeline.artifacts import atomic_write_text
from recipes.ranks import rank


def implicit_gaps(stage_dir: Path, rows_path: Path, meta_path: Path) -> Callable:
    """A hook for engine.training.train: policy against reference policy on the validation pairs.

    Writes outputs/implicit_gaps.jsonl {"id", "implicit_gap", "logprob_gap", "reward_gap"}, where
    logprob_gap = (policy - reference) log-probability of chosen minus that of rejected (nats, summed over response
    tokens) and implicit_gap = ref_policy_kl_penalty x logprob_gap (tech report 2406.11704 section 3.3.2).
    Facts: `spearman` (rank correlation of the two gaps), `implicit_accuracy` (share of positive gaps),
    `implicit_gap_mean`.
    """

    def after(model, nemo) -> dict:
        metas = [json.loads(line) for line in meta_path.read_text(encoding="utf-8").splitlines()]
        with inference.inference_mode(model):
            gaps = _logprob_gaps(model, nemo)
        penalty = nemo.model.dpo.ref_policy_kl_penalty
        rows = [_row(meta, gap, penalty) for meta, gap in zip(metas, gaps)]
        if rank() == 0:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            atomic_write_text(stage_dir / "outputs" / "implicit_gaps.jsonl", text)
        return _facts(rows)

    return after


def _row(meta: dict, gap: float, penalty: float) -> dict:
    rewards = (meta.get("chosen_reward"), meta.get("rejected_reward"))
    reward_gap = None if None in rewards else rewards[0] - rewards[1]
    return {"id": meta["id"], "implicit_gap": penalty * gap, "logprob_gap": gap, "reward_gap": reward_gap}


def _logprob_gaps(model, nemo) -> list[float]:
    """Every validation pair's log-probability gap, in file order; all ranks compute all of them."""
    data = nemo.model.data
    held_out, test = data.data_prefix.validation, data.data_prefix.test
    paths = {"train": held_out, "validation": held_out, "test": test}
    dataset = build_train_valid_test_dpo_datasets(
        cfg=nemo.model,
        data_prefix=type(data)(paths),
        data_impl=data.data_impl,
        splits_string=None,
        train_valid_test_num_samples=[-1, -1, -1],
        seq_length=data.seq_length,
        seed=nemo.model.seed,
        tokenizer=model.tokenizer,
    )[1]
    size = nemo.model.dpo.log_prob_forward_micro_batch_size
    gaps: list[float] = []
    for start in range(0, len(dataset), size):
        rows = [dataset[min(i, len(dataset) - 1)] for i in range(start, start + size)]  # padded with the last one
        batch = dpo_custom_collate(rows, eos_id=model.tokenizer.eos_id, pad_length_to_multiple_of=16)
        shift = model.get_logprob_batch(batch) - model.get_ref_policy_logprobs(batch)
        labels = torch.cat((batch["chosen_labels"], batch["rejected_labels"])).to(shift.device)
        chosen, rejected = model.split_output_tensor(model.get_reduced_masked_logps(shift, labels[:, : shift.shape[1]]))
        gaps += (chosen - rejected).flatten().tolist()
    return gaps[: len(dataset)]


def _facts(rows: list[dict]) -> dict:
    implicit = [row["implicit_gap"] for row in rows]
    facts = {
        "implicit_gap_mean": sum(implicit) / len(implicit),
        "implicit_accuracy": sum(gap > 0 for gap in implicit) / len(implicit),
        "spearman": None,
    }
    known = [(row["implicit_gap"], row["reward_gap"]) for row in rows if row["reward_gap"] is not None]
    if known and all(len(set(column)) > 1 for column in zip(*known)):  # a constant has no ranks, and NaN no JSON
        from scipy.stats import spearmanr

        facts["spearman"] = float(spearmanr(*zip(*known)).statistic)
    return facts
