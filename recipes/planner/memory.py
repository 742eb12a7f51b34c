"""Bytes on one GPU, part by part. A model of what NeMo-Aligner 0.7.0 and megatron-core 0.10 allocate.

Weights, gradients and optimizer are counted exactly. Activations and logits are estimates: no GPU was used for them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from recipes.planner.architecture import Architecture
from recipes.planner.settings import FULL, NONE, SHARDED, Settings

GB = 1e9
# CUDA context, workspaces of cuBLAS and Transformer Engine, and NCCL's buffers unless there is one rank: estimates
WORKSPACE, WORKSPACE_ALONE = 6e9, 2e9
# Bytes an element of the logits [sequences, tokens, vocabulary / TP] at the peak of the last stage. Estimates:
# SFT: bf16 logits, float32 copy, gradient. Preference: the float32 copies of NeMo-Aligner's log-probabilities and the
# int64 one-hot of their backward pass (nemo_aligner/utils/distributed.py:264-343). Inference: bf16 and float32.
LOGITS = {"base": 10, "sft": 10, "preference": 32, "generate": 6, "user_turns": 6, "evaluate": 6}  # others: none
FORWARD_LOGITS = 20  # of log-probabilities without a backward pass


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    activations: float = 0
    logits: float = 0
    cache: float = 0
    workspace: float = 0

    @property
    def total(self) -> float:
        return sum(self.to_dict().values())

    def to_dict(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def on_rank(settings: Settings, model: Architecture, index: int = 0, *, gpu: bool = True) -> Memory:
    """Memory of a rank of pipeline stage `index`. gpu: count a GPU's fixed workspace."""
    parts = trained_parts if settings.trains else loaded_parts
    weights, gradients, optimizer = parts(settings, model, index)
    work = _training if settings.trains else _inference
    activations, logits, cache = work(settings, model, index)
    workspace = WORKSPACE if settings.ranks > 1 else WORKSPACE_ALONE
    return Memory(weights, gradients, optimizer, activations, logits, cache, workspace if gpu else 0)


def first_and_last(settings: Settings, model: Architecture, *, gpu: bool = True) -> tuple[Memory, Memory]:
    """The two stages of the pipeline that can be the fullest."""
    return on_rank(settings, model, 0, gpu=gpu), on_rank(settings, model, settings.pipeline - 1, gpu=gpu)


# -- parameters, gradients, optimizer: exact -----------------------------------------------------------


def loaded_parts(settings: Settings, model: Architecture, index: int) -> tuple[float, float, float]:
    """Weights of a model that is only run forward."""
    count = model.rank(settings.tensor, settings.pipeline, index, settings.attributes)
    return count * (2 if settings.half_weights else 4), 0, 0


def trained_parts(settings: Settings, model: Architecture, index: int) -> tuple[float, float, float]:
    """(weights, gradients, optimizer) in bytes.

    A sharded optimizer keeps float32 gradients on every rank, and its float32 master weights and two moments spread
    over DP x CP (bf16 weights; float32 ones are their own master). The portable AdamW keeps two moments of the weights'
    type on every rank. LoRA: only the adapters have gradients and moments. Not counted: the padding of megatron-core's
    buffers (to 64 elements a parameter), by which the cut between two ranks' parts may be off, too.
    source: megatron-core 0.10 distributed/param_and_grad_buffer.py and optimizer/distrib_optimizer.py
    """
    width = 2 if settings.half_weights else 4
    base = model.rank(settings.tensor, settings.pipeline, index, settings.attributes)
    own = adapters(settings, model, index)
    trained = own if settings.lora else base
    weights = (base + own) * width
    master = 4 if settings.half_weights else 0
    if settings.optimizer in SHARDED:
        gradients = trained * (2 if settings.half_gradients else 4)
        return weights, gradients, trained * (master + 8) / (settings.data * settings.context)
    moments, extra = (8, master) if settings.optimizer == "fused_adam" else (2 * width, 0)
    return weights, trained * (width + extra), trained * (extra + moments)


def adapters(settings: Settings, model: Architecture, index: int) -> int:
    """LoRA's own parameters on a rank of pipeline stage `index`; 0 without LoRA."""
    size = model.layers // settings.pipeline
    chosen = settings.lora_layers or range(1, model.layers + 1)
    here = sum(index * size < number <= (index + 1) * size for number in chosen)
    return here * model.adapters(settings.lora, settings.lora_dim, settings.tensor)


def predicted(cfg: dict, architecture: dict) -> dict:
    """What a run records as `facts.memory`, in bytes: of the largest rank, and of every pipeline rank.

    cfg: a stage's frozen config; architecture: NeMo's model keys with `vocab_size` (Pipeline.architecture).
    Returns {"parameters", "gradients", "optimizer", "by_pipeline_rank": [{the same three}]}.
    """
    return held(Settings.of(cfg), Architecture.of(architecture, loaded=cfg["kind"] != "base"))


