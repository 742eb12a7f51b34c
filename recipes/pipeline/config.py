"""Compose the complete config of every stage of a pipeline.

Later wins: configs/stage/<kind>.yaml (the schema: an unknown key is refused) <- model file <- cluster file <- the
pipeline's seed <- its `all:` <- its `stages.<name>` <- the command line. Model and cluster files have an `all:` section
and one section a kind. A setting under `all:` reaches every kind whose base has the key; one that no kind has is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import document, graph, overrides, references
from recipes.pipeline.layers import Key, Layer, read
from recipes.pipeline.merge import MISSING, Merge, did_you_mean_path, dotted, leaves

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass
class StageConfig:
    """One stage: its name in the pipeline, its kind, its frozen config and the stages whose outputs it reads.

    history: for every leaf of `cfg`, [(value, "file:line"), ...] as the layers set it; the last entry holds
    """

    name: str
    kind: str
    cfg: dict
    parents: list[str] = field(default_factory=list)
    history: dict[Key, list[tuple[object, str]]] = field(default_factory=dict, repr=False)

    def origin(self, key: str) -> tuple[object, str]:
        """(value, "file:line") of a leaf: its value as written there, before interpolation. Raises UserInputError."""
        path = tuple(key.split("."))
        if path not in self.history:
            close = did_you_mean_path(path, self.cfg)
            fix = f"did you mean `{close[0]}`?" if close else f"`align show <pipeline> {self.name}` lists every key"
            raise UserInputError(Problem("", self.name, f"there is no key `{key}`", fix))
        return self.history[path][-1]

    def explain(self, key: str = "") -> list[dict]:
        """{"key", "value", "history": [{"value", "where"}, ...]} of a leaf or of all below a group; oldest first."""
        path = tuple(key.split(".")) if key else ()
        found = [leaf for leaf in self.history if leaf[: len(path)] == path]
        if not found:
            self.origin(key)
        final = dict(leaves(self.cfg))
        return [
            {
                "key": dotted(leaf),
                "value": final.get(leaf),
                "history": [{"value": value, "where": where} for value, where in self.history[leaf]],
            }
            for leaf in found
        ]

    def where(self, key: str) -> str:
        """Stage, key and the place it was set, for the message of a problem."""
        path = tuple(key.split("."))
        place = f" ({self.history[path][-1][1]})" if path in self.history else ""
        return f"{self.name}.{key}{place}"


@dataclass
class Pipeline:
    """A composed pipeline; `stages` is in the order of the graph, parents first."""

    name: str
    seed: int
    stages: dict[str, StageConfig]

    @property
    def parents(self) -> graph.Parents:
        return {name: stage.parents for name, stage in self.stages.items()}

    def to_dict(self) -> dict:
        """What runs/<run>/pipeline.yaml holds: the name, the seed and every stage's frozen config."""
        return {
            "name": self.name,
            "seed": self.seed,
            "stages": {name: stage.cfg for name, stage in self.stages.items()},
        }


def compose(pipeline: str | Path, override: list[str] = (), *, configs: Path = CONFIGS) -> Pipeline:
    """Load a pipeline by name or path and compose every stage. Raises UserInputError with all problems found."""
    file = read(document.find(configs / "pipeline", str(pipeline)))
    command_line = overrides.parse(list(override))
    settings = document.settings(file, command_line)
    overlays = [read(document.find(configs / key, settings[key])) for key in ("model", "cluster") if settings[key]]
    kinds = document.kinds(file, command_line, configs)
    bases = {kind: read(configs / "stage" / f"{kind}.yaml") for kind in dict.fromkeys(kinds.values())}
    problems = document.unused_sections(overlays, file, command_line, configs)
    stages = {}
    for name, kind in kinds.items():
        layers = _layers(name, kind, overlays, file, command_line, bases[kind])
        stages[name], found = _stage(name, kind, bases[kind], layers, kinds)
        problems += found
    if problems:
        raise UserInputError(problems)
    ordered = graph.order({name: stage.parents for name, stage in stages.items()})
    return Pipeline(settings["name"], settings["seed"], {name: stages[name] for name in ordered})


