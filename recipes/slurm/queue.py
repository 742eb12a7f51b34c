"""Slurm's commands, and what to do when they do not answer.

A controller that is away or busy is waited for. That a command failed does not mean that nothing happened: an sbatch
that timed out may have submitted its job, so the queue is asked before anything is said or tried again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import Problem, StageFailed, UserInputError

# What the commands say when the controller, not the request, is the trouble (slurm/src/common/slurm_errno.c).
FULL = r"temporarily (?:unavailable|unable)|queue full"  # MaxJobCount: it takes no more jobs for now
AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection (refused|timed out)|Zero Bytes were transmitted"
    rf"|Transport endpoint|Slurm backup controller|Protocol authentication error|no answer in|{FULL}"
)
ENDING = ("COMPLETING",)


def _where_to(said: str) -> str:
    """What to do on a machine that knows of no controller."""
    unconfigured = "fetch_config" in said or "configuration source" in said
    return "\n    fix: run it on a login node of the cluster, or set SLURM_CONF" if unconfigured else ""


class Refused(StageFailed):
    """Slurm answered, and said no; the text is its own."""


@dataclass(frozen=True)
class Job:
    """One line of the queue. id: of the array where it is one; task: "3", or "4-7%2" for tasks that wait."""

    id: str
    task: str | None
    name: str
    state: str
    reason: str
    nodes: str


class Slurm:
    """The cluster that this machine belongs to.

    patience: seconds to wait for a controller that does not answer. say: told once when it begins to wait.
    """

    def __init__(self, patience: float = 60.0, say: Callable[[str], None] = lambda text: None):
        self.patience, self.say = patience, say

    @staticmethod
    def is_here() -> bool:
        return all(map(shutil.which, ("sbatch", "squeue", "scancel", "scontrol")))

    # -- questions -----------------------------------------------------------------------------------

    def jobs(self, tag: str) -> list[Job]:
        """This user's jobs in the queue whose names end with `.<tag>`, oldest first."""
        text = self._ask("squeue", "-h", "-u", str(os.getuid()), "-o", "%F|%K|%T|%N|%r|%j")
        found = []
        for line in text.splitlines():
            job_id, task, state, nodes, reason, name = line.split("|", 5)  # a name can have anything in it
            if name.endswith(f".{tag}"):
                found.append(Job(job_id, None if task == "N/A" else task, name, state, reason.strip(), nodes))
        return sorted(found, key=lambda job: int(job.id))

    def settled_jobs(self, tag: str, wait: float = 45.0) -> list[Job]:
        """`jobs` once none of them is just ending: a job that ends may be requeued, or be gone in a moment."""
        deadline = time.monotonic() + wait
        while True:
            found = self.jobs(tag)
            if not any(job.state in ENDING for job in found) or time.monotonic() > deadline:
                return found
            time.sleep(0.3)

    def history(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Last state of jobs that are no longer queued, as far as anybody remembers: {"12": "TIMEOUT, exit 0:15"}.

        The accounting database is asked where there is one; otherwise the controller, which forgets in minutes.
        """
        ids, found = sorted(set(job_ids), key=int), {}
        if not ids:
            return found
        told = _call("sacct", "-X", "-n", "-P", "-o", "JobID,State,Reason,ExitCode", "-j", ",".join(ids), timeout=60)
        for line in told.stdout.splitlines() if told.returncode == 0 else ():
            job_id, state, reason, code = line.split("|")
            found.setdefault(job_id.partition("_")[0], {})[_ended(state, reason, code)] = None  # an array: its tasks'
        for job_id in set(ids) - set(found):
            shown = _call("scontrol", "-o", "show", "job", job_id)
            fields = dict(re.findall(r"(JobState|Reason|ExitCode)=(\S+)", shown.stdout))
            if shown.returncode == 0 and fields:
                found[job_id] = {_ended(*(fields.get(key, "") for key in ("JobState", "Reason", "ExitCode"))): None}
        return {job_id: "; ".join(ends) for job_id, ends in found.items()}

    def test_only(self, script: str) -> str:
        """Would a job with this script ever start? Raises Refused with Slurm's reason.

        Nodes that are away now count as if they were not there: "" or, if that can be the reason, what Slurm says.
        """
        for last in (False, True):
            try:
                self._ask("sbatch", "--test-only", script=script)
                return ""
            except Refused as no:
                away = self._nodes_away()
                if "node configuration is not available" not in str(no) or (last and not away):
                    raise
                if away:
                    return f"{no}, while {away} cannot be used"
            time.sleep(1)  # a node may have come back between the two questions

    @staticmethod
    def _nodes_away() -> str:
        """Nodes that are down or drained, or that a controller which has just started has not heard of (no load)."""
        lines = [line.split() for line in _call("sinfo", "-h", "-N", "-o", "%N %T %O").stdout.splitlines()]
        there = re.compile(r"(idle|mixed|allocated|completing|planned|reserved)[^*]?")
        away = [*dict.fromkeys(node for node, state, load in lines if load == "N/A" or not there.fullmatch(state))]
        return ",".join(away[:8]) + (f" and {len(away) - 8} more" if len(away) > 8 else "")

    # -- orders --------------------------------------------------------------------------------------

    def submit(self, script: Path, name: str, tag: str, options: list[str], known: Collection[str] = ()) -> str:
        """sbatch the script; returns the job's id. known: the jobs of this name that are in the queue already.

        Raises Refused, or StageFailed if the controller does not answer or takes no more jobs.
        """
        deadline, wait = time.monotonic() + self.patience, 0.5
        while True:
            # A full queue: sbatch itself goes on trying for two minutes.
            result = _call("sbatch", "--parsable", *options, str(script), timeout=max(self.patience, 1))
            if result.returncode == 0:
                return result.stdout.strip().split(";")[0]
            away = AWAY.search(result.stderr)
            # A failed sbatch may have submitted; one whose request still waited in a busy controller, a little later.
            for pause in (0.0, 2.0) if away else (0.0,):
                time.sleep(pause)
                new = [job.id for job in self.jobs(tag) if job.name == name and job.id not in known]
                if new:
                    self.say(f"sbatch said `{_words(result.stderr)}`, but job {new[0]} is in the queue")
                    return new[0]
            if not away:
                raise Refused(_words(result.stderr))
            if time.monotonic() > deadline:
                raise _gave_up(self.patience, result.stderr)
            self.say(f"sbatch failed ({_words(result.stderr)}) and has submitted nothing; trying again")
            time.sleep(wait)
            wait = min(wait * 2, 10)

    def cancel(self, job_ids: Iterable[str]) -> None:
        ids = list(job_ids)
        if ids:
            self._ask("scancel", *ids, allowed=("Invalid job id", "already completing or completed"))

    def depend(self, job_id: str, dependency: str) -> None:
        """Change what a waiting job waits for."""
        self._ask("scontrol", "update", f"JobId={job_id}", f"Dependency={dependency}")

    # -- helpers -------------------------------------------------------------------------------------

    def _ask(self, *words: str, script: str | None = None, allowed: tuple[str, ...] = ()) -> str:
        """Standard output of a command that may be repeated; waits for a controller that is away."""
        deadline, wait, told = time.monotonic() + self.patience, 0.5, False
        while True:
            result = _call(*words, script=script)
            if result.returncode == 0 or any(text in result.stderr for text in allowed):
                return result.stdout
            if not AWAY.search(result.stderr):
                raise Refused(_words(result.stderr) + _where_to(result.stderr))
            if time.monotonic() > deadline:
                raise _gave_up(self.patience, result.stderr)
            if not told:
                self.say(f"the Slurm controller does not answer ({_words(result.stderr)}); waiting for it")
                told = True
            time.sleep(wait)
            wait = min(wait * 2, 10)


def _call(*words: str, script: str | None = None, timeout: float | None = None) -> subprocess.CompletedProcess:
    """Run a command in the C locale; one that is not installed, or takes too long, ends as the shell would say."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            words, input=script, capture_output=True, text=True, timeout=timeout, env=environment,
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: command not found")
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode() or f"no answer in {timeout:.0f} s"
        return subprocess.CompletedProcess(words, 124, "", said)


def _ended(state: str, reason: str, code: str) -> str:
    return state + (f" ({reason})" if reason not in ("", "None") else "") + f", exit {code}"


def _words(stderr: str) -> str:
    """What a command said, on one line: a plugin of the site and Slurm itself may each have a say."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line.strip()) for line in stderr.splitlines()]
    told = dict.fromkeys(line for line in lines if line and not line.startswith("Try "))
    return "; ".join([*told][-3:]) or "no message"


def _gave_up(patience: float, stderr: str) -> StageFailed:
    full = re.search(FULL, stderr)
    what = "Slurm took no more jobs" if full else "the Slurm controller did not answer"
    waited = f" for {patience:.0f} s" if patience else ""
    return StageFailed(
        f"{what}{waited} ({_words(stderr)}).\n"
        "    What was submitted stays submitted, and jobs that run go on. Later the same command goes on from there."
    )


def needs_slurm() -> UserInputError:
    fix = "run this on a login node of the cluster; `align submit --dry-run` writes the scripts anywhere"
    return UserInputError(Problem("", "sbatch", "Slurm's commands are not installed on this machine", fix))
