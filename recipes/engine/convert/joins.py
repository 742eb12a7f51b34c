"""How tensors of Hugging Face become one of megatron-core, and back."""

from __future__ import annotations

import torch

from recipes.checkpoints.architecture import Architecture
from recipes.checkpoints.tensors import QKV, Tensor


def join(tensor: Tensor, parts: list[torch.Tensor], arch: Architecture) -> torch.Tensor:
    """One layer's slice from its parts. parts: in the order of tensor.parts, shapes as there."""
    if len(parts) == 1:
        return parts[0]
    if tensor.join != QKV:
        return torch.cat(parts)
    # megatron-core keeps each group together: its query heads, its key, its value.
    # source: NeMo v2.1.0 collections/llm/gpt/model/nemotron.py, _import_qkv
    grouped = [part.view(arch.groups, -1, part.shape[-1]) for part in parts]
    return torch.cat(grouped, dim=1).reshape(-1, parts[0].shape[-1])


def split(tensor: Tensor, whole: torch.Tensor, arch: Architecture) -> list[torch.Tensor]:
    """The inverse of join; each part is contiguous."""
    rows = [shape[0] for _, shape in tensor.parts]
    if len(rows) == 1:
        return [whole.contiguous()]
    if tensor.join != QKV:
        return [part.contiguous() for part in whole.split(rows)]
    grouped = whole.view(arch.groups, -1, whole.shape[-1])
    parts = grouped.split([count // arch.groups for count in rows], dim=1)
    return [part.reshape(-1, whole.shape[-1]).contiguous() for part in parts]
