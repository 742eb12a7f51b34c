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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import Problem, StageFailed, UserInputError

# What the commands say when the controller, not the request, is the trouble (slurm/src/common/slurm_errno.c).
AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection (refused|timed out)|Zero Bytes were transmitted"
    r"|Transport endpoint|temporarily (unavailable|unable)|Slurm backup controller|Protocol authentication error"
)
ENDING = ("COMPLETING",)


class Refused(Exception):
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
    restarts: int = 0


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
        text = self._ask("squeue", "-h", "-u", str(os.getuid()), "-o", "%F|%K|%j|%T|%r|%N")
        found = []
        for line in text.splitlines():
            job_id, task, name, state, reason, nodes = line.split("|", 5)
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
        found = {}
        ids = sorted(set(job_ids), key=int)
        if not ids:
            return found
        told = _call("sacct", "-X", "-n", "-P", "-o", "JobIDRaw,State,ExitCode", "-j", ",".join(ids))
        if told.returncode == 0:
            for line in told.stdout.splitlines():
                job_id, state, code = line.split("|")
                found[job_id] = f"{state}, exit {code}"
        for job_id in ids:
            if job_id not in found:
                shown = _call("scontrol", "-o", "show", "job", job_id)
                fields = dict(re.findall(r"(JobState|Reason|ExitCode)=(\S+)", shown.stdout))
                if shown.returncode == 0 and fields:
                    why = "" if fields.get("Reason") in (None, "None") else f" ({fields['Reason']})"
                    found[job_id] = f"{fields['JobState']}{why}, exit {fields.get('ExitCode')}"
        return found

    def test_only(self, script: Path) -> None:
        """Would this job ever start? Raises Refused with Slurm's reason."""
        self._ask("sbatch", "--test-only", str(script))

    # -- orders --------------------------------------------------------------------------------------

    def submit(self, script: Path, name: str, tag: str, options: list[str]) -> str:
        """sbatch the script; returns the job's id. The name must not be in the queue. Raises Refused, StageFailed."""
        known = {job.id for job in self.jobs(tag) if job.name == name}
        deadline, wait = time.monotonic() + self.patience, 0.5
        while True:
            result = _call("sbatch", "--parsable", *options, str(script))
            if result.returncode == 0:
                return result.stdout.strip().split(";")[0]
            away = AWAY.search(result.stderr)
            # A failed sbatch may have submitted; one whose request still waited in a busy controller, a little later.
            for pause in (0.0, 2.0) if away else (0.0,):
                time.sleep(pause)
                new = [job.id for job in self.jobs(tag) if job.name == name and job.id not in known]
                if new:
                    self.say(f"sbatch said `{_last(result.stderr)}`, but job {new[0]} is in the queue")
                    return new[0]
            if not away:
                raise Refused(_last(result.stderr))
            if time.monotonic() > deadline:
                raise _unreachable(self.patience, result.stderr)
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

    def _ask(self, *words: str, allowed: tuple[str, ...] = ()) -> str:
        """Standard output of a command that may be repeated; waits for a controller that is away."""
        deadline, wait, told = time.monotonic() + self.patience, 0.5, False
        while True:
            result = _call(*words)
            if result.returncode == 0 or any(text in result.stderr for text in allowed):
                return result.stdout
            if not AWAY.search(result.stderr):
                raise Refused(_last(result.stderr))
            if time.monotonic() > deadline:
                raise _unreachable(self.patience, result.stderr)
            if not told:
                self.say(f"the Slurm controller does not answer ({_last(result.stderr)}); waiting for it")
                told = True
            time.sleep(wait)
            wait = min(wait * 2, 10)


def _call(*words: str) -> subprocess.CompletedProcess:
    """Run a command in the C locale; one that is not installed ends as the shell would say."""
    try:
        return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: command not found")


def _last(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"^\w+: (error|fatal): ", "", lines[-1]) if lines else "no message"


def _unreachable(patience: float, stderr: str) -> StageFailed:
    return StageFailed(
        f"the Slurm controller did not answer for {patience:.0f} s ({_last(stderr)}).\n"
        "    What was submitted stays submitted, and jobs that run go on. Later the same command goes on from there."
    )


def needs_slurm() -> UserInputError:
    fix = "run this on a login node of the cluster; `align submit --dry-run` writes the scripts anywhere"
    return UserInputError(Problem("", "sbatch", "Slurm's commands are not installed on this machine", fix))
