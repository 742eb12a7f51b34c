"""Tensors in and out of safetensors files, each read or written by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from recipes.checkpoints import safetensors_files
from recipes.checkpoints.hf_folder import INDEX, SINGLE
from recipes.checkpoints.safetensors_files import SIZES, Entry

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def read(entry: Entry) -> torch.Tensor:
    """One tensor, read from its place in the file into memory of its own."""
    data = bytearray(entry.size)
    with entry.file.open("rb", buffering=0) as source:
        source.seek(entry.start)
        view, at = memoryview(data), 0
        while at < entry.size:
            count = source.readinto(view[at:])
            if not count:
                raise OSError(f"{entry.file} ends before its last tensor")
            at += count
    return torch.frombuffer(data, dtype=TYPES[entry.dtype]).view(entry.shape)


@dataclass(frozen=True)
class Slot:
    """A tensor that is to be written: its name, type (BF16, F16, F32), shape and the group that it is written with."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * SIZES[self.dtype]


def write(directory: Path, groups: list[list[Slot]], shard_bytes: int, values: Callable[[int], list[torch.Tensor]]):
    """Write tensors into as few files as `shard_bytes` allows, with transformers' names and index.

    groups: slots that `values(number of the group)` gives together; a group is never divided between files.
    """
    files = _by_file(groups, shard_bytes)
    names = [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    names = names if len(files) > 1 else [SINGLE]
    for name, numbers in zip(names, files):
        slots = [slot for number in numbers for slot in groups[number]]
        with (directory / name).open("wb") as target:
            target.write(safetensors_files.header([(slot.name, slot.dtype, slot.shape) for slot in slots]))
            for number in numbers:
                for slot, tensor in zip(groups[number], values(number), strict=True):
                    assert tensor.dtype == TYPES[slot.dtype] and tuple(tensor.shape) == slot.shape, slot
                    target.write(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    if len(files) > 1:
        where = {slot.name: name for name, numbers in zip(names, files) for n in numbers for slot in groups[n]}
        total = sum(slot.bytes for group in groups for slot in group)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _by_file(groups: list[list[Slot]], limit: int) -> list[list[int]]:
    files, size = [[]], 0
    for number, group in enumerate(groups):
        more = sum(slot.bytes for slot in group)
        if files[-1] and size + more > limit:
            files.append([])
            size = 0
        files[-1].append(number)
        size += more
    return files
