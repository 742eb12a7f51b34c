"""The job script of a stage, rendered from slurm/stage.sbatch.j2: complete, readable, fit to be submitted by hand."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline.processes import ROOT
from recipes.slurm import codes, profile
from recipes.slurm.profile import Profile, Resources
from recipes.slurm.run_files import REPORT, RunFiles, job_name
from recipes.stages import KINDS

TEMPLATES = ROOT / "slurm"


@dataclass(frozen=True)
class Place:
    """Where things are on the cluster: the repository, the interpreter of the core, and Slurm's own commands."""

    code: Path = ROOT
    python: str | None = None
    slurm_bin: str | None = None

    def path(self) -> str:
        found = self.slurm_bin or os.path.dirname(shutil.which("sbatch") or "")
        return ":".join(dict.fromkeys(filter(None, (found, "/usr/local/bin", "/usr/bin", "/bin"))))


HERE = Place()


def stage_script(files: RunFiles, cfg: dict, cluster: Profile, place: Place = HERE) -> str:
    """The text of <run>/slurm/<stage>.sbatch for a stage with this frozen config."""
    slurm, wants = cluster.settings, profile.resources(cluster, cfg)
    engine = KINDS[cfg["kind"]] == "engine"
    health = slurm["health"] if engine else {"enabled": False}
    return _render(
        "stage.sbatch.j2",
        **_common(files, cfg, cluster, place),
        kind=cfg["kind"],
        nodes=wants.nodes,
        ranks_per_node=wants.ranks_per_node,
        gpus_per_node=wants.gpus_per_node,
        array=wants.array,
        grace=slurm["grace"],
        margin=min(30, slurm["grace"] // 4),
        requeue=slurm["requeue"],
        health=health["enabled"],
        min_free_gb=health.get("min_free_gb"),
        all_reduce_mb=health.get("all_reduce_mb"),
        health_timeout=health.get("timeout"),
        watch=engine and any(slurm["hang"].values()),
        first_step=slurm["hang"]["first_step"],
        next_step=slurm["hang"]["step"],
        poll=max(1, min(30, *(value // 4 for value in slurm["hang"].values() if value), 30)),
        codes=codes,
    )


def report_script(files: RunFiles, cluster: Profile, place: Place = HERE) -> str:
    """The text of <run>/slurm/report.sbatch: the last job of a run, which writes its report."""
    like_a_core_stage = {"kind": "pairs", "resources": {"nodes": 1, "devices": 1, "time": None}, "inputs": {}}
    return _render("report.sbatch.j2", **_common(files, {"stage": REPORT, **like_a_core_stage}, cluster, place))


def _common(files: RunFiles, cfg: dict, cluster: Profile, place: Place) -> dict:
    """What both scripts are rendered with: options of sbatch, and how a process is started."""
    slurm, wants, stage = cluster.settings, profile.resources(cluster, cfg), cfg["stage"]
    mounts = _mounts(files, cfg, cluster, place)
    options = _options(files, stage, slurm, wants).items()
    return {
        "stage": stage,
        "run": files.run_dir.name,
        "run_dir": str(files.run_dir),
        "script": str(files.script(stage)),
        "options": [f"--{name}" if value is True else f"--{name}={quoted(value)}" for name, value in options],
        "srun": list(map(word_in_array, _srun(cluster, wants, mounts, place))),
        "inside": list(map(word_in_array, _inside(cluster, wants, mounts, place))),
        "control_in_step": slurm["container"]["runtime"] == "pyxis",
        "python": place.python or profile.python(cluster),
        "code": str(place.code),
        "path": place.path(),
        "environment": slurm["environment"],
        "secrets": profile.secret_files(cluster),
        "prologue": slurm["prologue"],
    }


def _options(files: RunFiles, stage: str, slurm: dict, wants: Resources) -> dict:
    """Options of sbatch by long name; True stands for a flag."""
    gpus = wants.gpus_per_node
    log = str(files.log(stage)).replace("%", "%%")
    options = {
        "job-name": job_name(files.run_dir, stage),
        "account": slurm["account"],
        "partition": wants.partition,
        "qos": wants.qos,
        "nodes": wants.nodes + wants.spare_nodes,
        "ntasks-per-node": wants.ranks_per_node,
        "gpus-per-node": gpus if gpus and slurm["gpu_option"] == "gpus-per-node" else None,
        "gres": f"gpu:{gpus}" if gpus and slurm["gpu_option"] == "gres" else None,
        "cpus-per-task": wants.cpus_per_task,
        "mem": wants.memory,
        "exclusive": slurm["exclusive"] or None,
        "time": wants.time_limit,
        "array": f"0-{wants.array - 1}%{slurm['array_limit']}" if wants.array > 1 else None,
        "output": log.removesuffix(".log") + ".%a.log" if wants.array > 1 else log,
        "open-mode": "append",
        "requeue" if slurm["requeue"] else "no-requeue": True,
        "signal": f"B:USR1@{slurm['grace']}" if stage != REPORT else None,  # whose script has no trap for it
        "kill-on-invalid-dep": "yes",
        "export": "NIL",
        **slurm["sbatch"],
    }
    return {name: value for name, value in options.items() if value is not None and value is not False}


def _mounts(files: RunFiles, cfg: dict, cluster: Profile, place: Place) -> list[str]:
    """/host:/inside of everything that a container has to see, each once. Raises UserInputError (rule L3)."""
    from recipes.pipeline.artifacts import input_paths, producer_of

    runtime = cluster.settings["container"]["runtime"]
    if runtime == "none":
        return []
    stage_dir = files.run_dir / cfg["stage"]
    outside = [p for p in input_paths(stage_dir, cfg).values() if producer_of(stage_dir, p) is None]
    own = list(map(str, [place.code, files.run_dir, *outside]))
    for path in own:
        if mark := profile.splits(runtime, path):
            message = f"has to be mounted, but {runtime} splits mounts at {mark!r}"
            raise UserInputError(Problem("L3", path, message, "rename or link the directory"))
    further = map(str, cluster.settings["container"]["mounts"])
    return list(dict.fromkeys(mount if ":" in mount else f"{mount}:{mount}" for mount in [*own, *further]))


def _srun(cluster: Profile, wants: Resources, mounts: list[str], place: Place) -> list[str]:
    slurm, container = cluster.settings, cluster.settings["container"]
    words = list(slurm["srun"])
    if wants.cpus_per_task:
        words.append(f"--cpus-per-task={wants.cpus_per_task}")  # srun does not take it over from the job since 22.05
    if container["runtime"] == "pyxis":
        words += [
            f"--container-image={profile.image(cluster)}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={place.code}",
            "--no-container-mount-home",
        ]
        if slurm["environment"]:  # else a value that the image has wins
            words.append(f"--container-env={','.join(slurm['environment'])}")
        words += container["options"]
    return words


def _inside(cluster: Profile, wants: Resources, mounts: list[str], place: Place) -> list[str]:
    container = cluster.settings["container"]
    if container["runtime"] != "apptainer":
        return []
    gpu = ["--nv"] if wants.gpus_per_node else []
    binds = [word for mount in mounts for word in ("--bind", mount)]
    return ["apptainer", "exec", *gpu, "--no-home", "--pwd", str(place.code), *binds, *container["options"],
            profile.image(cluster)]  # fmt: skip


def quoted(value: object) -> str:
    """A value for an #SBATCH line: sbatch itself reads double quotes and backslashes there, no shell does."""
    text = str(value)
    if text and all(c.isalnum() or c in "/._-%:,@=+[]" for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def word_in_array(word: str) -> str:
    """A word of a bash array; one with a comma in quotes too, which looks less like two words (shellcheck SC2054)."""
    text = str(word)
    quoted_text = shlex.quote(text)
    return f"'{text}'" if quoted_text == text and "," in text else quoted_text


def _render(name: str, **values) -> str:
    return _templates().get_template(name).render(**values)


@lru_cache(1)
def _templates():
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        comment_start_string="{##",  # ${#array[@]} is bash
        comment_end_string="##}",
    )
    env.filters["sh"] = lambda value: shlex.quote(str(value))
    return env
