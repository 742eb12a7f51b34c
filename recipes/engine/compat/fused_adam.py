"""A machine without apex and Transformer Engine: AdamW in the layout of their FusedAdam for megatron-core's optimizer.

Without either, megatron-core 0.10 takes torch's AdamW and, for its layout of states, another way through saving and
loading, on which a resume fails (a state without a `step`). With the same layout it takes the way that GPUs take.
"""

from __future__ import annotations

from importlib.util import find_spec

_IS_ABSENT = find_spec("apex") is None and find_spec("transformer_engine") is None


def needed() -> bool:
    return _IS_ABSENT


def before_nemo() -> None:
    pass


def after_nemo() -> None:
    import megatron.core.optimizer as megatron_optimizer
    from megatron.core.optimizer import distrib_optimizer

    from recipes.engine.optimizer import PortableAdamW

    megatron_optimizer.Adam = PortableAdamW
    distrib_optimizer.HAVE_APEX_OR_TE = True