def held(settings: Settings, model: Architecture) -> dict:
    """As `predicted`, of settings and an architecture that were read already."""
    parts = trained_parts if settings.trains else loaded_parts
    names = ("parameters", "gradients", "optimizer")
    rows = [dict(zip(names, map(round, parts(settings, model, index)))) for index in range(settings.pipeline)]
    return {**{name: max(row[name] for row in rows) for name in names}, "by_pipeline_rank": rows}


# -- activations, logits: estimates ------------------------------------------------------------------


def layer_input(settings: Settings, model: Architecture) -> float:
    """Bytes of what one layer reads, of one micro-batch: all that full recompute keeps of it."""
    split = settings.tensor if settings.sequence_parallel else 1
    return _tokens(settings) * model.hidden * _width(settings) / split


def layer_activations(settings: Settings, model: Architecture, recompute: str) -> float:
    """Bytes that one layer keeps for its backward pass, of one micro-batch.

    Norms and residuals 10 bytes a hidden value (divided by TP only with sequence parallelism), queries, keys, values
    and the attention's output 2 bytes each, and input and output of the activation function; the matrix of attention
    scores 5 bytes an element where it is kept: not with selective recompute and not with flash attention.
    source: Korthikanti et al. 2022, arXiv 2205.05198, equation 2, without dropout masks
    """
    if recompute == FULL:
        return layer_input(settings, model)
    split = settings.tensor if settings.sequence_parallel else 1
    widths = 2 * (model.query + 2 * model.kv) + 2 * model.query + (3 if model.gated else 2) * 2 * model.ffn
    values = (10 * model.hidden / split + widths / settings.tensor) * _width(settings) / 2
    if recompute == NONE and not settings.flash:
        values += 5 * model.heads / settings.tensor * settings.sequence
    return _tokens(settings) * values


def _tokens(settings: Settings) -> float:
    return settings.sequence / settings.context * settings.sequences


def _width(settings: Settings) -> int:
    return 2 if settings.half else 4


def _training(settings: Settings, model: Architecture, index: int) -> tuple[float, float, float]:
    """(activations, logits, 0). Stage i of a 1F1B pipeline holds up to PP - i micro-batches."""
    layers = model.layers // settings.pipeline
    in_flight = min(settings.pipeline - index, settings.micro_batches)
    each = layer_activations(settings, model, settings.recompute)
    if settings.recompute == FULL:
        once = layer_activations(settings, model, "selective" if settings.flash else NONE)
        size = min(settings.recompute_layers, layers)
        if settings.recompute_method == "block":  # the first `size` layers are recomputed, the others keep everything
            kept, again = size * each + (layers - size) * once, once
        else:  # uniform: chunks of `size` layers
            kept, again = -(-layers // size) * each, size * once
        activations = in_flight * kept + again
    else:
        activations = in_flight * layers * each
    if index != settings.pipeline - 1:
        return activations, 0, 0
    elements = settings.sequence / settings.context * model.padded(settings.tensor) / settings.tensor
    logits = LOGITS.get(settings.kind, 0) * settings.sequences * elements
    if settings.kind == "preference":
        logits = max(logits, FORWARD_LOGITS * 2 * settings.forward_micro * elements)
    return activations, logits, 0


def _inference(settings: Settings, model: Architecture, index: int) -> tuple[float, float, float]:
    """(activations, logits, cache): one layer at work, and keys and values of all tokens of a batch.

    The logits are those of the whole prompt: megatron-core 0.10 computes them for every position although only the
    last is sampled from (models/gpt/gpt_model.py). `sequence` is prompt and response together.
    """
    width, batch = _width(settings), settings.batch
    activations = batch * settings.sequence * (2 * model.hidden + 2 * model.ffn / settings.tensor) * width
    if not settings.flash:
        activations += batch * settings.sequence**2 * model.heads / settings.tensor * width
    per_token = 2 * model.layers / settings.pipeline * model.kv / settings.tensor * width
    cache = 0 if settings.kind == "score" else batch * settings.sequence * per_token
    if index != settings.pipeline - 1:
        return activations, 0, cache
    positions = batch * model.padded(settings.tensor) / settings.tensor
    logits = LOGITS.get(settings.kind, 0) * positions * max(1, settings.sequence - settings.new_tokens)
    if settings.compares:
        logits = max(logits, FORWARD_LOGITS * positions * settings.sequence)
    return activations, logits, cache


def host(settings: Settings, model: Architecture) -> float:
    """Bytes of a node's RAM: full fine-tuning in preference training holds two copies of the weights there.

    The reference policy, and the policy while the reference is on the GPU; LoRA switches its adapters off instead.
    source: NeMo-Aligner v0.7.0 train_gpt_dpo.py:62-66 and utils.py:555-585
    """
    if settings.kind != "preference" or settings.lora:
        return 0
    each = max(trained_parts(settings, model, index)[0] for index in (0, settings.pipeline - 1))
    return 2 * each * settings.devices
