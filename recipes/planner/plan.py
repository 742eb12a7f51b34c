"""The plan of a pipeline: for every stage that needs the engine, what it takes and whether it fits.

`Plan.to_dict()` is what `align plan --json` prints; docs/planner.md lists its keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from recipes.errors import Problem, UserInputError
from recipes.pipeline.checks.subject import ARCHITECTURE, Subject
from recipes.planner import data, findings, gpus, memory, work
from recipes.planner.architecture import Architecture
from recipes.planner.settings import INFERENCE, TRAINING, Settings
from recipes.planner.work import Assumptions


@dataclass
class StagePlan:
    """One stage: what it is laid out as, what is known of its rows, and what follows."""

    subject: Subject
    settings: Settings
    model: Architecture
    gpu: gpus.GPU | None
    data: data.Data
    assumed: Assumptions
    limit: float | None = None  # seconds of a job, where a cluster is named
    most: int | None = None  # GPUs that there are; None: as many as the stage's array tasks take
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.subject.name

    # -- memory --------------------------------------------------------------------------------------

    def memory(self) -> tuple[memory.Memory, memory.Memory]:
        return memory.first_and_last(self.settings, self.model, gpu=self.gpu is not None)

    @property
    def fits(self) -> bool | None:
        return None if self.gpu is None else max(part.total for part in self.memory()) <= self.gpu.usable

    @property
    def host(self) -> float:
        return memory.host(self.settings, self.model)

    # -- work ----------------------------------------------------------------------------------------

    @property
    def tasks(self) -> int:
        return self.subject.number("array_tasks", 1)

    @property
    def steps(self) -> int | None:
        """Optimizer steps, or batches of an inference stage."""
        if self.settings.trains:
            return work.steps(self.subject.cfg, self.data.rows)
        rows = self.data.rows
        return None if rows is None else math.ceil(rows * self.answers / max(1, self.settings.batch))

    @property
    def answers(self) -> int:
        """Rows through the model for every row of the input."""
        if self.settings.kind not in ("generate", "evaluate"):
            return 1
        return self.subject.number("responses_per_prompt", 1) + (self.settings.kind == "evaluate")

    @property
    def tokens(self) -> int | None:
        """That the stage reads in all: rows x epochs x mean length, both responses of a pair."""
        if self.steps is None:
            return None
        rows = self.steps * self.settings.total if self.settings.trains else self.data.rows * self.answers
        new = 0 if self.settings.trains else self.settings.new_tokens
        return rows * (self.data.tokens + new) * (2 if self.settings.kind == "preference" else 1)

    @property
    def step_seconds(self) -> float | None:
        """One optimizer step, or one batch of an inference stage on one copy of the model."""
        if self.gpu is None:
            return None
        if self.settings.trains:
            return work.step_seconds(self.settings, self.model, self.gpu, self.assumed)
        return work.batch_seconds(self.settings, self.model, self.gpu, self.assumed, self.data.tokens)

    @property
    def seconds(self) -> float | None:
        """Of all steps and saves; loading, validation and waiting in the queue are not in it."""
        if self.steps is None or self.step_seconds is None:
            return None
        if self.settings.trains:
            return self.steps * self.step_seconds + self.saves * self.save_seconds
        return math.ceil(self.steps / (self.settings.data * self.at_once)) * self.step_seconds

    @property
    def seconds_unpadded(self) -> float | None:
        """As `seconds`, if every row were as long as the mean one; None where that is not known."""
        if self.data.tokens_from != data.ASSUMED or self.settings.kind not in ("sft", "preference"):
            return None
        return replace(self, settings=replace(self.settings, sequence=self.data.tokens)).seconds

    @property
    def at_once(self) -> int:
        """Array tasks that work at the same time."""
        return self.tasks if self.most is None else max(1, min(self.tasks, self.most // self.settings.ranks))

    @property
    def gpu_hours(self) -> float | None:
        return None if self.seconds is None else self.seconds * self.settings.ranks * self.at_once / 3600

    # -- checkpoints ---------------------------------------------------------------------------------

    @property
    def save_bytes(self) -> float:
        return work.save_bytes(self.settings, self.model) if self.settings.trains else 0

    @property
    def disk(self) -> tuple[float, float]:
        """(bytes at most at once, bytes at the end)."""
        if not self.settings.trains:
            return 0, 0
        most, kept, _ = work.checkpoints(self.subject.cfg)
        copies = 2 if self.subject.get("export_nemo") else 1
        model = copies * work.published_bytes(self.settings, self.model)
        return most * self.save_bytes + model, kept * self.save_bytes + model

    @property
    def save_seconds(self) -> float:
        """One save event, all that it writes."""
        if not self.settings.trains:
            return 0
        return work.checkpoints(self.subject.cfg)[2] * self.save_bytes / self.assumed.disk_rate

    @property
    def saves(self) -> int:
        interval = self.subject.number(f"{self.subject.loop}.save_interval") or 1
        return max(1, (self.steps or 0) // interval) if self.settings.trains else 0

    @property
    def jobs(self) -> int | None:
        """Jobs in a row under the cluster's time limit; each loads the model and leaves early enough to save."""
        if self.seconds is None or self.limit is None:
            return None
        weights = self.model.total * (2 if self.settings.half_weights else 4)
        useful = self.limit - (self.grace if self.settings.trains else 0) - weights / self.assumed.disk_rate
        return math.ceil(self.seconds / useful) if useful > 0 else None

    @property
    def grace(self) -> float:
        """Seconds between leaving and the end of the job's time."""
        limit = _run_limit(self.subject.get("exp_manager.max_time_per_run"))
        grace = self.subject.pipeline.cluster.settings["grace"] if self.subject.pipeline.cluster else 0
        return max(grace, self.limit - limit) if limit and self.limit else grace


