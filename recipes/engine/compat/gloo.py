"""A machine without NCCL: megatron-core's sharded optimizer averages gradients in the collective, which gloo cannot.

Where CUDA is there the backend is NCCL, and nothing in this file is applied.
"""

from __future__ import annotations

from contextlib import nullcontext


def needed() -> bool:
    import torch

    return not torch.cuda.is_available()


def before_nemo() -> None:
    pass


def after_nemo() -> None:
    from megatron.core.distributed import param_and_grad_buffer

    # One bucket after another, each collective waited for: gloo has no grouped calls.
    param_and_grad_buffer._coalescing_manager = lambda *args, **kwargs: nullcontext()
    param_and_grad_buffer.dist_reduce_scatter_func = _reduce_scatter


def _reduce_scatter(output, whole, op, group, async_op):
    """`output` becomes this rank's part of the sum, or of the mean, of `whole` over the ranks of `group`.

    Over gloo the sum is of the whole; `output` may be a view of `whole`, as it is in megatron-core's buffers.
    """
    from torch import distributed

    if async_op:
        raise RuntimeError("overlapped gradient sums need NCCL")
    ranks, rank = distributed.get_world_size(group), distributed.get_rank(group)
    average = op == distributed.ReduceOp.AVG
    total = whole.clone()
    distributed.all_reduce(total, op=distributed.ReduceOp.SUM if average else op, group=group)
    part = total.chunk(ranks)[rank]
    output.copy_(part / ranks if average else part)
