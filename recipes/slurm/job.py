"""What a job script asks before and after its stage: `python -m recipes.slurm.job QUESTION RUN STAGE ...`.

The answer is the exit code (recipes/slurm/codes.py; 0: go on, 1: end as failed), a line in the job's log and one in
<stage>.events.jsonl, which `align status` shows. Nothing here imports the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from recipes.attempt import PART
from recipes.errors import UserInputError
from recipes.pipeline import artifacts, workdir
from recipes.pipeline.locks import waiting_lock
from recipes.slurm import codes, verdict
from recipes.slurm.run_files import RunFiles


class Job:
    """One start of one job: where it works, who it is, and what it has to say."""

    def __init__(self, run: str, stage: str):
        self.files, self.stage = RunFiles(Path(os.path.abspath(run))), stage
        self.dir = self.files.run_dir / stage
        self.attempt = os.environ["ALIGN_ATTEMPT"]
        self.task = os.environ.get("ALIGN_ARRAY_TASK")

    @property
    def me(self) -> dict:
        mine = {"job": self.attempt.partition(".")[0], "attempt": self.attempt}
        return mine | ({"task": self.task} if self.task else {})

    def tell(self, event: str, text: str, **values) -> None:
        self.files.add_event(self.stage, event, **self.me, **values, why=text)
        print(f"== {event}: {text}", flush=True)

    def events(self) -> list[dict]:
        """The events of this stage's jobs, or of this array task alone."""
        return [event for event in self.files.events(self.stage) if event.get("task", self.task) == self.task]

    @property
    def log(self) -> Path:
        return self.files.folder / (f"{self.stage}.{self.task}.log" if self.task else f"{self.stage}.log")

    def config(self) -> dict:
        """The stage's config; that of the run where a kill came while the folder was being set aside."""
        try:
            return artifacts.read_config(self.dir / artifacts.CONFIG)
        except FileNotFoundError:
            return artifacts.read_config(self.files.run_dir / "pipeline.yaml")["stages"][self.stage]


# -- before the stage --------------------------------------------------------------------------------


def begin(job: Job, args) -> int:
    """May the stage start? Puts its folder in order and records what it starts from."""
    if job.files.stop.exists():
        fix = f"`align submit` or `align resume` begin again, or remove {job.files.stop}"
        job.tell("ended", f"the run was cancelled: {fix}", result="cancelled")
        return 1
    cfg = job.config()
    missing = verdict.missing_parents(job.dir, cfg)
    if missing:
        job.tell("ended", f"{missing[0]} (nothing was started)", result="blocked")
        return 1
    if why := verdict.given_up(job.events(), job.me["job"]) or _out_of_starts(job, tell_last=True):
        job.tell("ended", why, result="failed")
        return 1
    with waiting_lock(job.files.folder / f".{job.stage}.lock"):  # the tasks of an array begin together
        decision = workdir.decide(job.dir, cfg)
        if decision.action == "skip":
            job.tell("ended", "was done already", result="done")
            return codes.done
        if decision.action != "resume":
            workdir.open_attempt(job.dir, cfg, decision)
    job.tell("began", _how(decision), nodes=args.nodes, mark=verdict.progress_mark(job.dir))
    return 0


def _how(decision) -> str:
    words = {"start": "starts", "resume": "goes on from what it had saved", "redo": f"anew: {decision.reason}"}
    return words[decision.action]


def _out_of_starts(job: Job, tell_last: bool = False) -> str:
    allowed = json.loads(job.files.profile.read_text())["slurm"]["restarts_without_progress"]
    events = job.events()
    why = verdict.out_of_starts(verdict.starts_of(events, job.me["job"]), verdict.progress_mark(job.dir), allowed)
    last = [event["why"] for event in events if event["event"] == "ended" and event["job"] == job.me["job"]]
    return f"{why}; the last one: {last[-1]}" if why and last and tell_last else why


def _again(job: Job, why: str) -> tuple[str, str]:
    """("again", why), or "failed" if there were enough starts."""
    starts = _out_of_starts(job)
    return ("failed", f"{why}; {starts}") if starts else ("again", why)


