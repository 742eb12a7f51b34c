"""What a test does on a throw-away cluster: submit chains, wait for stages, break nodes and daemons."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHAIN = HERE / "chain.yaml"
# Settings that make a test quick. The profile of a test is these, changed by what it gives.
QUICK = {
    "time": "00:10:00",
    "grace": 60,
    "restarts_without_progress": 1,
    "health": {"enabled": False},
}


class Cluster:
    """A running mini Slurm and the folder in which the test's runs lie."""

    def __init__(self, folder: Path, interpreter: Path):
        self.folder, self.interpreter = folder, interpreter
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.home, self.run_name = folder, "chain"

    def begin(self, home: Path, run: str = "chain") -> None:
        self.home, self.run_name = home, run

    # -- the command -----------------------------------------------------------------------------------

    def profile(self, name: str = "quick", **settings) -> Path:
        """Write a profile: QUICK, with the toy as its interpreter, and these settings of `slurm:`."""
        path = self.home / f"{name}.yaml"
        slurm = {**QUICK, "python": str(self.interpreter), **settings}
        path.write_text("# A profile of a test.\n" + yaml.safe_dump({"slurm": slurm}))
        return path

    def align(self, *words, code: int | None = 0, env: dict | None = None) -> str:
        """Run `align`; returns what it printed. code: the exit code that it must have (None: any)."""
        command = [sys.executable, "-m", "recipes.cli", *map(str, words)]
        told = subprocess.run(
            command, cwd=self.home, text=True, capture_output=True, timeout=300,
            env={**self.env, "PYTHONPATH": str(ROOT), **(env or {})},
        )  # fmt: skip
        said = told.stdout + told.stderr
        assert code is None or told.returncode == code, f"{words} ended with {told.returncode}:\n{said}"
        assert "Traceback" not in said, said
        return said

    def submit(self, *words, behaviour: dict | None = None, until="base", profile=None, **options) -> str:
        """Submit the chain up to a stage; returns what the command printed. behaviour: see stand_in.py."""
        self.behave(behaviour or {})
        return self.align("submit", CHAIN, "--cluster", profile or self.profile(), "--until", until, *words, **options)

    def behave(self, behaviour: dict) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        (self.run_dir / "behaviour.json").write_text(json.dumps(behaviour))

    @property
    def run_dir(self) -> Path:
        return self.home / "runs" / self.run_name

    def status(self) -> dict[str, dict]:
        """stage -> its row of `align status`."""
        told = subprocess.run(
            [sys.executable, "-m", "recipes.cli", "status", self.run_name, "--json"], cwd=self.home, text=True,
            capture_output=True, env={**self.env, "PYTHONPATH": str(ROOT)}, timeout=120,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        return {row["stage"]: row for row in json.loads(told.stdout)}

    def wait(self, stage: str, *states: str, timeout: float = 60) -> dict:
        """Wait until `align status` gives the stage one of these states; returns its row."""
        deadline = time.monotonic() + timeout
        while True:
            row = self.status()[stage]
            if row["state"] in states:
                return row
            assert time.monotonic() < deadline, f"{stage} is not {states} but {row}\n{self.log(stage)}"
            time.sleep(0.2)

    def wait_for(self, condition, what: str = "it", timeout: float = 60):
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self.run('squeue')}"
            time.sleep(0.1)
        return found

    def events(self, stage: str) -> list[dict]:
        path = self.run_dir / "slurm" / f"{stage}.events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ends(self, stage: str) -> list[str]:
        """How each start of a stage ended, oldest first."""
        return [event["result"] for event in self.events(stage) if event["event"] == "ended"]

    def starts(self, stage: str) -> int:
        return sum(event["event"] == "began" for event in self.events(stage))

    def steps(self, stage: str, output: str = "model/weights") -> list[int]:
        """The steps in a stage's artifact, in the order in which they were trained."""
        return [step for step, _ in json.loads((self.run_dir / stage / "outputs" / output).read_text())]

    def trained(self, stage: str) -> int:
        """Steps in the metrics of a stage so far."""
        path = self.run_dir / stage / "metrics.jsonl"
        return sum('"train"' in line for line in path.read_text().splitlines()) if path.exists() else 0

    def log(self, stage: str) -> str:
        logs = sorted((self.run_dir / "slurm").glob(f"{stage}*.log"))
        return "".join(path.read_text() for path in logs)

    # -- Slurm itself ----------------------------------------------------------------------------------

    def run(self, *words, check: bool = True) -> str:
        told = subprocess.run([str(w) for w in words], env=self.env, capture_output=True, text=True, timeout=120)
        assert not check or told.returncode == 0, (words, told.stdout, told.stderr)
        return told.stdout.strip()

    def queue(self, stage: str | None = None) -> list[str]:
        """Ids of the jobs in the queue, of one stage or of all."""
        lines = [line.split(maxsplit=1) for line in self.run("squeue", "-h", "-o", "%F %j").splitlines()]
        return sorted({job for job, name in lines if stage is None or name.split(".")[-2] == stage}, key=int)

    def job(self, job_id: str) -> dict[str, str]:
        """What scontrol shows of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "-o", "show", "job", job_id)))

    def node(self, name: str, state: str) -> None:
        self.run("scontrol", "update", f"NodeName={name}", f"State={state}", "Reason=test")

    def daemon(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal slurmctld or slurmd-node<n>."""
        os.kill(json.loads((self.folder / "pids.json").read_text())[name], number)

    def restart(self, name: str) -> None:
        """Start slurmctld or slurmd-node<n> again after `daemon` has killed it."""
        words = ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", name.removeprefix("slurmd-")]
        with open(self.folder / f"{name}.out", "a") as out:
            started = subprocess.Popen([*words, "-f", self.folder / "slurm.conf"], stdout=out, stderr=out, env=self.env,
                                       cwd=self.folder, start_new_session=True)  # fmt: skip
        pids = json.loads((self.folder / "pids.json").read_text())
        (self.folder / "pids.json").write_text(json.dumps({**pids, name: started.pid}))
        self.wait_for(lambda: self.run("sinfo", "-h", "-t", "idle", check=False), "an idle node")

    def clear(self) -> None:
        """Leave nothing behind: no job, no node that is not idle."""
        for job in self.queue():
            self.run("scancel", "--signal=KILL", "--full", job, check=False)
            self.run("scancel", job, check=False)
        self.wait_for(lambda: not self.queue(), "an empty queue")
        for name in re.findall(r"node\d+", self.run("sinfo", "-hN", "-p", "batch", "-t", "down,drain", "-o", "%N")):
            self.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
