"""Stop at the first step that cannot be right: a non-finite loss, or a first loss that is not its closed form."""

from __future__ import annotations

import functools
import math

import torch
from torch.nn.functional import logsigmoid


class WrongLoss(RuntimeError):
    """Training was stopped before the optimizer used this loss."""


def guard_losses(model, expected_first) -> None:
    """Check every loss that `model` (a NeMo-Aligner model) returns to its trainer, before the optimizer steps.

    expected_first: a function of the first training batch giving (metric name, lowest, highest) allowed values,
    or None when training resumes and the first batch is not the start.
    """
    original = model.get_loss_and_metrics
    pending = [expected_first]

    @functools.wraps(original)
    def get_loss_and_metrics(batch, forward_only):
        loss, metrics = original(batch=batch, forward_only=forward_only)
        if not math.isfinite(loss):
            raise WrongLoss(f"loss is {loss}: stopped before this step reached the weights")
        if not forward_only and pending[0] is not None:
            _check_first(pending.pop(), batch, metrics)
            pending.append(None)
        return loss, metrics

    model.get_loss_and_metrics = get_loss_and_metrics


def _check_first(expected, batch, metrics) -> None:
    name, low, high = expected(batch)
    value = metrics[name]
    if not low <= value <= high:
        raise WrongLoss(
            f"first {name} is {value:.6f}, expected {low:.6f} to {high:.6f}: the weights that were loaded are not the "
            "ones this stage starts from, or its template differs from theirs"
        )


def language_model_bounds(vocabulary: int, from_scratch: bool):
    """Random weights predict uniformly: ln(vocabulary) within a fifth.

    A trained checkpoint is better than that on text like its own; one that has never seen the template's tokens is
    somewhat worse on them. Twice the uniform loss means that its weights are not what was trained.
    """
    uniform = math.log(vocabulary)
    low, high = (0.8 * uniform, 1.2 * uniform) if from_scratch else (0.0, 2 * uniform)
    return lambda batch: ("loss", low, high)


def regression_bounds(batch):
    """Mean squared error has no closed form at a random head; finite and not negative is all that can be said."""
    return ("loss", 0.0, math.inf)


def preference_bounds(dpo, precision, group):
    """The preference loss while policy = reference policy (NeMo-Aligner's loss_func at rewards_delta = 0).

    dpo: the `model.dpo` config. group: data-parallel process group, over which the metric is a mean.
    Closed forms: DPO ln 2; IPO 1 / (4 penalty^2); RPO-sq (scale * gap)^2; RPO-fwd KL(1/2 || s) and RPO-bwd
    KL(s || 1/2) of Bernoulli distributions with s = sigmoid(scale * gap) (tech report 2406.11704 section 3.3.2).
    """
    tolerance = 1e-4 if str(precision).startswith("32") else 1e-2

    def bounds(batch):
        value = zero_shift_loss(
            dpo.preference_loss,
            dpo.ref_policy_kl_penalty,
            dpo.gt_reward_scale * (batch["chosen_rewards"] - batch["rejected_rewards"]),
        ).cuda()  # the loader's batch is in host memory, which NCCL does not reduce
        torch.distributed.all_reduce(value, group=group)
        value = value.item() / torch.distributed.get_world_size(group)
        slack = tolerance * max(1.0, abs(value))
        return ("preference_loss", value - slack, value + slack)

    return bounds


def zero_shift_loss(name: str, penalty: float, scaled_gap: torch.Tensor) -> torch.Tensor:
    """Mean preference loss over pairs when policy and reference policy agree. scaled_gap: [pairs], float."""
    log_s, log_not_s = logsigmoid(scaled_gap), logsigmoid(-scaled_gap)
    log_half = math.log(0.5)
    forms = {
        "dpo": lambda: torch.full_like(scaled_gap, -log_half),
        "ipo": lambda: torch.full_like(scaled_gap, 1 / (2 * penalty)) ** 2,
        "rpo_sq": lambda: scaled_gap**2,
        "rpo_fwd_kl": lambda: 0.5 * (log_half - log_s) + 0.5 * (log_half - log_not_s),
        "rpo_bwd_kl": lambda: log_s.exp() * (log_s - log_half) + log_not_s.exp() * (log_not_s - log_half),
    }
    return forms[name]().float().mean()
