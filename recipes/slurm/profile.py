"""A cluster profile: `slurm:` of configs/cluster/<name>.yaml over the base, and what it means for a stage."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline.layers import Layer, read
from recipes.pipeline.merge import OPEN, Merge, dotted, leaves
from recipes.stages import KINDS

BASE = Path(__file__).resolve().parents[2] / "configs" / "cluster" / "slurm.yaml"  # the schema
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,3}):(\d\d):(\d\d)")  # not MM:SS, which Slurm reads too: 04:00 is four minutes


@dataclass(frozen=True)
class Profile:
    """A merged profile: `name`, its settings, and where each was set."""

    name: str
    settings: dict
    history: dict

    def where(self, key: str) -> str:
        """The key and the file:line that set it, for the message of a problem."""
        path = tuple(key.split("."))
        place = f" ({self.history[path][-1][1]})" if path in self.history else ""
        return f"slurm.{key}{place}"

    def to_dict(self) -> dict:
        return {"name": self.name, "slurm": self.settings}


def compose(name: str, overlays: list[Layer]) -> Profile:
    """Merge `slurm:` sections over the base, weakest first.

    Raises UserInputError: unknown keys, wrong types, and what a profile leaves to its user (???) and nobody has set.
    """
    merge = Merge("cluster profile", read(BASE).section("slurm"))
    for layer in overlays:
        merge.add(layer)
    if not merge.problems:
        merge.problems += _unset(merge)
    if not merge.problems:
        merge.check_types(merge.value)
    if merge.problems:
        raise UserInputError(merge.problems)
    return Profile(name, merge.value, merge.history)


def _unset(merge: Merge) -> list[Problem]:
    """What is still ???: a profile that is shared by sites cannot know it."""
    fix = "on the command line, {0}=..., or in a profile of your own, a copy of this one: --cluster ./mine.yaml"
    names = [(key, f"slurm.{dotted(key)}") for key, value in leaves(merge.value) if value in OPEN]
    return [Problem("", merge.where(key), f"`{name}` must be set", fix.format(name)) for key, name in names]


def from_dict(record: dict) -> Profile:
    """A profile that `to_dict` wrote: a run keeps the one it was submitted with."""
    return Profile(record["name"], record["slurm"], {})


# -- what a stage gets -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resources:
    """What the job of one stage asks for. time_limit: text for sbatch; cpus_per_task, memory: None leaves it open."""

    nodes: int
    ranks_per_node: int
    gpus_per_node: int
    spare_nodes: int
    array: int
    time_limit: str
    partition: str | None
    qos: str | None
    cpus_per_task: int | None
    memory: str | None

    @property
    def seconds(self) -> int:
        return parse_time(self.time_limit)

    @property
    def node_hours(self) -> float:
        """Of one job at its time limit, array tasks included."""
        return (self.nodes + self.spare_nodes) * self.array * self.seconds / 3600


def resources(profile: Profile, cfg: dict) -> Resources:
    """What the job of a stage with this frozen config asks for."""
    slurm, mine = profile.settings, cfg["resources"]
    engine = KINDS[cfg["kind"]] == "engine"

    def pick(key: str):
        special = None if engine else slurm["core"][key]
        return slurm[key] if special is None else special

    ranks = mine["devices"] if engine else 1
    return Resources(
        nodes=mine["nodes"],
        ranks_per_node=ranks,
        gpus_per_node=min(ranks, slurm["gpus_per_node"]) if engine else 0,
        spare_nodes=slurm["spare_nodes"] if trains(cfg) and mine["nodes"] > 1 else 0,
        array=cfg.get("array_tasks", 1),
        time_limit=mine.get("time") or pick("time"),
        partition=pick("partition"),
        qos=pick("qos"),
        cpus_per_task=pick("cpus_per_task"),
        memory=pick("memory"),
    )


def trains(cfg: dict) -> bool:
    """True for the kinds whose trainer saves checkpoints."""
    return "exp_manager" in cfg


def python(profile: Profile) -> str:
    return profile.settings["python"] or sys.executable


def secret_files(profile: Profile) -> list[Path]:
    """The files of slurm.secrets, by absolute path: jobs start elsewhere."""
    return [Path(os.path.abspath(os.path.expanduser(str(name)))) for name in profile.settings["secrets"]]


def image(profile: Profile) -> str:
    """The container's image: a file by its absolute path, since jobs start elsewhere, or what a registry calls it."""
    name = str(profile.settings["container"]["image"] or "")
    return os.path.abspath(name) if is_image_file(name) else name


def is_image_file(name: str) -> bool:
    return name.startswith(("/", "./", "../")) or name.endswith((".sqsh", ".sif"))


def splits(runtime: str, path: str) -> str:
    """What in a path makes a runtime read it as two, "" if nothing does.

    Both split mounts at commas and colons; pyxis hands them to enroot as the fields of an fstab, split at blanks.
    """
    return next((mark for mark in (",: " if runtime == "pyxis" else ",:") if mark in path), "")


def parse_time(text: str) -> int:
    """Seconds of HH:MM:SS or D-HH:MM:SS. Raises ValueError."""
    match = _TIME.fullmatch(str(text))
    if not match:
        raise ValueError(f"{text!r} is not a time limit: write HH:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
