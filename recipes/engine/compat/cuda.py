"""A machine without CUDA: everything that asks for the GPU gets the CPU.

NeMo, megatron-core and NeMo-Aligner name the device in five ways: `torch.cuda.current_device()`, `tensor.cuda()`,
`device="cuda"` in a factory, `torch.cuda.FloatTensor`, and `tensor.type() == "torch.cuda.FloatTensor"`. Each is
answered with its CPU counterpart here.
Where CUDA is there, nothing in this file is applied.
"""

from __future__ import annotations

import functools
import os
from types import SimpleNamespace

FACTORIES = (
    "tensor as_tensor zeros ones empty full arange eye rand randn randint "
    "zeros_like ones_like empty_like full_like rand_like randn_like"
).split()


def needed() -> bool:
    import torch

    return not torch.cuda.is_available()


def before_nemo() -> None:
    import torch

    # Neither compiler can see through a wrapped factory, and tiny models on a CPU lose nothing.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    torch.jit._state.disable()
    import torch._dynamo  # noqa: F401  keeps a table of torch's functions and must have seen the real ones first

    cpu = torch.device("cpu")
    _replace_functions(torch, cpu)
    _replace_types(torch)
    for name in FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name), cpu))
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self
    torch.Tensor.to = _to_cpu(torch.Tensor.to, cpu)
    torch.Tensor.type = _type_of_cuda(torch.Tensor.type)


def after_nemo() -> None:
    import megatron.core.tensor_parallel.random as megatron_random
    import torch
    from nemo.collections.nlp.models.language_modeling.megatron_base_model import MegatronBaseModel
    from nemo.core.classes.modelPT import ModelPT

    # Reads the version of NVIDIA's torch build to choose JIT fusion flags.
    MegatronBaseModel._enable_nvidia_optimizations = lambda self: None
    ModelPT.cuda = lambda self, device=None: self
    megatron_random._set_cuda_rng_state = lambda state, device=-1: torch.set_rng_state(state)


def _replace_functions(torch, cpu) -> None:
    nothing = lambda *args, **kwargs: None  # noqa: E731
    for name in ("set_device", "synchronize", "empty_cache", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, nothing)
    for name in ("max_memory_reserved", "memory_allocated", "max_memory_allocated"):
        setattr(torch.cuda, name, lambda *args, **kwargs: 0)
    torch.cuda.current_device = lambda: cpu
    # 0 would leave megatron's model-parallel random state unseeded.
    torch.cuda.device_count = lambda: 1
    torch.cuda.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    torch.cuda.manual_seed = torch.manual_seed
    torch.cuda.Stream = lambda *args, **kwargs: SimpleNamespace(wait_stream=nothing, synchronize=nothing)


def _replace_types(torch) -> None:
    """`torch.cuda.LongTensor([...])` builds, `isinstance(x, torch.cuda.FloatTensor)` asks; both work on CPU types."""
    for name in ("FloatTensor", "HalfTensor", "BFloat16Tensor", "LongTensor", "IntTensor", "ByteTensor", "BoolTensor"):
        setattr(torch.cuda, name, getattr(torch, name))


def _type_of_cuda(original):
    """`tensor.type()` with the name that it would have on a GPU, and `tensor.type(name)` for both names."""

    @functools.wraps(original)
    def type_(self, dtype=None, *args, **kwargs):
        if dtype is None:
            return original(self).replace("torch.", "torch.cuda.", 1)
        dtype = dtype.replace("torch.cuda.", "torch.", 1) if isinstance(dtype, str) else dtype
        return original(self, dtype, *args, **kwargs)

    return type_


def _is_cuda(device) -> bool:
    return device is not None and str(device).startswith("cuda")


def _on_cpu(factory, cpu):
    @functools.wraps(factory)
    def wrapped(*args, **kwargs):
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = cpu
        return factory(*args, **kwargs)

    return wrapped


def _to_cpu(original, cpu):
    import torch

    @functools.wraps(original)
    def to(self, *args, **kwargs):
        args = tuple(cpu if isinstance(a, (str, torch.device)) and _is_cuda(a) else a for a in args)
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = cpu
        return original(self, *args, **kwargs)

    return to
