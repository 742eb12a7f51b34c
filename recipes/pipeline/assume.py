"""What a pipeline says about its model and its data before either is there; only the planner and the checks read it."""

from __future__ import annotations

import copy
import re

from recipes.errors import Problem
from recipes.pipeline.layers import Layer
from recipes.pipeline.merge import MISSING, Merge, did_you_mean

KEYS = ("rows", "tokens")  # of the file that a stage trains on or answers; tokens: mean of a row, prompt included


def architecture(base: Layer | None, overlays: list[Layer], stages: dict) -> dict:
    """The `model` block that kind `base` gives the pipeline's model, with `vocab_size`; {} where no size is set.

    A stage that builds the model knows it best. Where none does, the model file's `base:` section describes what the
    checkpoint from outside must be.
    """
    for stage in stages.values():
        if stage.kind == "base":
            return {**stage.cfg["model"], "vocab_size": stage.cfg["tokenizer"]["vocab_size"]}
    if base is None:
        return {}
    from recipes.pipeline.stage_config import reaching

    merge = Merge("architecture", Layer(base.source, copy.deepcopy(base.data), base.lines))
    for overlay in overlays:
        merge.add(reaching(overlay.section("all"), base))
        merge.add(overlay.section("base"))
    model = merge.value["model"]
    return {} if MISSING in model.values() else {**model, "vocab_size": merge.value["tokenizer"]["vocab_size"]}


def of_stages(document: Layer, command_line: Layer, stages: dict[str, str], problems: list[Problem]) -> dict:
    """{stage: {"rows", "tokens"}} of a pipeline's `assume:`; a stage of rounds may be named without its number."""
    found: dict[str, dict] = {}
    for layer in (document.section("assume"), command_line.section("assume")):
        for name in layer.data:
            values = layer.section(name)
            names = [stage for stage in stages if stage == name or re.fullmatch(re.escape(name) + r"\d+", stage)]
            wrong = [] if names else [_no_stage(name, layer, stages)]
            wrong += [_no_value(name, key, values) for key, value in values.data.items() if not _fits(key, value)]
            problems += wrong
            for stage in names if not wrong else ():
                found[stage] = {**found.get(stage, {}), **values.data}
    return found


def _no_stage(name: str, layer: Layer, stages: dict[str, str]) -> Problem:
    close = did_you_mean(name, dict.fromkeys(re.sub(r"\d+$", "", stage) for stage in stages))
    fix = f"did you mean `{close[0]}`?" if close else "name a stage of the pipeline"
    return Problem("", layer.where((name,)), f"there is no stage `{name}` to assume of", fix)


def _no_value(name: str, key: str, values: Layer) -> Problem:
    known, fix = key in KEYS, f"give {' or '.join(KEYS)}, a whole number above 0"
    if not known and (close := did_you_mean(key, KEYS)):
        fix = f"did you mean `{close[0]}`?"
    message = f"`assume.{name}.{key}` cannot be {values.data[key]!r}" if known else f"unknown key `assume.{name}.{key}`"
    return Problem("", values.where((key,)), message, fix)


def _fits(key: str, value) -> bool:
    return key in KEYS and isinstance(value, int) and not isinstance(value, bool) and value > 0
