"""The engine on this machine, by the metadata of its packages; nothing of it is imported."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import Subject
from recipes.stages import KINDS

OPTIMIZER, FIRST_SOUND = "mcore_distributed_optim", (0, 7, 0)
OF_APEX = ("distributed_fused_adam", "fused_adam")

E1 = Rule(
    "E1",
    title="The optimizer works with the engine that is installed here",
    explanation="Before 0.7.0 NeMo-Aligner missed a parameter sync of mcore_distributed_optim: training converges "
    "badly, and nothing else is seen (NVIDIA/NeMo-Aligner #512, #516). The fused optimizers are Apex's: without it "
    'NeMo says "Cannot resolve optimizer" when the checkpoint is loaded.',
    fix="install the versions of pyproject.toml (pip install -e .[engine], or a newer container)",
)
E2 = Rule(
    "E2",
    title="The engine here has the versions that it was tested with",
    explanation="NeMo, megatron-core and NeMo-Aligner only fit together in certain versions: others fail at import, or "
    "load a checkpoint and miss keys. The ones that are tested are pinned in pyproject.toml.",
    fix="install the versions of pyproject.toml, or run the tests of tests/engine with yours",
    severity="warn",
)


def runs_here(stage: Subject) -> bool:
    """Does the stage's engine come from this machine's Python, and not from a container?"""
    cluster = stage.pipeline.cluster
    return KINDS[stage.kind] == "engine" and (cluster is None or cluster.settings["container"]["runtime"] == "none")


@E1
def sound_optimizer(stage: Subject):
    there = installed("nemo-aligner") if runs_here(stage) else None
    if there and stage.get("model.optim.name") == OPTIMIZER and _numbers(there) < FIRST_SOUND:
        yield "model.optim.name", f"is {OPTIMIZER}, and nemo-aligner {there} is installed here", E1.fix


@E1
def apex_is_there(stage: Subject):
    name = stage.get("model.optim.name")
    if name in OF_APEX and runs_here(stage) and installed("nemo-aligner") and not installed("apex"):
        yield "model.optim.name", f"is {name}, and Apex is not installed here", f"use {OPTIMIZER}, or install Apex"


@E2
def as_pinned(stage: Subject):
    if not runs_here(stage) or installed("nemo-aligner") is None:
        return
    found = {name: installed(name) for name in pins()}
    other = [f"{n} {found[n] or 'missing'} (pinned: {pin})" for n, pin in pins().items() if found[n] != pin]
    if other:
        yield "kind", f"the engine of this machine has other versions: {', '.join(other)}", E2.fix


@cache
def pins() -> dict[str, str]:
    """The engine's packages and their versions, from this project's own metadata."""
    try:
        lines = requires("nemotron-align") or []
    except PackageNotFoundError:
        return {}
    engine = [re.fullmatch(r"([\w.-]+)==([\w.+]+) *; *extra *== *['\"]engine['\"]", line) for line in lines]
    return {match[1]: match[2] for match in engine if match}


@cache
def installed(name: str) -> str | None:
    """The version without its local part (2.4.0+cpu is 2.4.0); None where the package is not installed."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
