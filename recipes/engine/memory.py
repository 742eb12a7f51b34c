"""What a rank holds when training ends, in bytes, so that a plan of the same layout can be compared with it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from megatron.core import parallel_state

HELD = ("parameters", "gradients", "optimizer", "peak")


def facts(model, optimizer) -> dict:
    """{"parameters", "gradients", "optimizer", "peak"}, each the largest of any rank, and the same `by_pipeline_rank`.

    Collective: every rank calls it. parameters: the weights in their own type. gradients: what the optimizer reads,
    of the weights that train. optimizer: its states and its own copies of weights (float32 masters, this rank's part
    of them). peak: torch's allocator, null without a GPU. The reference policy of preference training is in host
    memory and not counted.
    """
    own = {"parameters": _parameters(model), "gradients": _gradients(model), "optimizer": _optimizer(model, optimizer)}
    own["peak"] = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    ranks = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(ranks, (parallel_state.get_pipeline_model_parallel_rank(), own))
    stages = range(parallel_state.get_pipeline_model_parallel_world_size())
    by_stage = [_largest([held for stage, held in ranks if stage == number]) for number in stages]
    return {**_largest(by_stage), "by_pipeline_rank": by_stage}


def _largest(ranks: list[dict]) -> dict:
    known = {name: [held[name] for held in ranks if held[name] is not None] for name in HELD}
    return {name: max(values, default=None) for name, values in known.items()}


def _parameters(model) -> int:
    return _size(model.parameters())


def _gradients(model) -> int:
    """Those that an optimizer keeps in a buffer of its own (`main_grad`), else what autograd makes.

    Without the buffer's padding, as the weights: megatron-core starts every parameter at a multiple of 64 elements
    and ends a buffer at one of 128, which is nothing where the sizes of a model are such multiples.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    kept = [getattr(p, "main_grad", None) for p in trained]
    return _size(p if grad is None else grad for p, grad in zip(trained, kept, strict=True))


def _optimizer(model, optimizer) -> int:
    """States, and parameters of the optimizer that are no view of the model's own."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    total = 0
    for plain in _plain(optimizer):
        states = [value for state in plain.state.values() for value in state.values() if torch.is_tensor(value)]
        total += _size(states)
        copies = (p for group in plain.param_groups for p in group["params"])
        total += _size(p for p in copies if p.untyped_storage().data_ptr() not in weights)
    return total


def _plain(optimizer) -> Iterator[torch.optim.Optimizer]:
    """The torch optimizers inside NeMo's and megatron-core's wrappers."""
    for name in ("mcore_optimizer", "optimizer"):
        if (inner := getattr(optimizer, name, None)) is not None:
            yield from _plain(inner)
            return
    chained = getattr(optimizer, "chained_optimizers", None)
    if chained is None:
        yield optimizer
    for inner in chained or ():
        yield from _plain(inner)


def _size(tensors) -> int:
    """Bytes of tensors, each memory counted once: tied weights are one."""
    found = {(t.data_ptr(), t.numel()): t.numel() * t.element_size() for t in tensors if t.numel()}
    return sum(found.values())
