"""The config of one stage: layers merged, interpolations resolved, types checked, inputs frozen."""

from __future__ import annotations

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.document import DEFAULT_SEED
from recipes.pipeline.layers import Layer
from recipes.pipeline.merge import ANY, OPEN, WHOLE, Merge, dotted, leaves

# In the frozen config of every kind, in this order and before the kind's own keys.
HEAD = {"stage": "", "kind": "", "seed": DEFAULT_SEED, "inputs": {}, "resources": {}}


def reaching(layer: Layer, base: Layer) -> Layer:
    """The part of an `all:` section that this base has keys for (see `document.unused_sections` for the others)."""

    def part(data: dict, schema: dict) -> dict:
        return {k: inner(v, schema[k]) for k, v in data.items() if k in schema}

    def inner(value, schema):
        closed = isinstance(value, dict) and isinstance(schema, dict) and schema != {}
        return part(value, schema) if closed else value

    return Layer(layer.source, part(layer.data, base.data), layer.lines)


def build(
    name: str, kind: str, base: Layer, layers: list[Layer], stages, open_inputs: bool = False
) -> tuple[dict, list[str], dict]:
    """(frozen config, parents, history of every leaf) of one stage. Raises UserInputError with all its problems.

    base: configs/stage/<kind>.yaml; layers: what comes over it, weakest first; stages: all names in the pipeline;
    open_inputs: inputs that nobody has set stay `???`, which is enough to look at a pipeline
    """
    data = {**HEAD, **base.data, "stage": name, "kind": kind}
    merge = Merge(f"stage {name}", Layer(base.source, data, base.lines))
    for layer in layers:
        merge.add(layer)
    for key, value in (("stage", name), ("kind", kind)):
        if merge.value[key] != value:
            message = f"`{key}` of stage {name} cannot be {merge.value[key]!r}"
            merge.problems.append(Problem("", merge.where((key,)), message, "change it in the pipeline file"))
    _stop_at(merge.problems)
    _stop_at(_unset(name, merge, open_inputs))
    cfg = _resolve(merge)
    inputs = cfg["inputs"] = {key: value for key, value in cfg["inputs"].items() if key != ANY}
    for key, value in inputs.items():
        if isinstance(value, str) and isinstance(data["inputs"].get(key), list):
            inputs[key] = [value]  # one reference where several may stand
    merge.check_types(cfg)
    shape = references.problems(inputs, data["inputs"], stages, lambda key: merge.where(("inputs", key)))
    _stop_at(merge.problems + shape)
    cfg["inputs"] = {key: references.freeze(value, stages) for key, value in inputs.items()}
    return cfg, references.parents(inputs, stages), merge.history


def _stop_at(problems: list[Problem]) -> None:
    if problems:
        raise UserInputError(problems)


def _unset(stage: str, merge: Merge, open_inputs: bool) -> list[Problem]:
    """Keys that the base leaves open with ??? and that nobody set."""
    required = {key for key, value in leaves(merge.base.data) if value in OPEN}
    unset = [k for k, value in leaves(merge.value) if value in OPEN or (value in (None, []) and k in required)]
    return [
        Problem("", merge.where(key), f"`{dotted(key)}` must be set", f"set stages.{stage}.{dotted(key)}")
        for key in unset
        if not (open_inputs and key[0] == "inputs")
    ]


def _resolve(merge: Merge) -> dict:
    """The merged config with every `${...}` replaced; they are relative to the root of the stage's config."""
    unresolved = {key: value for key, value in leaves(merge.value) if "${" in str(value)}
    known = {key: _follow(value, merge.value) for key, value in unresolved.items()}
    if ... in known.values():
        return _resolve_any(merge)
    for key, value in known.items():
        node = merge.value
        for part in key[:-1]:
            node = node[part]
        node[key[-1]] = value
    return merge.value


def _follow(value, root: dict, hops: int = 8):
    """What `${key}` stands for; `...` if that is more than the value of one key. Ten times as quick as OmegaConf."""
    while isinstance(value, str) and "${" in value:
        place, node = WHOLE.fullmatch(value), root
        for part in place[1].split(".") if place and hops else ():
            node = node.get(part, ...) if isinstance(node, dict) else ...
        if node is root or isinstance(node, (dict, list)):
            return ...
        value, hops = node, hops - 1
    return value


def _resolve_any(merge: Merge) -> dict:
    from omegaconf import OmegaConf  # slow to import
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(merge.value), resolve=True)
    except OmegaConfBaseException as error:
        key = error.full_key or "?"
        message = f"`{key}` cannot be resolved: {str(error).splitlines()[0]}"
        fix = "point the interpolation at a key of this stage's config"
        raise UserInputError(Problem("", merge.where(tuple(key.split("."))), message, fix)) from error
