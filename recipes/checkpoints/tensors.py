"""Which tensors of Hugging Face make up which tensor of megatron-core, with names and shapes.

megatron-core's distributed checkpoints stack the layers: one tensor with the layer as its first axis. The norms before
attention and MLP carry the names of Transformer Engine's fused layers; megatron-core's own layers map to the same names
(megatron-core 0.10 gpt_layer_specs.py, sharded_state_dict_keys_map).
"""

from __future__ import annotations

from dataclasses import dataclass

from recipes.checkpoints.architecture import Architecture

# How the parts are put together: as they are, by groups of attention heads, or one below the other.
ONE, QKV, STACKED = "one", "qkv", "stacked"
LAYERS = "decoder.layers."
PREFIX = "model."  # of every tensor in a checkpoint of NeMo 1.x
# Modules for which Transformer Engine keeps an object in the checkpoint (fp8 scales; None without fp8): of every layer,
# of the whole. megatron-core's own layers have the first four; loading looks for what the model has and for no more.
# source: github.com/NVIDIA/TransformerEngine docs/faq.rst, "FP8 checkpoint compatibility" (core_attention since 1.11)
EXTRA_OF_LAYERS = ("self_attention.linear_proj", "self_attention.linear_qkv", "mlp.linear_fc1", "mlp.linear_fc2",
                   "self_attention.core_attention")  # fmt: skip
EXTRA_OF_MODEL = ("decoder.final_layernorm",)
HEAD, OUTPUT, EMBEDDING = "rm_head", "output_layer.weight", "embedding.word_embeddings.weight"


@dataclass(frozen=True)
class Tensor:
    """One tensor of megatron-core. parts: (name, shape) of Hugging Face's, with {layer} in the names of a layer's."""

    name: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    join: str = ONE

    @property
    def layered(self) -> bool:
        return self.name.startswith(LAYERS)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one layer's slice, or of the whole tensor where it belongs to no layer."""
        rows = sum(shape[0] for _, shape in self.parts)
        return (rows, *self.parts[0][1][1:])

    def names(self, layer: int | None) -> list[str]:
        return [name.format(layer=layer) for name, _ in self.parts]


def table(arch: Architecture, head: int = 0) -> list[Tensor]:
    """All tensors of a model. head: attributes of a reward head, which then stands in for the output layer."""
    hidden, heads, groups = arch.hidden, arch.heads * arch.head_dim, arch.groups * arch.head_dim
    layer, block, vocab = "model.layers.{layer}.", LAYERS, (arch.vocab, hidden)
    qkv = tuple(
        (f"{layer}self_attn.{x}_proj.weight", (rows, hidden)) for x, rows in zip("qkv", (heads, groups, groups))
    )
    up = tuple((f"{layer}mlp.{x}_proj.weight", (arch.ffn, hidden)) for x in (("gate", "up") if arch.gated else ("up",)))
    found = [Tensor(EMBEDDING, (("model.embed_tokens.weight", vocab),))]
    found += _norm(arch, f"{block}self_attention.linear_qkv.layer_norm_", f"{layer}input_layernorm.")
    found += [
        Tensor(f"{block}self_attention.linear_qkv.weight", qkv, QKV),
        Tensor(f"{block}self_attention.linear_proj.weight", ((f"{layer}self_attn.o_proj.weight", (hidden, heads)),)),
    ]
    found += _norm(arch, f"{block}mlp.linear_fc1.layer_norm_", f"{layer}post_attention_layernorm.")
    found += [
        Tensor(f"{block}mlp.linear_fc1.weight", up, STACKED),  # gate above up: megatron-core's order in SwiGLU
        Tensor(f"{block}mlp.linear_fc2.weight", ((f"{layer}mlp.down_proj.weight", (hidden, arch.ffn)),)),
    ]
    found += _norm(arch, "decoder.final_layernorm.", "model.norm.")
    if head:
        found.append(Tensor(f"{HEAD}.weight", (("score.weight", (head, hidden)),)))
    elif not arch.tied:
        found.append(Tensor(OUTPUT, (("lm_head.weight", vocab),)))
    return found


def copy_of_embedding(arch: Architecture) -> Tensor:
    """The output layer of a tied model, as a tensor of its own.

    NeMo-Aligner's reward model is never tied (v0.7.0 megatron_gpt_reward_model.py, model_provider_func) and finds the
    tensor in the checkpoint or does not load. A tied language model does not look for it.
    """
    return Tensor(OUTPUT, (("model.embed_tokens.weight", (arch.vocab, arch.hidden)),))


def _norm(arch: Architecture, name: str, part: str) -> list[Tensor]:
    kinds = ("weight", "bias") if arch.norm_bias else ("weight",)
    return [Tensor(name + kind, ((part + kind, (arch.hidden,)),)) for kind in kinds]


def hf_shapes(tensors: list[Tensor], layers: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that Hugging Face's files hold."""
    found = {}
    for tensor in tensors:
        for layer in range(layers) if tensor.layered else (None,):
            found |= dict(zip(tensor.names(layer), (shape for _, shape in tensor.parts)))
    return found
