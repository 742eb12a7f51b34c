"""LoRA: adapters that start alike in any layout, checkpoints that hold only them, and the merge when a stage is done.

NeMo 2.1.0 puts an adapter beside a linear layer W: y = W x + (alpha / dim) B A x, with A = `linear_in` [dim, in] and
B = `linear_out` [out, dim] (source: nemo/collections/nlp/modules/common/megatron/adapters/parallel_adapters.py).
Left alone, NeMo writes a file a rank for them, which `checkpoints.tidy` does not know and no other layout reads, and a
finished stage would publish adapters that the next one cannot start from. Here they are torch_dist checkpoints, and
what is published is the merged model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.utils import replace_prefix_for_sharding
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP, apply_swiglu_sharded_factory
from nemo.collections.nlp.modules.common.megatron.adapters.mcore_mixins import MCoreMLPMixin, MCoreSelfAttentionMixin
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from nemo_aligner.utils.train_script_utils import init_peft
from omegaconf import OmegaConf

from recipes.engine import checkpoints
from recipes.ranks import rank

# NeMo's name of an adapter: where it is in a layer, and the linear layer beside it
PLACES = {
    "lora_kqv_adapter": ("self_attention", "linear_qkv"),
    "lora_dense_attention_adapter": ("self_attention", "linear_proj"),
    "lora_hto4h_adapter": ("mlp", "linear_fc1"),
    "lora_4htoh_adapter": ("mlp", "linear_fc2"),
}
PLAIN = {MCoreSelfAttentionMixin: SelfAttention, MCoreMLPMixin: MLP}


@dataclass(frozen=True)
class Part:
    """One adapter on this rank. local, shared: its prefix in the model's own state dict and in a checkpoint."""

    local: str
    shared: str
    owner: torch.nn.Module
    linear: torch.nn.Module
    adapter: torch.nn.Module

    @property
    def gated(self) -> bool:
        """B's rows are [gate, up] on each rank, as W's, so that the whole B is not the ranks' parts in a row."""
        return self.linear is getattr(self.owner, "linear_fc1", None) and self.owner.config.gated_linear_unit


def used(model) -> bool:
    """Does this model (a NeMo-Aligner model of any kind) train adapters?"""
    return getattr(model, "use_peft", False)


def add(model, cfg) -> None:
    """Add the adapters that `cfg.peft` asks for, if any, and freeze everything else."""
    init_peft(model, cfg)
    if used(model):
        start_alike(model, cfg)
        model.sharded_state_dict = lambda prefix="": sharded(model)
        if cfg.activations_checkpoint_granularity == "full":
            _let_gradients_through(model)


def parts(model) -> Iterator[Part]:
    """The adapters of this rank, in the order of the layers."""
    for module in model.get_model_module_list():
        for index, layer in enumerate(module.decoder.layers):
            for name, (place, linear) in PLACES.items():
                owner = getattr(layer, place)
                adapter = owner.get_adapter_module(name) if isinstance(owner, AdapterModuleMixin) else None
                if adapter is not None:
                    path = f"{place}.adapter_layer.{name}."
                    local = f"model.decoder.layers.{index}.{path}"
                    shared = f"model.decoder.layers.{layer.layer_number - 1}.{path}"
                    yield Part(local, shared, owner, getattr(owner, linear), adapter)


def _let_gradients_through(model) -> None:
    """Full recompute cuts the graph where no input of a layer wants a gradient, as behind a frozen embedding.

    megatron-core's checkpoint function then gives outputs without one, and the first backward pass fails.
    """

    def want_gradient(embedding, inputs, output):
        return output.requires_grad_() if torch.is_grad_enabled() else output

    for module in model.get_model_module_list():
        if module.pre_process:
            module.embedding.register_forward_hook(want_gradient)


@torch.no_grad()
def start_alike(model, cfg) -> None:
    """Draw every adapter's first weights whole, from a seed of its own, and take this rank's part of them.

    NeMo draws them rank by rank, with a spread that depends on the part's shape.
    """
    settings = cfg.peft.lora_tuning
    for part in parts(model):
        for name, method in (("linear_in", settings.column_init_method), ("linear_out", settings.row_init_method)):
            weight = getattr(part.adapter, name).weight
            seed = hashlib.sha256(f"{cfg.seed}/{part.shared}{name}".encode()).digest()
            size, axis = list(weight.shape), weight.partition_dim
            size[axis] *= parallel_state.get_tensor_model_parallel_world_size()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int.from_bytes(seed[:6], "big"))
                whole = torch.empty(size, device="cpu")
                part.adapter._get_init_fn(method)(whole)
            weight.copy_(_mine(whole, axis, part.gated and name == "linear_out"))