def from_run(run_dir: Path) -> Pipeline:
    """The pipeline that a run was started with, from its pipeline.yaml."""
    layer = read(Path(run_dir) / "pipeline.yaml")
    stages = {}
    for name, cfg in layer.data["stages"].items():
        found = [references.thaw(ref) for value in cfg["inputs"].values() for ref in references.items(value)]
        parents = list(dict.fromkeys(pair[0] for pair in found if pair))
        history = {key: [(value, layer.where(("stages", name) + key))] for key, value in leaves(cfg)}
        stages[name] = StageConfig(name, cfg["kind"], cfg, parents, history)
    return Pipeline(layer.data["name"], layer.data["seed"], stages)


def _layers(name: str, kind: str, overlays: list[Layer], file: Layer, command_line: Layer, base: Layer) -> list[Layer]:
    """The layers over the base of one stage, weakest first."""
    layers = []
    for overlay in overlays:
        layers += [_reaching(overlay.section("all"), base), overlay.section(kind)]
    layers += [
        Layer(top.where(("seed",)), {"seed": top.data["seed"]}) for top in (file, command_line) if "seed" in top.data
    ]
    layers += [_reaching(file.section("all"), base), file.section("stages", name)]
    layers += [_reaching(command_line.section("all"), base), command_line.section("stages", name)]
    return layers


def _reaching(layer: Layer, base: Layer) -> Layer:
    """The part of an `all:` section that this base has keys for (see `document.unused_sections` for the others)."""

    def part(data: dict, schema: dict) -> dict:
        deeper = {
            k: isinstance(v, dict) and isinstance(schema.get(k), dict) and schema[k] != {} for k, v in data.items()
        }
        return {k: part(v, schema[k]) if deeper[k] else v for k, v in data.items() if k in schema}

    return Layer(layer.source, part(layer.data, base.data), layer.lines)


def _stage(name: str, kind: str, base: Layer, layers: list[Layer], stages) -> tuple[StageConfig, list[Problem]]:
    """Merge, resolve and freeze one stage. The problems are returned, so that all stages report theirs at once."""
    head = {
        "stage": name,
        "kind": kind,
        "seed": document.DEFAULT_SEED,
        "inputs": {},
        "resources": {"nodes": 1, "devices": 1, "threads": 1},
    }
    data = {**head, **base.data, "stage": name, "kind": kind}
    merge = Merge(name, Layer(base.source, data, base.lines))
    for layer in layers:
        merge.add(layer)
    for key, value in (("stage", name), ("kind", kind)):
        if merge.value[key] != value:
            where = merge.history[(key,)][-1][1]
            merge.problems.append(
                Problem(
                    "",
                    where,
                    f"`{key}` of stage {name} cannot be {merge.value[key]!r}",
                    "change it in the pipeline file",
                )
            )
    if merge.problems:
        return StageConfig(name, kind, {}), merge.problems
    unset = [key for key, value in leaves(merge.value) if value == MISSING]
    if unset:
        text = "must be set"
        return StageConfig(name, kind, {}), [
            Problem(
                "", f"{base.where(key)} (stage {name})", f"`{dotted(key)}` {text}", f"set stages.{name}.{dotted(key)}"
            )
            for key in unset
        ]
    cfg, problems = _resolve(name, merge)
    if problems:
        return StageConfig(name, kind, {}), problems
    merge.check_types(cfg)
    inputs = cfg["inputs"]
    problems += merge.problems + references.problems(
        inputs, base.data.get("inputs") or {}, stages, lambda key: merge.history[("inputs", key)][-1][1]
    )
    if problems:
        return StageConfig(name, kind, {}), problems
    cfg["inputs"] = {key: references.freeze(value, stages) for key, value in inputs.items()}
    return StageConfig(name, kind, cfg, references.parents(inputs, stages), merge.history), []


def _resolve(name: str, merge: Merge) -> tuple[dict, list[Problem]]:
    """The merged config with every `${...}` replaced; interpolations are relative to the root of the stage's config."""
    if not any("${" in str(value) for _, value in leaves(merge.value)):
        return merge.value, []
    from omegaconf import OmegaConf  # slow to import
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(merge.value), resolve=True), []
    except OmegaConfBaseException as error:
        key = error.full_key or "?"
        where = merge.history.get(tuple(key.split(".")), [(None, merge.base.source)])[-1][1]
        message = f"`{key}` cannot be resolved: {str(error).splitlines()[0]}"
        return merge.value, [
            Problem("", f"{where} (stage {name})", message, "point the interpolation at a key of this stage's config")
        ]
