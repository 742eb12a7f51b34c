"""Compose the complete config of every stage of a pipeline.

Later wins: configs/stage/<kind>.yaml (the schema: an unknown key is refused) <- model file <- layout files <- cluster
file <- the pipeline's seed <- its `all:` <- its `stages.<name>` <- the command line. `rounds:` makes stages too
(rounds.py), `from:` puts the file over another pipeline (document.load). Model, layout and cluster files have an `all:`
section and one section a kind; a cluster's `slurm:` section is its profile. A setting under `all:` reaches every kind
whose base has the key; if none has, it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import Problem, UserInputError
from recipes.pipeline import assume, document, graph, overrides, references, rounds
from recipes.pipeline.layers import Key, Layer, read
from recipes.pipeline.merge import did_you_mean_path, dotted, leaves
from recipes.pipeline.stage_config import build, reaching

if TYPE_CHECKING:
    from recipes.slurm.profile import Profile

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
    """A composed pipeline; `stages` is in the order of the graph, parents first.

    cluster:      the Slurm profile, if any
    architecture: the `model` block and `vocab_size` of the pipeline's model as kind `base` would build it (assume.py)
    assumed:      for some stages {"rows", "tokens"}, what the planner cannot know before the data is there
    model_file:   the file that describes the pipeline's model, for messages
    left_out:     stage -> "file:line" of those that a pipeline made `from:` another leaves out, for messages
    starts:       stage of a first round -> (name of the rounds, their `previous`), for messages
    """

    name: str
    seed: int
    stages: dict[str, StageConfig]
    cluster: Profile | None = None
    architecture: dict = field(default_factory=dict)
    assumed: dict[str, dict] = field(default_factory=dict)
    model_file: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    starts: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def parents(self) -> graph.Parents:
        return {name: stage.parents for name, stage in self.stages.items()}

    def to_dict(self) -> dict:
        """What runs/<run>/pipeline.yaml holds: the name, the seed and every stage's frozen config."""
        return {
            "name": self.name,
            "seed": self.seed,
            "architecture": self.architecture,
            "assume": self.assumed,
            "stages": {name: stage.cfg for name, stage in self.stages.items()},
        }


def compose(
    pipeline: str | Path,
    override: list[str] = (),
    *,
    cluster: str | None = None,
    configs: Path = CONFIGS,
    open_inputs: bool = False,
) -> Pipeline:
    """Load a pipeline by name or path and compose every stage. Raises UserInputError with all problems found.

    cluster: a profile, by name or path, in place of the one that the pipeline names; open_inputs: inputs that nobody
    has set stay `???` and are no problem: such a pipeline can be looked at and planned, not run
    """
    command_line = overrides.parse(list(override))
    written = document.load(configs, str(pipeline))
    document.refuse_nothing(command_line)
    first_rounds = rounds.starts(written, command_line)
    file, command_line = rounds.expand(written, command_line)
    settings = document.settings(file, command_line)
    settings["cluster"] = cluster or settings["cluster"]
    overlays, profile_file = _overlays(configs, settings)
    bases = {path.stem: read(path) for path in sorted((configs / "stage").glob("*.yaml"))}
    kinds = document.kinds(file, command_line, bases)
    problems = document.unused_sections(overlays, profile_file, file, command_line, bases)
    stages = {}
    for name, kind in kinds.items():
        layers = _layers(name, kind, overlays, file, command_line, bases[kind])
        try:
            stages[name] = StageConfig(name, kind, *build(name, kind, bases[kind], layers, kinds, open_inputs))
        except UserInputError as error:  # go on: all stages report at once
            problems += error.problems
    profile = _profile(settings["cluster"], profile_file, command_line, problems)
    assumed = assume.of_stages(written, command_line, kinds, problems)
    if problems:
        raise UserInputError(_once(problems))
    ordered = graph.order({name: stage.parents for name, stage in stages.items()})
    return Pipeline(
        settings["name"],
        settings["seed"],
        {name: stages[name] for name in ordered},
        cluster=profile,
        architecture=assume.architecture(bases.get("base"), overlays, stages),
        assumed=assumed,
        model_file=overlays[0].source if settings["model"] else "",
        left_out=document.left_out(file),
        starts=first_rounds,
    )


def _once(problems: list[Problem]) -> list[Problem]:
    """What is wrong in one place that several stages read, as those of rounds do, is told for the first of them."""
    found: dict[tuple, Problem] = {}
    for problem in problems:
        found.setdefault((problem.where.partition(" (stage ")[0], problem.message, problem.fix), problem)
    return list(found.values())


def _overlays(configs: Path, settings: dict) -> tuple[list[Layer], Layer | None]:
    """The files between the bases and the pipeline, weakest first, and which of them is the cluster's."""
    names = [("model", settings["model"]), *(("layout", name) for name in settings["layout"])]
    overlays = [read(document.find(configs / folder, name)) for folder, name in names if name]
    if not settings["cluster"]:
        return overlays, None
    cluster = read(document.find(configs / "cluster", settings["cluster"]))
    return [*overlays, cluster], cluster


def _profile(name: str | None, file: Layer | None, command_line: Layer, problems: list[Problem]):
    """The cluster profile with what the command line changes in it; None where the pipeline names no cluster."""
    launch = command_line.section(document.LAUNCH)
    if file is None:
        if launch.data:
            fix = "name a profile: --cluster NAME (or cluster=NAME)"
            problems.append(Problem("", launch.source, "`slurm.` changes a cluster profile, and there is none", fix))
        return None
    from recipes.slurm import profile

    try:
        return profile.compose(name, [file.section(document.LAUNCH), launch])
    except UserInputError as error:
        problems += error.problems
        return None


def from_run(run_dir: Path) -> Pipeline:
    """The pipeline that a run was started with, from its pipeline.yaml."""
    layer = read(Path(run_dir) / "pipeline.yaml")
    stages = {}
    for name, cfg in layer.data["stages"].items():
        found = [references.thaw(ref) for value in cfg["inputs"].values() for ref in references.items(value)]
        parents = list(dict.fromkeys(pair[0] for pair in found if pair))
        history = {key: [(value, layer.where(("stages", name) + key))] for key, value in leaves(cfg)}
        stages[name] = StageConfig(name, cfg["kind"], cfg, parents, history)
    known = {"architecture": layer.data.get("architecture") or {}, "assumed": layer.data.get("assume") or {}}
    return Pipeline(layer.data["name"], layer.data["seed"], stages, **known)


def _layers(name: str, kind: str, overlays: list[Layer], file: Layer, command_line: Layer, base: Layer) -> list[Layer]:
    """The layers over the base of one stage, weakest first."""
    layers = []
    for overlay in overlays:
        layers += [reaching(overlay.section("all"), base), overlay.section(kind)]
    layers += [
        Layer(top.where(("seed",)), {"seed": top.data["seed"]}) for top in (file, command_line) if "seed" in top.data
    ]
    layers += [reaching(file.section("all"), base), file.section("stages", name)]
    layers += [reaching(command_line.section("all"), base), command_line.section("stages", name)]
    return layers
