"""megatron-core 0.10 and NeMo 2.1 were written for torch 2.4; two private interfaces have moved since."""

from __future__ import annotations

import functools
import inspect
import os


def needed() -> bool:
    """True for a torch whose checkpoint writer takes more arguments than megatron-core passes (torch >= 2.7)."""
    from torch.distributed.checkpoint import filesystem

    return len(inspect.signature(filesystem._write_item).parameters) > 4


def before_nemo() -> None:
    """Checkpoints hold an OmegaConf object, which torch >= 2.6 refuses to unpickle unless told to.

    Only checkpoints that this run or the user named are ever loaded; they are trusted like code.
    """
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


def after_nemo() -> None:
    """Give megatron-core's checkpoint writer the old signature of torch's `_write_item`."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from torch.distributed.checkpoint import filesystem

    new_write_item = filesystem._write_item

    @functools.wraps(new_write_item)
    def write_item(stream, data, item, storage_key):
        return new_write_item(
            filesystem._StorageWriterTransforms(),
            stream,
            data,
            item,
            storage_key,
            filesystem.SerializationFormat.TORCH_SAVE,
        )

    filesystem_async._write_item = write_item
