"""A machine without Transformer Engine: megatron-core's own layers instead of TE's.

The layer is the same function (attention, MLP, LayerNorm with zero-centred gamma); only the kernels differ. The
checkpoints differ in one respect: TE fuses the LayerNorm into the following linear layer and names its weight
accordingly, which megatron-core's sharded state dict maps for both, so either side can load the other's files.
"""

from __future__ import annotations

import builtins
import sys
import types
from importlib.util import find_spec

import torch

from recipes.engine.compat import apex


class LayerNorm(torch.nn.Module):
    """LayerNorm over the last dimension, with Nemotron-4's zero-centred gamma ("layernorm1p": scale = 1 + weight).

    megatron-core has it fused in TE and apex only; its plain torch fallback refuses zero-centred gamma.
    Input and output: [sequence, micro batch, hidden].
    """

    def __init__(self, config, hidden_size: int, eps: float = 1e-5, **_):
        super().__init__()
        self.shape = (hidden_size,)
        self.eps = eps
        self.zero_centered = config.layernorm_zero_centered_gamma
        start = torch.zeros if self.zero_centered else torch.ones
        self.weight = torch.nn.Parameter(start(hidden_size))
        self.bias = torch.nn.Parameter(torch.zeros(hidden_size))
        # Its gradient has to be summed over tensor-parallel ranks when the sequence is split over them.
        for parameter in (self.weight, self.bias):
            parameter.sequence_parallel = config.sequence_parallel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight + 1 if self.zero_centered else self.weight
        return torch.nn.functional.layer_norm(x, self.shape, weight, self.bias, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    """RMSNorm over the last dimension, as Llama has it. Input and output: [sequence, micro batch, hidden].

    megatron-core's plain fallback refuses sequence parallelism, which only needs the mark below.
    """

    def __init__(self, config, hidden_size: int, eps: float = 1e-5, **_):
        if config.layernorm_zero_centered_gamma:
            raise ValueError("RMSNorm with zero-centred gamma needs Transformer Engine, which is not installed")
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel


def _norm(config, hidden_size: int, eps: float = 1e-5, **kwargs):
    return (RMSNorm if config.normalization == "RMSNorm" else LayerNorm)(config, hidden_size, eps)


class Norm:
    """What megatron-core builds when it asks for a norm (a class, because layer specs hold classes)."""

    __new__ = staticmethod(lambda cls, config, hidden_size, eps=1e-5, **kwargs: _norm(config, hidden_size, eps))


def needed() -> bool:
    return find_spec("transformer_engine") is None


def before_nemo() -> None:
    # An undefined name in one of NeMo's fallback branches (gpt_full_te_layer_autocast_spec).
    builtins.ApexGuardDefaults = type("ApexGuardDefaults", (), {})
    # NLPModel asks the BERT class for its list of pretrained models; importing that class needs TE.
    name = "nemo.collections.nlp.models.language_modeling.megatron_bert_model"
    stand_in = types.ModuleType(name)
    stand_in.MegatronBertModel = type("MegatronBertModel", (), {"list_available_models": staticmethod(lambda: [])})
    sys.modules[name] = stand_in


def after_nemo() -> None:
    import megatron.core.models.gpt.gpt_layer_specs as layer_specs
    import megatron.core.transformer.transformer_block as transformer_block
    import nemo.collections.nlp.models.language_modeling.megatron_gpt_model as gpt
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    def get_specs(spec_name, transformer_config=None, use_te=True, hyena_cfg=None, fp8=False):
        # use_te is not looked at: NeMo-Aligner's reward models leave it at its default, True, whatever the config says.
        if spec_name not in ("", "te_gpt"):
            raise ValueError(f"layer spec {spec_name!r} needs Transformer Engine, which is not installed")
        config = transformer_config
        return get_gpt_layer_local_spec(config.num_moe_experts, config.moe_grouped_gemm, config.qk_layernorm)

    gpt.get_specs = get_specs
    if apex.needed():
        layer_specs.LNImpl = Norm
        transformer_block.LayerNormImpl = Norm