def nodes(job: Job, args) -> int:
    """Choose the nodes to train on from the reports of recipes.slurm.node_check."""
    folder = job.files.health(job.attempt)
    bad = verdict.bad_nodes(folder, args.hosts)
    good = [host for host in args.hosts if host not in bad]
    if bad:
        job.tell("health", "; ".join(f"{host}: {why}" for host, why in bad.items()), bad=sorted(bad))
    if len(good) < args.take:
        return _avoid(job, folder, bad)
    (folder / "use").write_text(",".join(good[: args.take]))
    return 0


def fabric(job: Job, args) -> int:
    """What came of the all-reduce over all ranks?"""
    folder = job.files.health(job.attempt)
    reports = verdict.fabric_reports(folder)
    if len(reports) == args.ranks and all(report["ok"] for report in reports):
        slowest = max(report["seconds"] for report in reports)
        job.tell("health", f"all-reduce over {args.ranks} ranks in {slowest:.3f} s", seconds=slowest)
        return 0
    used = (folder / "use").read_text().split(",")
    silent = {host: "no rank of it took part in the all-reduce" for host in verdict.silent(reports, used)}
    if 0 < 2 * len(silent) < len(used):  # if most are silent, they wait for the ones that failed
        return _avoid(job, folder, silent)
    said = verdict.srun_errors(job.log) or "not every rank reported"
    wrong = next((report["why"] for report in reports if not report["ok"]), said)
    result, why = _again(job, f"the all-reduce failed: {wrong}")
    job.tell("ended", why, result=result)
    return codes.again if result == "again" else 1


def _avoid(job: Job, folder: Path, bad: dict[str, str]) -> int:
    """Give these nodes back, and those that earlier starts of this job gave back."""
    earlier = [host for event in job.events() if event.get("job") == job.me["job"] for host in event.get("avoid", ())]
    avoid = sorted({*earlier, *bad})
    (folder / "avoid").write_text(",".join(avoid))
    text = "too few sound nodes: " + "; ".join(f"{host}: {why}" for host, why in bad.items())
    job.tell("ended", text, result="again", avoid=avoid)
    return codes.elsewhere


# -- after the stage ---------------------------------------------------------------------------------


def end(job: Job, args) -> int:
    """What came of this start; see recipes/slurm/verdict.py for the rules."""
    found = verdict.Findings(
        done=_is_done(job),
        outcome=_outcome(job),
        code=args.code,
        time_up=args.time_up,
        terminated=args.terminated,
        hung=args.hung,
        advanced=_advanced(job),
        log_tail=verdict.srun_errors(job.log),
    )
    result, why = verdict.judge(found)
    if result == "again":
        result, why = _again(job, why)
    job.tell("ended", why, result=result)
    return {"done": 0, PART: 0, "again": codes.again}.get(result, 1)


def _is_done(job: Job) -> bool:
    """Is the artifact there, of what `begin` noted? Inputs are not hashed once more: the nodes would wait for it."""
    started = artifacts.read_start(job.dir)
    return started is not None and artifacts.is_done(job.dir, started["fingerprint"])


def _outcome(job: Job) -> dict | None:
    try:
        return json.loads(job.files.outcome(job.stage, job.attempt).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _advanced(job: Job) -> bool:
    """Is there more on disk than when this start began?"""
    began = [e for e in job.events() if e["event"] == "began" and e["attempt"] == job.attempt]
    return not began or verdict.progress_mark(job.dir) != began[-1]["mark"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = parser.add_subparsers(required=True)
    for function in (begin, nodes, fabric, end):
        question = questions.add_parser(function.__name__)
        question.set_defaults(function=function)
        question.add_argument("run")
        question.add_argument("stage")
        if function is begin:
            question.add_argument("--nodes", default="")
        if function is nodes:
            question.add_argument("--take", type=int, required=True)
        if function is fabric:
            question.add_argument("--ranks", type=int, required=True)
        if function in (nodes, fabric):
            question.add_argument("hosts", nargs="+")
        if function is end:
            question.add_argument("--code", type=int, required=True)
            for flag in ("--time-up", "--terminated", "--hung"):
                question.add_argument(flag, action="store_true")
    args = parser.parse_args(argv)
    job = Job(args.run, args.stage)
    try:
        return args.function(job, args)
    except UserInputError as error:
        job.tell("ended", str(error), result="failed")
    except Exception as error:
        job.tell("ended", f"{type(error).__name__}: {error}", result="failed")
        raise
    return 1


if __name__ == "__main__":
    sys.exit(main())
