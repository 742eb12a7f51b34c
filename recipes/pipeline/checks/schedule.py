"""Intervals, learning-rate schedule and time limit."""

from __future__ import annotations

import re

from recipes.pipeline.checks.registry import Rule

SCHED, OPTIM = "model.optim.sched", "model.optim"

C3 = Rule(
    "C3",
    title="Validation and save intervals are whole numbers that fit together and fit the run",
    explanation="NeMo-Aligner asserts save_interval % val_check_interval == 0 only after the first step, with the "
    "whole model loaded. A fraction can floor to 0, which switches validation off without a word; "
    "save_interval <= 0 leaves no checkpoint and exits 0. limit_val_batches: 1 is one batch, 1.0 is all"
    " of them.",
    fix="whole numbers, save_interval a multiple of val_check_interval, both at most max_steps",
)

C4 = Rule(
    "C4",
    title="The learning-rate schedule does what its numbers suggest",
    explanation="sched.constant_steps is no plateau at the peak: the LAST so many steps run at min_lr. With the "
    "stock value of 1000 a run of 1000 steps falls to min_lr right after warm-up, and its first step "
    "trains at 0. Warm-up longer than the run never reaches lr.",
    fix="constant_steps: 0; for a constant rate set min_lr equal to lr",
)

C15 = Rule(
    "C15",
    title="max_time_per_run is DD:HH:MM:SS",
    explanation="NeMo-Aligner splits the text at colons into four numbers and fails on anything else, after the job"
    " has started.",
    fix='write it in quotes, for example "00:03:30:00" for three and a half hours',
)


@C3
def loop_numbers(stage):
    if not stage.loop:
        return
    for name in ("val_check_interval", "save_interval"):
        key = f"{stage.loop}.{name}"
        value = stage.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield key, f"is {value!r}", "give a whole number of steps, 1 or more"
        elif stage.max_steps and value > stage.max_steps:
            yield key, f"{value} is above max_steps {stage.max_steps}", f"use {stage.max_steps} or fewer"
    steps, epochs = stage.number(f"{stage.loop}.max_steps"), stage.number(f"{stage.loop}.max_epochs")
    if steps is not None and steps < 1 and steps != -1:
        yield f"{stage.loop}.max_steps", f"is {steps}", "give 1 or more, or -1 for all of max_epochs"
    if epochs is not None and epochs < 1:
        yield f"{stage.loop}.max_epochs", f"is {epochs}", "give 1 or more"


@C3
def save_is_a_multiple(stage):
    if not stage.loop:
        return
    val, save = stage.number(f"{stage.loop}.val_check_interval"), stage.number(f"{stage.loop}.save_interval")
    if val and save and val > 0 and save % val:
        better = max(val, save // val * val)
        yield (
            f"{stage.loop}.save_interval",
            f"{save} is not a multiple of val_check_interval {val}",
            f"use {better}, or change val_check_interval",
        )


@C3
def limit_of_validation(stage):
    key = f"{stage.loop}.limit_val_batches"
    value = stage.get(key)
    if not stage.loop or value is None:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= 1) and not (isinstance(value, float) and 0 < value <= 1):
        yield (
            key,
            f"is {value!r}: no validation, or not what it seems",
            "use 1.0 for all batches or a whole number of batches",
        )


@C4
def constant_steps(stage):
    constant, warmup = stage.number(f"{SCHED}.constant_steps", 0), stage.number(f"{SCHED}.warmup_steps", 0)
    if not stage.loop or constant == 0:
        return
    if stage.max_steps is None:
        yield (
            f"{SCHED}.constant_steps",
            f"is {constant}, but the number of steps is not known before the data is",
            "set it to 0, or set max_steps",
        )
    elif stage.max_steps - constant <= 10 * warmup:
        room = stage.max_steps - constant
        yield (
            f"{SCHED}.constant_steps",
            f"the last {constant} of {stage.max_steps} steps run at min_lr; {room} remain, warm-up included",
            "set it to 0",
        )


@C4
def warmup_fits(stage):
    warmup = stage.number(f"{SCHED}.warmup_steps")
    if stage.loop and warmup is not None and (warmup < 0 or (stage.max_steps and warmup >= stage.max_steps)):
        yield (
            f"{SCHED}.warmup_steps",
            f"is {warmup}, the run has {stage.max_steps} steps",
            "use fewer: the rate never reaches lr otherwise",
        )


@C4
def rates(stage):
    peak, low = stage.get(f"{OPTIM}.lr"), stage.get(f"{SCHED}.min_lr")
    if isinstance(peak, (int, float)) and peak <= 0:
        yield f"{OPTIM}.lr", f"is {peak}", "give a rate above 0"
    if isinstance(peak, (int, float)) and isinstance(low, (int, float)) and not 0 <= low <= peak:
        yield f"{SCHED}.min_lr", f"{low} is not between 0 and lr {peak}", f"use {peak} for a constant rate, or less"


@C15
def time_limit(stage):
    key = "exp_manager.max_time_per_run"
    value = stage.get(key)
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"\d+:\d+:\d+:\d+", value.strip())):
        yield key, f"is {value!r}", 'write it as "DD:HH:MM:SS", for example "00:03:30:00"'