def _mine(whole: torch.Tensor, axis: int, gated: bool) -> torch.Tensor:
    """This tensor-parallel rank's part of a weight; of a gated one, its part of each half."""
    world = parallel_state.get_tensor_model_parallel_world_size()
    halves = whole.chunk(2, dim=axis) if gated else (whole,)
    mine = parallel_state.get_tensor_model_parallel_rank()
    return torch.cat([half.chunk(world, dim=axis)[mine] for half in halves], dim=axis)


def sharded(model) -> dict:
    """The adapters as megatron-core's checkpoints want them: whole tensors by the layer's number, for any TP and PP."""
    found = {}
    for part in parts(model):
        entries = part.adapter.sharded_state_dict(part.local)
        entries = {key: value for key, value in entries.items() if not key.endswith("_extra_state")}
        if part.gated:
            key = f"{part.local}linear_out.weight"
            entries[key] = apply_swiglu_sharded_factory(entries[key], ())
        replace_prefix_for_sharding(entries, part.local, part.shared)
        found |= entries
    return found


def hand_over(model, outputs: Path) -> dict:
    """Save the adapters alone to outputs/adapters/, then merge them: the model is a plain one afterwards.

    Collective: every rank calls it. Returns facts for the manifest: `parameters` counts the adapters' own.
    """
    settings = OmegaConf.to_container(model.cfg.peft.lora_tuning, resolve=True)
    facts = {"target_modules": settings["target_modules"], "adapter_dim": settings["adapter_dim"]}
    count = torch.tensor(_own_elements(model), device=torch.cuda.current_device())
    torch.distributed.all_reduce(count, group=parallel_state.get_model_parallel_group())
    facts["parameters"] = count.item()
    _save(model, outputs, {**facts, "lora_tuning": settings})
    merge(model)
    return facts


def _own_elements(model) -> int:
    """Weights of the adapters that are on this rank; each is on one rank of its copy of the model."""
    return sum(p.numel() for part in parts(model) for p in part.adapter.parameters())


def _save(model, outputs: Path, facts: dict) -> None:
    from nemo.utils.callbacks.dist_ckpt_io import DistributedCheckpointIO

    target, temporary = outputs / "adapters", outputs / ".adapters.tmp"
    if rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    checkpoints.barrier()
    checkpoint_io = DistributedCheckpointIO.from_config(model.cfg, async_save=False)
    checkpoint_io.save_checkpoint(sharded(model), str(temporary / checkpoints.WEIGHTS))
    checkpoints.barrier()
    if rank() == 0:
        (temporary / "adapters.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    checkpoints.barrier()


@torch.no_grad()
def merge(model) -> None:
    """W += (alpha / dim) B A in every layer with an adapter, summed in float32; then the adapters are gone.

    Collective over tensor-parallel ranks.
    """
    found = list(parts(model))
    for part in found:
        weight = part.linear.weight
        weight.copy_(weight.float() + _update(part.adapter))
    for owner in {id(part.owner): part.owner for part in found}.values():
        del owner.adapter_layer
        owner.__class__ = PLAIN[type(owner)]
    for part in found:  # what NeMo asked of Transformer Engine's fused layers for the adapter's sake
        for name in ("return_layernorm_output", "return_layernorm_output_gathered"):
            if getattr(part.linear, name, False):
                setattr(part.linear, name, False)
    vars(model).pop("sharded_state_dict", None)
    model.use_peft = False
    model.cfg.peft.peft_scheme = "none"


def _update(adapter) -> torch.Tensor:
    """(alpha / dim) B A, this rank's part of it, in W's own layout.

    Beside a column-parallel layer A and B are split by rows (dim and out), and W by out: A is gathered. Beside a
    row-parallel one A is split by columns as W is (in), and B by rows: B is gathered.
    """
    a, b = adapter.linear_in.weight.float(), adapter.linear_out.weight.float()
    a, b = (a, _gathered(b)) if adapter.input_is_parallel else (_gathered(a), b)
    return b @ a * (adapter.alpha / adapter.dim)


def _gathered(rows: torch.Tensor) -> torch.Tensor:
    world = parallel_state.get_tensor_model_parallel_world_size()
    if world == 1:
        return rows
    every = [torch.empty_like(rows) for _ in range(world)]
    torch.distributed.all_gather(every, rows.contiguous(), group=parallel_state.get_tensor_model_parallel_group())
    return torch.cat(every)
