"""A machine without Transformer Engine, LoRA: NeMo's adapter module asks TE for one name before it defines anything.

nemo/.../adapters/mcore_mixins.py (v2.1.0) imports SplitAlongDim outside of any guard and takes plain torch.split where
it is None, as megatron-core's own attention does. Without the module, LoRA is silently not there. The stand-in holds
that one name, so that everything that looks for TE's layers still finds none, and goes once the adapters are defined.
With sequence parallelism an adapter also asks for TE's version, of an installed package, when it is built.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import types
from importlib.util import find_spec

MODULE = "megatron.core.extensions.transformer_engine"


def needed() -> bool:
    return find_spec("transformer_engine") is None


def before_nemo() -> None:
    stand_in = types.ModuleType(MODULE)
    stand_in.SplitAlongDim = None
    sys.modules[MODULE] = stand_in


def after_nemo() -> None:
    import nemo.collections.nlp.modules.common.megatron.adapters.mcore_mixins  # noqa: F401
    from nemo.collections.nlp.modules.common.megatron.adapters import parallel_adapters

    del sys.modules[MODULE]
    adapter = parallel_adapters.ParallelLinearAdapter
    adapter.__init__ = _without_version(adapter.__init__)


def _without_version(build):
    """Let an adapter be built with sequence parallelism, where it asks for the version of Transformer Engine.

    From 1.5 on TE's layers hand over the whole sequence. Without TE the adapter has to gather it, as with an older one.
    """

    @functools.wraps(build)
    def init(self, *args, **kwargs):
        real = importlib.metadata.version
        importlib.metadata.version = lambda name: "0" if name == "transformer-engine" else real(name)
        try:
            build(self, *args, **kwargs)
        finally:
            importlib.metadata.version = real

    return init
