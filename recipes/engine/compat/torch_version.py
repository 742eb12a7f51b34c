"""megatron-core 0.10 and NeMo 2.1 were written for torch 2.4; private interfaces have moved since."""

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
    _old_write_item()
    _shapes_that_may_differ()


def _shapes_that_may_differ() -> None:
    """Let an embedding with another padding be loaded, which megatron-core allows and newer torch refuses.

    megatron-core has compared the shapes that must agree before it asks torch for a plan; later versions of it do the
    same as here (MCoreLoadPlanner._temporarily_bypass_shape_validation).
    """
    from megatron.core.dist_checkpointing.strategies import torch as torch_dist

    planner = torch_dist.MCoreLoadPlanner
    create = planner.create_local_plan

    @functools.wraps(create)
    def create_local_plan(self):
        entries = self.metadata.state_dict_metadata
        sizes = {key: value.size for key, value in entries.items() if hasattr(value, "size")}
        self._validate_global_shapes(self.metadata, self.shapes_validation_sharded_tensors)
        self.shapes_validation_sharded_tensors = ()
        try:
            for key, value in self.state_dict.items():
                if key in sizes and hasattr(value, "size"):
                    entries[key].size = value.size()
            return create(self)
        finally:
            for key, size in sizes.items():
                entries[key].size = size

    planner.create_local_plan = create_local_plan


def _old_write_item() -> None:
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
