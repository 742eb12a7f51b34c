"""A machine without apex: a stand-in package with only the pure-Python names that NeMo uses from it.

NeMo guards whole import blocks with apex, so names imported beside it go missing too. The stand-in makes those blocks
succeed. It claims nothing that it has not: `apex.optimizers`, `apex.contrib`, `apex.amp` and `apex.multi_tensor_apply`
stay absent, and megatron-core (imported before) still sees no apex at all.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from importlib.util import find_spec

# Asked once, before the stand-in makes the answer worthless.
_IS_ABSENT = find_spec("apex") is None
ABSENT = ("apex.optimizers", "apex.contrib", "apex.amp", "apex.multi_tensor_apply", "apex.transformer.functional")


def _never(name: str) -> type:
    """A class that may be imported and compared against, but not built."""

    def refuse(self, *args, **kwargs):
        raise RuntimeError(f"apex's {name} was asked for, but apex is not installed")

    return type(name, (), {"__init__": refuse})


def _contents(module: str) -> dict:
    """The names that NeMo imports from each module of apex."""
    from megatron.core import tensor_parallel
    from megatron.core.enums import ModelType
    from megatron.core.transformer.enums import AttnMaskType, AttnType

    layers = {n: getattr(tensor_parallel.layers, n) for n in dir(tensor_parallel.layers) if n.startswith("set_")}
    norms = {n: _never(n) for n in ("FusedLayerNorm", "MixedFusedLayerNorm", "MixedFusedRMSNorm", "FastLayerNorm")}
    return {
        "apex.transformer.enums": dict(AttnMaskType=AttnMaskType, AttnType=AttnType, ModelType=ModelType),
        "apex.transformer.log_util": dict(set_logging_level=lambda verbosity: None),
        "apex.transformer.tensor_parallel.layers": layers,
        "apex.transformer.pipeline_parallel.schedules.common": dict(
            listify_model=lambda model: model if isinstance(model, list) else [model]
        ),
        "apex.transformer.layers.layer_norm": norms,
        "apex.normalization": norms,
        "apex.normalization.fused_layer_norm": norms,
        "apex._autocast_utils": dict(_cast_if_autocast_enabled=lambda *args: args),
    }.get(module, {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "apex" or name.startswith(ABSENT):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        module.__dict__.update(_contents(module.__name__))


def needed() -> bool:
    return _IS_ABSENT


def before_nemo() -> None:
    # megatron-core must look for apex before the stand-in exists, so that it takes its plain implementations.
    import megatron.core.models.gpt.gpt_layer_specs
    import megatron.core.optimizer
    import megatron.core.transformer.transformer_block  # noqa: F401

    sys.meta_path.append(_Finder())


def after_nemo() -> None:
    import nemo.collections.nlp.modules.common.megatron.clip_grads as clip_grads
    import nemo.collections.nlp.parts.nlp_overrides as nlp_overrides
    from nemo.core.optim.mcore_optim import McoreDistributedOptimizer

    # NLPDDPStrategy and the save connector refuse to start without apex, though they use nothing of it here.
    nlp_overrides.HAVE_APEX = True
    nlp_overrides.McoreDistributedOptimizer = McoreDistributedOptimizer
    nlp_overrides.MegatronDistributedFusedAdam = _never("MegatronDistributedFusedAdam")
    # NeMo's own clipping (norm over model-parallel ranks, duplicates and shared parameters left out) needs two names.
    clip_grads.amp_C = types.SimpleNamespace(multi_tensor_l2norm=_l2norm)
    clip_grads.multi_tensor_applier = lambda operation, overflow, lists, *args: operation(lists[0])


def _l2norm(tensors):
    """The L2 norm of all elements of `tensors`, as apex's kernel returns it: (norm, None)."""
    import torch

    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))), None