@dataclass
class Plan:
    """All stages that were planned, the ones that could not be (name: why), and what does not fit."""

    pipeline: object
    assumed: Assumptions
    stages: list[StagePlan]
    unplanned: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    gpu: gpus.GPU | None = None  # that was asked for in place of `resources.gpu`


def plan(pipeline, assumed: Assumptions, gpu: str | None = None, only: list[str] | None = None) -> Plan:
    """Plan a pipeline. gpu: in place of every `resources.gpu`; only: these stages. Raises UserInputError."""
    asked = gpus.find(gpu) if gpu else None
    stages, unplanned = [], {}
    for name, stage in pipeline.stages.items():
        if (only and name not in only) or stage.kind not in (*TRAINING, *INFERENCE):
            continue
        found = of_stage(Subject(pipeline, stage), assumed, gpu)
        if isinstance(found, str):
            unplanned[name] = found
        else:
            stages.append(found)
    problems = findings.problems(stages)
    return Plan(pipeline, assumed, stages, unplanned, problems, asked)


def of_stage(subject: Subject, assumed: Assumptions, gpu: str | None = None) -> StagePlan | str:
    """The plan of one stage, or why there is none. UserInputError for a GPU that is not in the table.

    gpu: in place of the one that the stage names
    """
    models = architectures(subject)
    if not models:
        return "the sizes of its model are not known: name a model (configs/model) or a checkpoint that is here"
    model = max(models, key=lambda each: each.total)
    own = subject.get("resources.gpu")
    kind = gpus.find(gpu) if gpu else gpus.find(own, subject.where("resources.gpu")) if own else None
    known = data.of_stage(subject)
    settings = Settings.of(subject.cfg, min(known.sequence, known.tokens + subject.number("max_new_tokens", 0)))
    if not settings.sane:
        return "a size in its layout is below 1: `align check` names it"
    stage = StagePlan(subject, settings, model, kind, known, assumed, _limit(subject))
    stage.notes = findings.notes(stage)
    return stage


def architectures(subject: Subject) -> list[Architecture]:
    """Of every model that a stage builds or loads: its own config or its checkpoint's, else the pipeline's."""
    general = subject.pipeline.architecture
    found = [model for _, model, _ in subject.architectures()] or [general]
    pieces = general.get("vocab_size")
    loaded = subject.get(f"model.{ARCHITECTURE}") is None
    return [known for model in found if (known := Architecture.of(model, pieces, loaded=loaded))]


def _limit(subject: Subject) -> float | None:
    if subject.pipeline.cluster is None:
        return None
    from recipes.slurm.profile import resources

    return resources(subject.pipeline.cluster, subject.cfg).seconds


def _run_limit(text: str | None) -> float | None:
    """Seconds of DD:HH:MM:SS (rule C15); None where there is none."""
    parts = str(text or "").split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        return None
    days, hours, minutes, seconds = map(int, parts)
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def unknown(pipeline, names: list[str]) -> None:
    """UserInputError for names that are no stages."""
    from recipes.pipeline.graph import unknown_stage

    wrong = [name for name in names if name not in pipeline.stages]
    if wrong:
        raise UserInputError([unknown_stage(name, pipeline.stages, "--stage") for name in wrong])
