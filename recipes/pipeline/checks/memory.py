"""Does it fit: in the GPUs, in the RAM of a node, on the disk? By the planner's model (docs/planner.md)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import Subject

RUNS = Path("runs")  # where runs are unless --runs-dir says otherwise
KEPT, LARGER = "exp_manager.checkpoint_callback_params.save_top_k", "a larger disk (--runs-dir)"

C9 = Rule(
    "C9",
    title="Weights, optimizer and activations fit into the GPUs, reference weights into the node",
    explanation="A layout that works for SFT can be twice too large for preference training: two sequences a pair, and "
    "float32 log-probabilities over the whole vocabulary on the last pipeline stage. It then fails after the "
    "checkpoint is loaded, an hour into a job at 340B, or only at the first long batch. Preference training "
    "also keeps two copies of the weights in the RAM of the node. Judged where resources.gpu names the GPU; at "
    "most 92 % of it may be needed on the first and the last pipeline stage. Generation is judged for rows of "
    "full length unless `assume:` says more.",
    fix="more TP, PP or data-parallel ranks, recompute, or a smaller batch; `align plan` looks for a layout",
)

K2 = Rule(
    "K2",
    title="The disk has room for the checkpoints",
    explanation="A checkpoint is 14 bytes a parameter with bf16 weights: 4.8 TB at 340B. The newest is written "
    "before the one that it replaces is removed, and save_top_k keeps more. A disk that fills up in a save leaves a "
    "checkpoint that nobody can resume from. Looked at on this machine, below ./runs.",
    fix="a larger disk (--runs-dir), or all.exp_manager.checkpoint_callback_params.save_top_k=0",
    severity="warn",
)


@C9
def fits_the_gpu(stage):
    if stage.get("resources.gpu") is None or not stage.get("model"):
        return
    from recipes.planner.findings import advice, too_much

    try:
        plan = _plan(stage)
    except UserInputError as error:
        for problem in error.problems:
            yield "resources.gpu", problem.message, problem.fix
        return
    if plan is not None and plan.fits is False:
        yield "resources.gpu", too_much(plan), advice(plan)


@C9
def fits_the_node(stage):
    """Only where the profile says how much memory a node gives: `0` is all of it, whatever that is."""
    limit = _bytes(stage.pipeline.cluster.settings["memory"]) if stage.pipeline.cluster else None
    if stage.kind != "preference" or stage.get("resources.gpu") is None or not limit:
        return
    try:
        plan = _plan(stage)
    except UserInputError:
        return  # said above
    if plan is not None and plan.host > limit:
        sizes = f"{_size(plan.host)}, slurm.memory is {_size(limit)}"
        message = f"two copies of the weights in a node's RAM are {sizes}"
        yield "resources.devices", message, "more memory, more PP, or LoRA, which needs no copies"


@K2
def room_for_checkpoints(stage):
    if stage.loop is None:
        return
    plan = _plan(stage, gpu=False)
    if plan is not None:
        yield from _too_full(plan, RUNS)


def check_disk(pipeline, run_dir: Path, names: list[str] | None = None) -> list[Problem]:
    """K2 for a run directory: the named stages (None: all) together, as they lie there at the end of the run."""
    found, needed, fix = [], 0.0, LARGER
    for name, stage in pipeline.stages.items():
        subject = Subject(pipeline, stage)
        plan = _plan(subject, gpu=False) if subject.loop and (names is None or name in names) else None
        needed += plan.disk[1] if plan is not None else 0
        fix = K2.fix if plan is not None and subject.get(KEPT) else fix
    free = _free(run_dir)
    if needed > free:
        message = f"checkpoints of the run are {_size(needed)}, and {run_dir} has {_size(free)}"
        found.append(Problem(K2.id, str(run_dir), message, fix))
    return found


def _too_full(plan, directory: Path):
    needed, free = plan.disk[0], _free(directory)
    if needed > free:
        message = f"needs {_size(needed)} for its checkpoints, and {directory} has {_size(free)} free here"
        yield KEPT, message, K2.fix if plan.subject.get(KEPT) else LARGER


def _plan(stage: Subject, gpu: bool = True):
    """The planner's view of a stage; None where the sizes of its model are not known."""
    from recipes.planner.plan import of_stage
    from recipes.planner.settings import INFERENCE, TRAINING
    from recipes.planner.work import Assumptions

    if stage.kind not in (*TRAINING, *INFERENCE):
        return None
    try:
        found = of_stage(stage, Assumptions())
    except UserInputError:
        if gpu:
            raise
        return None
    except (ArithmeticError, TypeError, ValueError, IndexError):
        return None  # sizes that do not divide, or are no numbers: C2 and C18 say so
    return None if isinstance(found, str) else found


def _free(directory: Path) -> int:
    """Free bytes where the directory is, or will be."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _size(count: float) -> str:
    from recipes.report.numbers import size

    return size(count)


def _bytes(text) -> float | None:
    """Bytes of what `--mem` of sbatch takes (200G; without a unit MB); None for null, 0 and what is no amount."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", str(text).strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        return None
    return int(match[1]) * 1024 ** {"K": 1, "": 2, "M": 2, "G": 3, "T": 4}[match[2].upper()]
