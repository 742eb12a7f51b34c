"""Write and read megatron-core's torch_dist checkpoints in pieces, without a model and without a process group.

The files are those that megatron-core writes (a tensor of all layers is a stack with one chunk a layer), made with
torch.distributed.checkpoint's own writer: a piece is asked for when it is written and forgotten after that.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch.distributed.checkpoint import (
    FileSystemReader,
    FileSystemWriter,
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
)
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

# megatron-core 0.10's own description of the format, as it stands in its checkpoints
FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1,
          "common_backend": "torch", "common_backend_version": 1}  # fmt: skip
FILE_BYTES = 5 * 10**9  # about so much goes into one file


@dataclass(frozen=True)
class Piece:
    """A part of a tensor: one layer of a stack (index, of `count`), or all of it (index None)."""

    name: str
    shape: tuple[int, ...]  # of the piece, without the layer's axis
    dtype: torch.dtype
    index: int | None = None
    count: int = 1

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def offsets(self) -> torch.Size:
        return torch.Size([0] * len(self.shape) if self.index is None else [self.index, *[0] * len(self.shape)])

    @property
    def item(self) -> WriteItem:
        layered = self.index is not None
        size = torch.Size([self.count, *self.shape] if layered else self.shape)
        chunk = ChunkStorageMetadata(self.offsets, torch.Size([1, *self.shape] if layered else self.shape))
        data = TensorWriteData(chunk, TensorProperties(dtype=self.dtype), size)
        return WriteItem(MetadataIndex(self.name, self.offsets), WriteItemType.SHARD, tensor_data=data)


# -- writing


def write(
    directory: Path,
    pieces: list[Piece],
    extra: list[str],
    load: Callable[[Piece], torch.Tensor],
    note=lambda done: None,
) -> None:
    """Write a checkpoint. extra: names of objects that are None. load: the piece's values, shape and type as it says.

    note(n) is called with the number of pieces written so far. Raises what `load` raises; then there is no .metadata.
    """
    directory.mkdir(parents=True)
    planner = _Pieces(pieces, load, note)
    objects = [WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO) for name in extra]
    plans = [SavePlan([*objects, *_items(files)] if number == 0 else _items(files))
             for number, files in enumerate(_by_file(pieces))]  # fmt: skip
    plans, metadata = create_default_global_save_plan(plans)
    names = [*extra, *dict.fromkeys(piece.name for piece in pieces)]
    metadata.planner_data = {name: (name,) for name in names}
    metadata.mcore_data = {name: {} for name in names if name not in extra}
    writer = FileSystemWriter(str(directory), sync_files=True)
    writer.set_up_storage_writer(True)
    # As many writing ranks would share the work, one after the other: each writes a file of its own.
    results = [writer.write_data(plan, planner).value() for plan in writer.prepare_global_plan(plans)]
    torch.save({}, directory / "common.pt")
    (directory / "metadata.json").write_text(json.dumps(FORMAT))
    writer.finish(metadata, results)


def extra_states(modules: Iterable[str], count: int) -> list[str]:
    """Names of the objects that are kept for `modules`, each of which stands for `count` of them."""
    return [f"{module}._extra_state/shard_{number}_{count}" for module in modules for number in range(count)]


def _items(pieces: list[Piece]) -> list[WriteItem]:
    return [piece.item for piece in pieces]


def _by_file(pieces: list[Piece]) -> list[list[Piece]]:
    files, size = [[]], 0
    for piece in pieces:
        if files[-1] and size + piece.bytes > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(piece)
        size += piece.bytes
    return files


class _Pieces(SavePlanner):
    """Hands a piece to the writer when its turn comes."""

    def __init__(self, pieces: list[Piece], load, note):
        self.pieces = {(piece.name, piece.offsets): piece for piece in pieces}
        self.load, self.note, self.done = load, note, 0

    def resolve_data(self, write_item: WriteItem):
        if write_item.type == WriteItemType.BYTE_IO:
            nothing = io.BytesIO()
            torch.save([None], nothing)
            return nothing
        piece = self.pieces[write_item.index.fqn, write_item.index.offset]
        tensor = self.load(piece)
        assert tensor.dtype == piece.dtype and tuple(tensor.shape) == piece.shape, (piece, tensor.dtype, tensor.shape)
        self.done += 1
        self.note(self.done)
        return tensor if piece.index is None else tensor.unsqueeze(0)

    def set_up_planner(self, *args, **kwargs) -> None: ...

    def create_local_plan(self) -> SavePlan:
        raise NotImplementedError("the plan is made by write")

    create_global_plan = finish_plan = create_local_plan


# -- reading


class Reader:
    """Pieces of the tensors of a torch_dist checkpoint, however they were cut when it was written."""

    def __init__(self, directory: Path):
        self._storage = FileSystemReader(str(directory))
        metadata = self._storage.read_metadata()
        self._storage.set_up_storage_reader(metadata, True)
        self.tensors: dict[str, TensorStorageMetadata] = {
            name: entry
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }

    def read(self, name: str, layer: int | None = None, rows: int | None = None) -> torch.Tensor:
        """A tensor, or one layer of a stack without that axis. rows: only so many, from the first."""
        entry = self.tensors[name]
        sizes = list(entry.size)
        offsets = [0] * len(sizes)
        if layer is not None:
            offsets[0], sizes[0] = layer, 1
        elif rows is not None:
            sizes[0] = rows
        wanted = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
        target = torch.empty(sizes, dtype=entry.properties.dtype)
        items = create_read_items_for_chunk_list(name, entry, [wanted])
        self._storage.read_data(LoadPlan(items), _Into(target)).wait()
        return target if layer is None else target[0]

    def layers(self, name: str) -> Iterator[torch.Tensor]:
        """The layers of a stack, one after the other."""
        for layer in range(self.tensors[name].size[0]):
            yield self.read(name, layer)


class _Into(LoadPlanner):
    """Puts what is read into one tensor."""

    def __init__(self, target: torch.Tensor):
        self.target = target

    def resolve_tensor(self, read_item):
        part = self.target
        for axis, (offset, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths)):
            part = part.narrow(axis, offset, length)
        return part

    def commit_tensor(self, read_item, tensor) -> None: ...

    def set_up_planner(self, *args, **kwargs) -> None: ...

    def load_bytes(self, *args):
        raise NotImplementedError("only tensors are read in pieces")

    create_local_plan = create_global_plan = finish_plan = load_bytes
