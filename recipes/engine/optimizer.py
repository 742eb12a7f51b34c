"""AdamW without apex and without CUDA, in the checkpoint layout that megatron-core's sharding expects."""

from __future__ import annotations

import torch


class PortableAdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019) and, like apex's FusedAdam, one `step` per group.

    torch's own AdamW keeps a `step` tensor per parameter, which megatron-core's distributed checkpoint refuses
    ("Optimizer shape (() does not match model shape"). Everything else is torch's definition.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def __setstate__(self, state):
        # AdamW's own version looks for the per-parameter step of its layout.
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group, params):
        beta1, beta2 = group["betas"]
        for p in params:
            if not self.state[p]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        grads = [p.grad for p in params]
        means = [self.state[p]["exp_avg"] for p in params]
        squares = [self.state[p]["exp_avg_sq"] for p in params]

        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        denominators = torch._foreach_sqrt(torch._foreach_div(squares, 1 - beta2 ** group["step"]))
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(params, means, denominators, value=-group["lr"] / (1 - beta1 ** group["step"]))


def keep_grad_norm(optimizer) -> None:
    """Note the norm that megatron-core's optimizer finds in its step, as `optimizer.grad_norm`.

    It clips there as well, and NeMo-Aligner's trainers drop what the step returns: (loss, norm, zeros).
    """
    from nemo.core.optim.mcore_optim import McoreDistributedOptimizer

    if not isinstance(optimizer, McoreDistributedOptimizer):
        return
    step = optimizer.step

    def noted(*args, **kwargs):
        result = step(*args, **kwargs)
        optimizer.grad_norm = result[1]
        return result

    optimizer.step = noted


def register() -> None:
    """Make `optim.name: portable_adamw` known to NeMo."""
    from dataclasses import dataclass

    from nemo.core.config import OptimizerParams
    from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS, register_optimizer

    @dataclass
    class PortableAdamWParams(OptimizerParams):
        lr: float | None = 1e-3
        betas: tuple = (0.9, 0.999)
        eps: float = 1e-8
        weight_decay: float = 0.01

    if "portable_adamw" not in AVAILABLE_OPTIMIZERS:
        register_optimizer("portable_adamw", PortableAdamW, PortableAdamWParams())
