"""The fastest layout that fits on a number of GPUs, for every kind of stage in a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from recipes.planner.gpus import GPU, PER_NODE
from recipes.planner.plan import StagePlan
from recipes.planner.settings import FULL, NONE, Settings

MICRO = (1, 2, 4)
FREE = ("configs/stage/", "configs/layout/")  # where a layout file can still change what is set


@dataclass
class Suggestion:
    """The layout of all stages of one kind, as plans of them; `stages` is empty where nothing fits."""

    kind: str
    stages: list[StagePlan]
    current: list[StagePlan]

    @property
    def settings(self) -> Settings:
        return self.stages[0].settings


def suggest(stages: list[StagePlan], count: int, gpu: GPU) -> list[Suggestion]:
    """One suggestion a kind, since a layout file has one section a kind. count: GPUs that each stage may take."""
    kinds = dict.fromkeys(stage.settings.kind for stage in stages)
    found = []
    for kind in kinds:
        current = [stage for stage in stages if stage.settings.kind == kind]
        look = _training if current[0].settings.trains else _inference
        found.append(Suggestion(kind, _first_that_fits(look(current, count), current, gpu, count), current))
    return found


def _first_that_fits(candidates, current: list[StagePlan], gpu: GPU, count: int) -> list[StagePlan]:
    """The plans under the fastest candidate that every stage of the kind can take; [] if there is none.

    Of equally fast ones the least TP, then the least PP: both cost messages that the model of time does not know.
    """
    tried = []
    for candidate in candidates:
        plans = [_laid_out(stage, candidate, gpu, count) for stage in current]
        seconds = sum(stage.seconds or stage.step_seconds for stage in plans)
        tried.append(((round(seconds, 3), candidate.tensor, candidate.pipeline, -candidate.micro), plans))
    for _, plans in sorted(tried, key=lambda pair: pair[0]):
        if all(stage.fits for stage in plans):
            return plans
    return []


def _laid_out(stage: StagePlan, new: Settings, gpu: GPU, count: int) -> StagePlan:
    """A stage as it is, with the layout of `new`."""
    keys = ("nodes", "devices", "tensor", "pipeline", "context", "micro", "sequence_parallel", "recompute")
    change = {key: getattr(new, key) for key in (*keys, "recompute_layers", "recompute_method", "forward_micro")}
    large = {"half": True, "half_weights": True, "flash": True, "optimizer": "mcore_distributed_optim"}
    return replace(stage, settings=replace(stage.settings, **change, **large), gpu=gpu, most=count)


def _training(stages: list[StagePlan], count: int) -> Iterator[Settings]:
    """TP inside a node and dividing the model, PP dividing the layers, DP the rest, dividing every global batch.

    No selective recompute: with flash attention, which Transformer Engine has in bf16, no scores are kept anyway.
    """
    first = stages[0].settings
    micros = [first.micro] if any(_fixed(stage, "model.micro_batch_size") for stage in stages) else MICRO
    nodes, devices = shape(count)
    for tensor, pipeline in _splits(stages, count):
        copies = count // (tensor * pipeline)
        if count % (tensor * pipeline):
            continue
        for micro in micros:
            if any(stage.settings.total % (micro * copies) for stage in stages):
                continue
            for recompute in (NONE, FULL):
                yield replace(
                    first,
                    nodes=nodes,
                    devices=devices,
                    tensor=tensor,
                    pipeline=pipeline,
                    context=1,
                    micro=micro,
                    forward_micro=micro,
                    sequence_parallel=tensor > 1 and first.kind != "reward",
                    recompute=recompute,
                    recompute_layers=1,
                    recompute_method="uniform" if recompute == FULL else None,
                )


def _inference(stages: list[StagePlan], count: int) -> Iterator[Settings]:
    """As many copies of the model as there are GPUs for, in each of the stage's array tasks."""
    tasks = max(stage.tasks for stage in stages)
    for tensor, pipeline in _splits(stages, count):
        one = tensor * pipeline
        share = max(one, count // tasks // one * one)
        if share > PER_NODE and share % PER_NODE:
            share = max(share // PER_NODE * PER_NODE, one)
        if share > count or (share > PER_NODE and share % PER_NODE) or share % one:
            continue
        nodes, devices = shape(share)
        yield replace(stages[0].settings, nodes=nodes, devices=devices, tensor=tensor, pipeline=pipeline)


def _splits(stages: list[StagePlan], count: int) -> Iterator[tuple[int, int]]:
    layers = max(stage.model.layers for stage in stages)
    for tensor in (1, 2, 4, 8):
        for pipeline in range(1, layers + 1):
            if tensor * pipeline <= count and all(stage.model.divides(tensor, pipeline) for stage in stages):
                yield tensor, pipeline


def shape(count: int) -> tuple[int, int]:
    """(nodes, devices a node) of so many GPUs."""
    return (1, count) if count <= PER_NODE else (count // PER_NODE, PER_NODE)


def _fixed(stage: StagePlan, key: str) -> bool:
    """Does the pipeline file or the command line set this key, which come over a layout file?"""
    where = stage.subject.stage.history.get(tuple(key.split(".")), [(None, FREE[0])])[-1][1]
    return not any(folder in where.replace("\\", "/") for folder in FREE)


# -- a layout file -----------------------------------------------------------------------------------


def overlay(name: str, suggestions: list[Suggestion], count: int, gpu: GPU, efficiency: float, path) -> str:
    """The text of a file that `layout:` of a pipeline takes: a section for every kind."""
    sections = [_section(found) for found in suggestions if found.stages]
    head = _HEADER.format(name=name, count=count, gpu=gpu.name, efficiency=efficiency, path=path)
    return head + "\n" + "".join(sections)


_HEADER = """\
# Layout of pipeline {name} on {count} {gpu}, found by `align plan`: the fastest that its memory model lets fit.
# Hardware: {count} {gpu}, 8 on a node. Command: align plan {name} layout=[{path}]
# Source: computed (docs/planner.md) at {efficiency:.0%} of the peak, communication not counted. Not measured.
# Expect: at most 92 % of the GPU's memory on the first and last pipeline stage; the comments have both, in GB.
"""


def _section(found: Suggestion) -> str:
    settings = found.settings
    first, last = (max(plan.memory()[i].total for plan in found.stages) / 1e9 for i in (0, 1))
    lines = [
        f"{found.kind}:   # {first:.0f} GB first, {last:.0f} GB last stage; DP {settings.data}",
        f"  resources: {{nodes: {settings.nodes}, devices: {settings.devices}, gpu: {found.stages[0].gpu.name}}}",
        "  trainer: {precision: bf16}",
        "  model:",
        *(f"    {key}: {_yaml(value)}" for key, value in keys(settings).items()),
    ]
    return "\n".join(lines) + "\n"


def keys(settings: Settings) -> dict:
    """NeMo's keys of a layout, below `model`."""
    common = {
        "tensor_model_parallel_size": settings.tensor,
        "pipeline_model_parallel_size": settings.pipeline,
        "megatron_amp_O2": True,
        "transformer_engine": True,
    }
    if not settings.trains:
        return common
    full = settings.recompute == FULL
    return {
        **common,
        "context_parallel_size": 1,
        "sequence_parallel": settings.sequence_parallel,
        "micro_batch_size": settings.micro,
        "activations_checkpoint_granularity": FULL if full else None,
        "activations_checkpoint_method": "uniform" if full else None,
        "activations_checkpoint_num_layers": 1 if full else None,
        "optim": {"name": settings.optimizer},
    }


def _yaml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
