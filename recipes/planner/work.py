"""Steps, tokens, floating-point operations and hours of a stage; bytes and seconds of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.planner import memory
from recipes.planner.architecture import Architecture
from recipes.planner.gpus import GPU
from recipes.planner.settings import FULL, SECTIONS, SELECTIVE, Settings


@dataclass(frozen=True)
class Assumptions:
    """What nobody can know before the run. efficiency: share of the GPU's dense bf16 peak that the work reaches,
    recompute counted as work; disk_rate: bytes a second that all ranks together write; bandwidth: share of the memory
    bandwidth that decoding reaches."""

    efficiency: float = 0.4
    disk_rate: float = 10e9
    bandwidth: float = 0.3


def steps(cfg: dict, rows: int | None) -> int | None:
    """Optimizer steps: `max_steps`, and no more than all epochs have. None where neither tells."""
    loop = cfg["trainer"][SECTIONS[cfg["kind"]]]
    limit = loop["max_steps"] if loop["max_steps"] > 0 else None
    if rows is None:
        return limit
    most = rows * loop["max_epochs"] // cfg["model"]["global_batch_size"]
    return min(limit, most) if limit else most


def forward(model: Architecture, tokens: float, sequence: float, head: bool = True) -> float:
    """Floating-point operations of one forward pass over `tokens` in sequences of `sequence`.

    Two a parameter and token (the lookup in the embedding needs none), and 4 x layers x width x sequence a token for
    the attention, the causal half not taken off, as is usual.
    source: Narayanan et al. 2021, arXiv 2104.04473, appendix, with grouped keys and values
    """
    matrices = model.non_embedding + (model.table() if head else 0)
    return tokens * (2 * matrices + 4 * model.layers * model.query * sequence)


def units(settings: Settings) -> float:
    """Forward passes that one row costs in training: forward 1, backward 2, full recompute 1, reference policy 1.

    source: NeMo-Aligner v0.7.0 megatron_gpt_dpo_model.py:505-690 (what a step does). LoRA needs no weight gradients.
    """
    backward = 1 if settings.lora else 2
    return 1 + backward + (settings.recompute == FULL) + (settings.kind == "preference")


def step_flops(settings: Settings, model: Architecture) -> float:
    """Of one optimizer step, at the full sequence length: what a batch is padded to (sft and preference: at most)."""
    tokens = settings.total * (2 if settings.kind == "preference" else 1) * settings.sequence
    flops = units(settings) * forward(model, tokens, settings.sequence, head=settings.kind != "reward")
    if settings.recompute == SELECTIVE:  # the attention's core once more
        flops += tokens * 4 * model.layers * model.query * settings.sequence
    return flops


def step_seconds(settings: Settings, model: Architecture, gpu: GPU, assumed: Assumptions) -> float:
    ideal = step_flops(settings, model) / (settings.ranks * gpu.flops * assumed.efficiency)
    return ideal * (1 + settings.bubble)


def save_bytes(settings: Settings, model: Architecture) -> float:
    """One checkpoint: weights, master weights and two moments (14 bytes a parameter in bf16, 12 in float32).

    Every value is written once, however many ranks hold it. LoRA saves its adapters only.
    """
    count = sum(_trained(settings, model, index) for index in range(settings.pipeline)) * settings.tensor
    return count * (14 if settings.half_weights else 12)


def _trained(settings: Settings, model: Architecture, index: int) -> int:
    if settings.lora:
        return memory.adapters(settings, model, index)
    return model.rank(settings.tensor, settings.pipeline, index, settings.attributes)


def published_bytes(settings: Settings, model: Architecture) -> float:
    """The model that a finished stage hands over: the weights once more, without the optimizer, adapters merged."""
    return model.rank(1, 1, 0, settings.attributes) * (2 if settings.half_weights else 4)


def checkpoints(cfg: dict) -> tuple[int, int, int]:
    """(checkpoints on disk at most, kept at the end, written a save), from `save_top_k`.

    The newest is written before the one that it replaces is removed; with top-k every save writes two.
    source: NeMo v2.1.0 utils/callbacks/nemo_model_checkpoint.py:513-609
    """
    best = max(0, cfg["exp_manager"]["checkpoint_callback_params"]["save_top_k"])
    return (best + 2 if best else 3), best + 1, (2 if best else 1)


def batch_seconds(settings: Settings, model: Architecture, gpu: GPU, assumed: Assumptions, prompt: float) -> float:
    """One batch of an inference stage on one copy of the model: reading the prompts, then one token after the other.

    Prompts are limited by arithmetic; each further token reads the weights and the cache of every pipeline stage, one
    stage after the other. Nothing is hidden behind anything: a rough bound of NeMo's loop, not of a serving engine.
    """
    read = forward(model, settings.batch * prompt, prompt, head=settings.kind != "score")
    seconds = read / (settings.tensor * gpu.flops * assumed.efficiency)
    if settings.kind != "score":
        weights = model.total * (2 if settings.half_weights else 4)
        cache = 2 * model.layers * model.kv * settings.batch * settings.sequence * (2 if settings.half else 4)
        seconds += settings.new_tokens * (weights + cache) / settings.tensor / (gpu.bandwidth * assumed.bandwidth)
    return seconds
