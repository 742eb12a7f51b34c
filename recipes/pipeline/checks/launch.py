"""The cluster profile, and what stages ask of the cluster. Without a profile there is nothing to look at."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from functools import lru_cache

from recipes.errors import Problem
from recipes.pipeline import references
from recipes.pipeline.checks.registry import Finding, Rule
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.processes import ROOT
from recipes.slurm import profile
from recipes.slurm.profile import Profile
from recipes.stages import KINDS

SIGNAL_EARLY = 60  # Slurm may send the signal before the time limit so many seconds too early
RUNTIMES = ("none", "pyxis", "apptainer")
GPU_OPTIONS = ("gpus-per-node", "gres")
# Smallest sensible numbers of a profile; keys that may be null are left out then.
LEAST = {
    "gpus_per_node": 0,
    "cpus_per_task": 1,
    "core.cpus_per_task": 1,
    "array_limit": 1,
    "clones": 1,
    "restarts_without_progress": 0,
    "spare_nodes": 0,
    "hang.first_step": 0,
    "hang.step": 0,
    "health.min_free_gb": 0,
    "health.all_reduce_mb": 0,
    "health.timeout": 1,
}
# Options of sbatch that the launcher depends on ...
SCRIPTS_OWN = (
    "job-name", "output", "error", "array", "dependency", "signal", "requeue", "no-requeue", "export", "open-mode",
    "kill-on-invalid-dep", "chdir", "wait",
)  # fmt: skip
# ... and those that have a key of their own, which more than sbatch reads.
HAS_A_KEY = {
    "account": "slurm.account",
    "partition": "slurm.partition",
    "qos": "slurm.qos",
    "time": "slurm.time, or resources.time of the stage",
    "nodes": "resources.nodes of the stage",
    "ntasks": "resources.devices of the stage",
    "ntasks-per-node": "resources.devices of the stage",
    "gpus-per-node": "slurm.gpus_per_node",
    "gpus": "slurm.gpus_per_node",
    "gres": "slurm.gpus_per_node and slurm.gpu_option",
    "cpus-per-task": "slurm.cpus_per_task",
    "mem": "slurm.memory",
    "exclusive": "slurm.exclusive",
}
# Not TOKENIZERS_PARALLELISM, and not NCCL_IB_PKEY, a number of InfiniBand.
SECRET_NAME = re.compile(r"(?:^|_)(?!PKEY)[A-Z0-9]*(?:KEY|TOKEN|SECRET|PASSWORD)(?:_|$)", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\b(?:hf_|ghp_|nvapi-|sk-)[A-Za-z0-9_-]{16,}|^[0-9a-f]{40}$")
NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
MOUNT = re.compile(r"(/[^:,]*)(?::/[^:,]*(?::ro)?)?")


class LaunchRule(Rule):
    """A rule whose functions take a stage and the profile; a key `slurm.<...>` is the profile's.

    All stages share the profile: what is wrong there is found in each of them, and check_pipeline tells it once.
    """

    def problems(self, subject: Subject) -> list[Problem]:
        cluster = subject.pipeline.cluster
        if cluster is None:
            return []
        found = [finding for function in self.functions for finding in function(subject, cluster)]
        return [Problem(self.id, _where(subject, cluster, key), message, fix) for key, message, fix in found]


def _where(stage: Subject, cluster: Profile, key: str) -> str:
    return cluster.where(key.removeprefix("slurm.")) if key.startswith("slurm.") else stage.where(key)


def _setting(cluster: Profile, key: str):
    """The value of a dotted key of `slurm:`."""
    node = cluster.settings
    for part in key.split("."):
        node = node[part]
    return node


L1 = LaunchRule(
    "L1",
    title="What a stage asks of a node is there",
    explanation="A job that wants more GPUs than any node has is refused by sbatch, or waits for ever. With an unknown"
    " slurm.gpu_option no GPU would be asked for at all. A stage without the engine is one process: on two nodes it"
    " would run twice in one folder.",
    fix="more nodes instead of more devices; slurm.gpus_per_node is what the site's nodes have",
)

L2 = LaunchRule(
    "L2",
    title="Time limits can be read, and leave time to work and to save",
    explanation="Slurm reads 04:00 as four minutes. slurm.grace seconds before the limit, and up to a minute earlier,"
    " a stage is asked to save and leave: with a limit shorter than that it would leave at once, start after start,"
    " without a step. A max_time_per_run above the limit never comes.",
    fix="limits as HH:MM:SS or D-HH:MM:SS, well above slurm.grace + 60 s",
)

L3 = LaunchRule(
    "L3",
    title="The container is there, and so is what it mounts",
    explanation="The job would start, hours later, and end at once: no image, no plugin, or a path that is not visible"
    " inside. The runtimes split mounts at commas and colons, pyxis at blanks too, and read one path as two. The"
    " interpreter of this machine is not the one in the image.",
    fix="slurm.container.image, slurm.container.mounts (/host:/inside[:ro]) and slurm.python",
)

L4 = LaunchRule(
    "L4",
    title="Secrets stand in files that only their owner can read, and nowhere else",
    explanation="What slurm.environment and slurm.prologue hold is written into the job scripts, which everybody who"
    " can read the run can read and which Slurm shows. A job that cannot read its secrets file ends at once."
    " Variables that the script or Slurm sets itself would break it.",
    fix="NAME=value lines in a file of mode 600, named in slurm.secrets",
)

L5 = LaunchRule(
    "L5",
    title="slurm.sbatch holds only what the script does not set itself",
    explanation="Later options win: another name, output or signal and the launcher would not find the job, not show"
    " its log, not save before the time limit; other nodes or ranks than the stage's config says would hang the first"
    " collective operation.",
    fix="leave the option out, or use the key that the message names",
)

L6 = LaunchRule(
    "L6",
    title="Counts and times of a profile are not negative",
    explanation="With a negative limit the watchdog would kill every stage at once; no clone would be no job.",
    fix="0 switches off what can be switched off; see configs/cluster/slurm.yaml",
)

L7 = LaunchRule(
    "L7",
    title="Settings of a profile that do less than they seem to, or that this machine cannot judge",
    explanation="Nothing here stops a submission: the compute nodes may differ from this machine.",
    fix="say what is meant",
    severity="warn",
)


# -- L1: nodes and GPUs ------------------------------------------------------------------------------


@L1
def devices_fit_the_node(stage: Subject, cluster: Profile):
    devices, there = stage.number("resources.devices", 1), cluster.settings["gpus_per_node"]
    if _engine(stage) and 0 < there < devices:
        message = f"is {devices}, but a node has {there} GPUs (slurm.gpus_per_node)"
        yield "resources.devices", message, f"use {there} or fewer, and more resources.nodes"


@L1
def one_process_is_one_node(stage: Subject, cluster: Profile):
    nodes = stage.number("resources.nodes", 1)
    if not _engine(stage) and nodes > 1:
        yield "resources.nodes", f"is {nodes}, but a {stage.kind} stage is one process", "set it to 1"


@L1
def gpus_are_asked_for(stage: Subject, cluster: Profile):
    option = cluster.settings["gpu_option"]
    if option not in GPU_OPTIONS:
        yield "slurm.gpu_option", f"is {option!r}", f"use {' or '.join(GPU_OPTIONS)}"


def _engine(stage: Subject) -> bool:
    return KINDS[stage.kind] == "engine"


# -- L2: time ----------------------------------------------------------------------------------------


@L2
def limits_can_be_read(stage: Subject, cluster: Profile):
    limits = {f"slurm.{key}": _setting(cluster, key) for key in ("time", "core.time")}
    limits["resources.time"] = stage.get("resources.time")
    for key, text in limits.items():
        if text is not None and _seconds(text) is None:
            yield key, f"{text!r} is no time limit", 'write HH:MM:SS or D-HH:MM:SS in quotes, for example "04:00:00"'


@L2
def there_is_time_to_work(stage: Subject, cluster: Profile):
    grace = cluster.settings["grace"]
    if grace < 4:
        yield "slurm.grace", f"{grace} s are too few to save anything", "give it the time of a validation and a save"
    key, text = _limit(stage, cluster)
    limit = _seconds(text)
    if limit is not None and limit <= grace + SIGNAL_EARLY:
        message = f"{text} leaves no time to work: stages are asked to leave {grace} s (slurm.grace) before the end, or"
        message += f" up to {SIGNAL_EARLY} s earlier"
        yield key, message, "raise the limit, or lower slurm.grace"


@L2
def own_timer_comes_first(stage: Subject, cluster: Profile):
    key, own = "exp_manager.max_time_per_run", str(stage.get("exp_manager.max_time_per_run"))
    _, text = _limit(stage, cluster)
    limit = _seconds(text)
    if limit is not None and re.fullmatch(r"\d+:\d+:\d+:\d+", own.strip()):  # rule C15 has said the rest
        days, hours, minutes, seconds = map(int, own.split(":"))
        if ((days * 24 + hours) * 60 + minutes) * 60 + seconds > limit:
            yield key, f"{own} is above the job's limit of {text}", "null: the job asks the trainer to leave in time"


def _limit(stage: Subject, cluster: Profile) -> tuple[str, str]:
    """(the key that sets it, the job's time limit as it is written) of a stage."""
    text = profile.resources(cluster, stage.cfg).time_limit
    if stage.get("resources.time"):
        return "resources.time", text
    return ("slurm.core.time" if not _engine(stage) and _setting(cluster, "core.time") else "slurm.time"), text


def _seconds(text: object) -> int | None:
    try:
        return profile.parse_time(text)
    except ValueError:
        return None


# -- L3: containers ----------------------------------------------------------------------------------


@L3
def the_image_is_there(stage: Subject, cluster: Profile):
    runtime, image = _container(cluster)
    if runtime not in RUNTIMES:
        yield "slurm.container.runtime", f"is {runtime!r}", f"use one of {', '.join(RUNTIMES)}"
    elif runtime != "none" and not image:
        yield "slurm.container.image", f"is not set, but runtime is {runtime}", "give the path of an image file"
    elif runtime != "none" and profile.is_image_file(image) and not os.path.exists(image):
        yield "slurm.container.image", f"there is no file {image}", "import the image once, to a shared file system"
    if runtime != "none" and not cluster.settings["python"]:
        message = "is not set: the interpreter of this machine is not the one in the image"
        yield "slurm.python", message, "the interpreter inside, for example python"


@L3
def mounts_can_be_mounted(stage: Subject, cluster: Profile):
    runtime, _ = _container(cluster)
    for mount in cluster.settings["container"]["mounts"]:
        match = MOUNT.fullmatch(str(mount))
        if not match:
            yield "slurm.container.mounts", f"{mount!r} is no mount", "write /host or /host:/inside[:ro]"
        elif any(profile.splits(runtime, path) for path in mount.split(":")):
            yield "slurm.container.mounts", f"{runtime} splits {mount!r} at the blank", "rename or link the directory"
        elif not os.path.exists(match[1]):
            yield "slurm.container.mounts", f"there is no {match[1]}", "correct the path before the first colon"


@L3
def paths_are_not_split(stage: Subject, cluster: Profile):
    runtime, _ = _container(cluster)
    inputs = [(f"inputs.{key}", ref) for key, value in stage.cfg["inputs"].items() for ref in references.items(value)]
    outside = [(key, os.path.abspath(ref)) for key, ref in inputs if references.thaw(ref) is None]
    for key, path in [*outside, ("slurm.container.runtime", str(ROOT))]:
        mark = profile.splits(runtime, path)
        if runtime != "none" and mark:
            message = f"{path} has to be mounted, but {runtime} splits mounts at {mark!r}"
            yield key, message, "rename or link the directory"


@L3
def pyxis_is_installed(stage: Subject, cluster: Profile):
    runtime, _ = _container(cluster)
    if runtime == "pyxis" and _srun_knows_containers(shutil.which("srun"), os.environ.get("SLURM_CONF")) is False:
        message = "is pyxis, but `srun --help` here has no --container-image: the plugin is not installed at this site"
        yield "slurm.container.runtime", message, "ask the site, or use apptainer or none"


def _container(cluster: Profile) -> tuple[str, str]:
    return cluster.settings["container"]["runtime"], str(cluster.settings["container"]["image"] or "")


@lru_cache(8)
def _srun_knows_containers(srun: str | None, conf: str | None) -> bool | None:
    """Does this machine's srun take pyxis' options? None where there is no srun, or none that belongs to a cluster.

    conf: SLURM_CONF, which decides about the plugins.
    """
    if srun is None:
        return None
    told = subprocess.run([srun, "--help"], capture_output=True, text=True)
    return "--container-image" in told.stdout if told.returncode == 0 else None


# -- L4: secrets and variables -----------------------------------------------------------------------


@L4
def secrets_are_kept(stage: Subject, cluster: Profile):
    for path in profile.secret_files(cluster):
        try:
            mode, lines = stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            yield "slurm.secrets", f"{path} cannot be read: {error}", "correct the path, or write the file"
            continue
        if mode & 0o077:
            yield "slurm.secrets", f"{path} has mode {mode:o}: others can read it", f"chmod 600 {path}"
        for number, line in enumerate(lines, 1):
            bare = line.strip()
            if bare and not bare.startswith("#") and not (NAME.fullmatch(line.partition("=")[0]) and "=" in line):
                yield "slurm.secrets", f"{path}:{number} is no NAME=value", "NAME=value, without export; # for comments"


@L4
def no_secret_stands_in_the_script(stage: Subject, cluster: Profile):
    fix = "put NAME=value into a file of mode 600 and name the file in slurm.secrets"
    for name, value in cluster.settings["environment"].items():
        if SECRET_NAME.search(str(name)) or SECRET_VALUE.search(str(value)):
            yield f"slurm.environment.{name}", f"{name} looks like a secret, and would stand in every job script", fix
    if SECRET_VALUE.search(cluster.settings["prologue"]):
        yield "slurm.prologue", "something in it looks like a secret, and would stand in every job script", fix


@L4
def variables_are_the_users(stage: Subject, cluster: Profile):
    for name, value in cluster.settings["environment"].items():
        key = f"slurm.environment.{name}"
        if not NAME.fullmatch(str(name)):
            yield key, f"{name!r} cannot be the name of a variable", "use letters, digits and _"
        elif name.startswith(("ALIGN_", "SLURM_")) or name in _variables_of_the_script():
            yield (
                key,
                f"{name} is set by Slurm or by the script",
                "leave it out; PATH can be extended in slurm.prologue",
            )
        elif isinstance(value, (dict, list)) or value is None:
            yield key, f"is {value!r}", "give text or a number"


@lru_cache(1)
def _variables_of_the_script() -> frozenset[str]:
    text = (ROOT / "slurm" / "stage.sbatch.j2").read_text(encoding="utf-8")
    return frozenset(re.findall(r"(?:^|[\s(])([A-Z][A-Z_]+)\+?=", text, re.MULTILINE))


# -- L5, L6: options and numbers ---------------------------------------------------------------------


@L5
def options_are_free(stage: Subject, cluster: Profile):
    for name in cluster.settings["sbatch"]:
        key = f"slurm.sbatch.{name}"
        if not re.fullmatch(r"[a-z][a-z-]+", str(name)):
            yield key, f"{name!r} is no long option of sbatch", "write its long name without dashes in front"
        elif name in SCRIPTS_OWN:
            yield key, f"the script sets --{name} itself", "leave it out"
        elif name in HAS_A_KEY:
            yield key, f"--{name} has a key of its own", f"use {HAS_A_KEY[name]}"


@L6
def numbers_are_numbers(stage: Subject, cluster: Profile):
    for key, least in LEAST.items():
        value = _setting(cluster, key)
        whole = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            yield f"slurm.{key}", f"is {value!r}", f"give {least} or more"


# -- L7: advice --------------------------------------------------------------------------------------


@L7
def containers_as_meant(stage: Subject, cluster: Profile):
    runtime, image = _container(cluster)
    if runtime == "none" and image:
        yield "slurm.container.image", "is set, but no runtime uses it", "slurm.container.runtime=pyxis or apptainer"
    if runtime in ("pyxis", "apptainer") and image and not profile.is_image_file(image):
        message = f"{image} is no file: every node pulls it, at every step of every job"
        yield "slurm.container.image", message, "import it once (enroot import, apptainer pull) and give the file"
    if runtime == "apptainer" and not shutil.which("apptainer"):
        message = "apptainer is not on the PATH of this machine; the jobs need it on theirs"
        yield "slurm.container.runtime", message, "load it in slurm.prologue if the nodes do not have it either"


@L7
def restarts_as_meant(stage: Subject, cluster: Profile):
    slurm = cluster.settings
    if not slurm["requeue"] and slurm["clones"] == 1:
        message = "is 1 without requeue: a stage that is stopped at its time limit is not started again"
        yield "slurm.clones", message, "as many as the longest stage needs time limits"
    if slurm["spare_nodes"] > 0 and not slurm["health"]["enabled"]:
        yield "slurm.spare_nodes", "have no use without slurm.health: nobody looks for bad nodes", "enable health, or 0"


@L7
def quotes_are_taken_literally(stage: Subject, cluster: Profile) -> Iterator[Finding]:
    for path in profile.secret_files(cluster):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for number, line in enumerate(lines, 1):
            value = line.partition("=")[2]
            if not line.startswith("#") and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                yield "slurm.secrets", f"{path}:{number}: the quotes are a part of the value", "write it without quotes"
