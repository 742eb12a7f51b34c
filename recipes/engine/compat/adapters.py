"""A machine without Transformer Engine, LoRA: NeMo's adapter module asks TE for one name before it defines anything.

nemo/.../adapters/mcore_mixins.py (v2.1.0) imports SplitAlongDim outside of any guard and takes plain torch.split where
it is None, as megatron-core's own attention does. Without the module, LoRA is silently not there. The stand-in holds
that one name, so that everything that looks for TE's layers still finds none, and goes once the adapters are defined.
"""

from __future__ import annotations

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

    del sys.modules[MODULE]
