"""Inputs that exist, outputs that are written, and path names that the trainer does not misread."""

from __future__ import annotations

import re
from pathlib import Path

from recipes.errors import Problem
from recipes.pipeline import references
from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import MODEL_INPUTS, Subject
from recipes.pipeline.merge import did_you_mean

MISREAD = re.compile(r"(?:step|epoch|consumed_samples)=")
# What each kind writes under outputs/; a kind that is not here may write anything.
OUTPUTS = {
    "data": ("train.jsonl", "validation.jsonl"),
    "base": ("model",),
    "sft": ("model", "adapters"),
    "reward": ("model", "validation_scores.jsonl"),
    "preference": ("model", "implicit_gaps.jsonl", "adapters"),
    "generate": ("responses.jsonl",),
    "score": ("scored.jsonl",),
    "pairs": ("pairs.jsonl", "pairs_validation.jsonl"),
    "evaluate": ("metrics.json", "samples.jsonl"),
    "user_turns": ("prompts.jsonl",),
    "prompts": ("prompts.jsonl", "dialogues.jsonl", "code.jsonl"),
    "respond": ("responses.jsonl",),
    "judge": ("judged.jsonl",),
    "audit": ("audit.json",),
    "serve": (),
    "from_hf": ("model",),
    "to_hf": ("hf",),
    "from_nemo2": ("model",),
}

C6 = Rule(
    "C6",
    title="No step=, epoch= or consumed_samples= in a path; checkpoints are judged by val_loss",
    explanation="On resume NeMo-Aligner reads step, epoch and consumed samples from the first match in the whole "
    "path. A parent directory called step=99 ends a resumed run at once, with exit code 0. A monitor "
    "that no trainer logs means that no best checkpoint is ever kept.",
    fix="rename the directory; monitor: val_loss",
)

JUDGED = {"score": "scored.jsonl", "judge": "judged.jsonl"}
# Inputs that take certain things only: input name -> the kinds that make it and their output
TAKES = {
    "reward_model": {"reward": "model"},
    "responses": {"generate": "responses.jsonl", "respond": "responses.jsonl", **JUDGED},
    "scored": JUDGED,
}

I1 = Rule(
    "I1",
    title="A reference to another stage names something that this kind of stage writes, and that the input takes",
    explanation="Otherwise the mistake shows only when the other stage is done, which can be days later.",
    fix="use one of the outputs that the message lists",
)

I2 = Rule(
    "I2",
    title="Inputs from outside the pipeline exist",
    explanation="A path without a stage's name before the first slash is a path on this machine, relative to the "
    "working directory.",
    fix="correct the path or the stage's name",
)

K1 = Rule(
    "K1",
    title="A checkpoint from outside is complete",
    explanation="A directory needs model_config.yaml and model_weights/, a .nemo file must be a readable tar with a"
    " model_config.yaml. NeMo writes .nemo files in place, so a killed export leaves a cut-off file "
    "under its final name.",
    fix="give a complete checkpoint",
)


def check_run_dir(run_dir: Path) -> list[Problem]:
    """C6 for the run directory, which is no part of the configs."""
    path = str(run_dir.absolute())
    if MISREAD.search(path):
        return [
            Problem(
                "C6",
                path,
                "the path of the run contains step=, epoch= or consumed_samples=",
                "choose another --run or --runs-dir",
            )
        ]
    return []


@C6
def no_misread_paths(stage):
    for name, value in stage.cfg["inputs"].items():
        for ref in references.items(value):
            if MISREAD.search(ref):
                yield (
                    f"inputs.{name}",
                    f"`{ref}` contains step=, epoch= or consumed_samples=",
                    "rename or link the directory",
                )


@C6
def monitor(stage):
    for key, value in stage.keys_named("monitor"):
        if value != "val_loss":
            yield key, f"is {value!r}", "use val_loss"


@I1
def outputs_exist(stage):
    for name, value in stage.cfg["inputs"].items():
        for ref in references.items(value):
            pair = references.thaw(ref)
            parent = stage.pipeline.stages.get(pair[0]) if pair else None
            known = OUTPUTS.get(parent.kind) if parent else None
            if known and pair[1].split("/")[0] not in known:
                yield (
                    f"inputs.{name}",
                    f"stage {parent.name} (kind {parent.kind}) does not write `{pair[1]}`",
                    f"it writes: {', '.join(known)}",
                )


@I1
def inputs_take(stage):
    for name, value in stage.cfg["inputs"].items():
        for pair in filter(None, map(references.thaw, references.items(value))):
            producer = stage.pipeline.stages.get(pair[0])
            known = TAKES.get(name)
            if producer and known and known.get(producer.kind) != pair[1]:
                outputs = " or ".join(f"{output} of a {kind} stage" for kind, output in known.items())
                message = f"takes {outputs}; `{pair[0]}/{pair[1]}` comes from one of kind {producer.kind}"
                kind, output = next(iter(known.items()))
                yield f"inputs.{name}", message, f"write for example <{kind} stage>/{output}"
            if producer and producer.kind == "reward" and name in ("init", "policy") and stage.kind != "reward":
                yield (
                    f"inputs.{name}",
                    f"stage {pair[0]} makes a reward model, which writes no text",
                    "name a language model",
                )


@I2
def files_exist(stage: Subject):
    for name, value in stage.cfg["inputs"].items():
        refs = references.items(value)
        written = references.items(stage.stage.history.get(("inputs", name), [(None, "")])[-1][0])
        for ref, text in zip(refs, written if len(written) == len(refs) else refs):
            if references.thaw(ref) is None and not Path(ref).exists():
                yield f"inputs.{name}", *_lost(stage, name, ref, str(text))


def _lost(stage: Subject, name: str, ref: str, written: str) -> tuple[str, str]:
    """(what is wrong, fix) of a path that is not there, from the reference as it was written."""
    head, pipeline = written.split("/")[0], stage.pipeline
    if head in pipeline.left_out:
        message = f"`{written}`: stage {head} is left out ({pipeline.left_out[head]})"
        rounds, previous = pipeline.starts.get(stage.name, ("", ""))
        if previous == head:
            return message, f"rounds: {{{rounds}: {{previous: <another stage>}}}}"
        return message, f"set inputs.{name} of {stage.name} to another stage's output, or to a path"
    close = did_you_mean(head, pipeline.stages)
    fix = f"did you mean stage `{close[0]}`?" if close else "correct the path; it is relative to the working directory"
    return f"there is no file or directory {ref}", fix


@K1
def checkpoints_complete(stage: Subject):
    for name, source in stage.models():
        if not isinstance(source, Subject) and source.problem and source.path.exists():
            yield f"inputs.{name}", f"{source.path} {source.problem}", source.fix


@K1
def models_are_models(stage: Subject):
    for name in MODEL_INPUTS:
        pair = references.thaw(stage.get(f"inputs.{name}") or "")
        parent = stage.pipeline.stages.get(pair[0]) if pair else None
        if parent and "model" in OUTPUTS.get(parent.kind, ()) and pair[1] != "model":
            yield f"inputs.{name}", f"`{parent.name}/{pair[1]}` is not a checkpoint", f"use {parent.name}/model"
