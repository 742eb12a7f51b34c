"""What befalls a job from outside while it runs: its time limit, preemption, nodes and daemons that go away."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

# The first start holds before this step until the test has done its part.
WAIT = {"do": "wait", "step": 3, "start": 0}


@pytest.fixture(scope="module")
def own_cluster(make_cluster):
    """For tests that kill daemons."""
    return make_cluster(nodes=3)


@pytest.fixture
def fragile(own_cluster, tmp_path):
    own_cluster.begin(tmp_path)
    yield own_cluster
    own_cluster.clear()


def trained_to(cluster, step: int, stage: str = "base") -> str:
    """Wait until a stage has trained that far; returns its job's id."""
    cluster.wait_for(lambda: cluster.trained(stage) >= step, f"step {step} of {stage}", timeout=120)
    return cluster.queue(stage)[0]


def go(cluster) -> None:
    (cluster.run_dir / "go").touch()


def near_the_limit(cluster, job: str) -> None:
    """What Slurm does `grace` seconds before the time limit."""
    cluster.run("scancel", "-b", "--signal=USR1", job)


def trained_by(cluster, stage: str) -> list[int]:
    """For each step in the artifact, in which start it was trained."""
    steps = json.loads((cluster.run_dir / stage / "outputs" / "model" / "weights").read_text())
    return [int(attempt.partition(".")[2]) for _, attempt in steps]


def goes_on(cluster, job: str, steps: int, stage: str = "base") -> None:
    """The stage ends well under the same id after a second start, with every step once, and no start too many."""
    cluster.wait(stage, "done", timeout=120)
    assert cluster.steps(stage) == list(range(steps))
    assert {event["job"] for event in cluster.events(stage) if event["event"] == "began"} == {job}
    assert cluster.starts(stage) == 2


# -- the time limit ----------------------------------------------------------------------------------


def test_a_job_near_its_time_limit_saves_and_goes_on_under_its_id(cluster):
    cluster.submit(until="sft", behaviour={"base": {"steps": 6, "save_every": 100, "faults": [WAIT]}})
    job = trained_to(cluster, 3)
    near_the_limit(cluster, job)
    goes_on(cluster, job, steps=6)
    assert trained_by(cluster, "base") == [0, 0, 0, 0, 1, 1]
    cluster.wait_for(lambda: cluster.ends("base") == ["again", "done"], "both ends")
    cluster.wait("sft", "done")
    began = next(event for event in cluster.events("sft") if event["event"] == "began")
    assert cluster.starts("sft") == 1 and began["time"] > cluster.events("base")[-1]["time"]


@pytest.mark.e2e  # over a minute: Slurm counts time limits in minutes
def test_a_chain_needs_two_jobs_under_a_real_time_limit(cluster):
    profile = cluster.profile(time="00:02:00", grace=59)
    cluster.submit(until="sft", profile=profile, behaviour={"base": {"steps": 130, "seconds": 0.5, "save_every": 200}})
    job = trained_to(cluster, 1)
    cluster.wait("sft", "done", timeout=180)
    goes_on(cluster, job, steps=130)
    cluster.wait_for(lambda: cluster.ends("base") == ["again", "done"], "both ends")


def test_a_save_that_the_time_limit_cuts_off_is_not_used(cluster):
    slow = {"steps": 8, "save_every": 4, "save_seconds": 6}
    cluster.submit(profile=cluster.profile(grace=4), behaviour={"base": slow})
    half = cluster.run_dir / "base" / "checkpoints" / "toy--step=8-last-unfinished"
    cluster.wait_for(half.exists, "the second save")
    job = cluster.queue("base")[0]
    near_the_limit(cluster, job)
    cluster.wait_for(lambda: cluster.ends("base"), "the end of the first start")
    assert half.exists()
    cluster.behave({"base": {**slow, "save_seconds": 0}})
    goes_on(cluster, job, steps=8)
    assert trained_by(cluster, "base") == [0] * 4 + [1] * 4


def test_a_time_limit_before_the_first_save_is_an_error_with_advice(cluster):
    cluster.submit(profile=cluster.profile(grace=4), until="sft", behaviour={"base": {"save_seconds": 600}})
    cluster.wait_for((cluster.run_dir / "base/checkpoints/toy--step=1-last-unfinished").exists, "the first save")
    near_the_limit(cluster, cluster.queue("base")[0])
    row = cluster.wait("base", "failed")
    assert "before it had saved anything: raise resources.time" in row["why"] and cluster.starts("base") == 1
    assert cluster.wait("sft", "blocked")["starts"] == 0


# -- Slurm takes the nodes ---------------------------------------------------------------------------


def test_a_preempted_job_goes_on_from_its_checkpoint(cluster):
    cluster.submit(behaviour={"base": {"steps": 6, "save_every": 100, "faults": [WAIT]}})
    job = trained_to(cluster, 3)
    cluster.run("sbatch", "-p", "urgent", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    goes_on(cluster, job, steps=6)
    assert trained_by(cluster, "base") == [0, 0, 0, 0, 1, 1]
    cluster.wait_for(lambda: cluster.ends("base") == ["terminated", "done"], "both ends")


def test_a_job_whose_node_is_set_down_goes_on(cluster):
    """In the second round of RPO, on two nodes; what was done before stays as it is."""
    two_nodes = "stages.rpo2.resources.nodes=2"
    cluster.submit(two_nodes, until="rpo2", behaviour={"rpo2": {"steps": 6, "faults": [WAIT]}})
    job = trained_to(cluster, 3, "rpo2")
    cluster.node(cluster.job(job)["BatchHost"], "DOWN")
    goes_on(cluster, job, steps=6, stage="rpo2")
    assert {cluster.starts(stage) for stage in ("world", "base", "sft", "dpo", "rpo1")} == {1}


def test_a_job_whose_node_falls_silent_goes_on_elsewhere_and_the_old_start_cannot_disturb_it(fragile):
    """The ranks and the script on the lost node live on; what they do afterwards must not touch the new start."""
    crash = {"do": "crash", "step": 4, "start": 0}
    fragile.submit(behaviour={"base": {"steps": 6, "faults": [{**WAIT, "rank": 0}, crash]}})
    job = trained_to(fragile, 3)
    lost = fragile.job(job)["BatchHost"]
    fragile.daemon(f"slurmd-{lost}")
    fragile.wait_for(lambda: fragile.job(job)["Restarts"] == "1", "a requeue", timeout=120)
    go(fragile)
    goes_on(fragile, job, steps=6)
    assert "the job has been started again already" in fragile.log("base")
    assert fragile.job(job)["Restarts"] == "1" and lost not in fragile.job(job)["NodeList"]
    fragile.restart(f"slurmd-{lost}")


def kill_controller(cluster, job: str) -> None:
    """With SIGKILL, once it has saved what it knows of the job: it forgets the last seconds otherwise."""
    now = time.time()
    cluster.run("scontrol", "update", f"JobId={job}", "Comment=saved")
    cluster.wait_for(lambda: (cluster.folder / "state" / "job_state").stat().st_mtime > now, "a saved state")
    cluster.daemon("slurmctld")


def test_a_job_that_ends_while_the_controller_is_away_is_followed_by_the_next(fragile):
    fragile.submit(until="sft", behaviour={"base": {"steps": 6, "faults": [WAIT]}})
    kill_controller(fragile, trained_to(fragile, 3))
    go(fragile)
    fragile.wait_for(lambda: fragile.ends("base") == ["done"], "the end of base")
    assert not fragile.starts("sft")
    fragile.restart("slurmctld")
    fragile.wait("sft", "done", timeout=120)
    assert fragile.starts("base") == fragile.starts("sft") == 1 and fragile.steps("base") == list(range(6))


def test_a_start_that_ends_while_the_controller_is_away_is_requeued_when_it_is_back(fragile):
    crash = {"do": "crash", "step": 4, "start": 0}
    fragile.submit(behaviour={"base": {"steps": 6, "faults": [WAIT, crash]}})
    job = trained_to(fragile, 3)
    kill_controller(fragile, job)
    go(fragile)
    fragile.wait_for(lambda: fragile.ends("base") == ["again"], "the end of the first start")
    fragile.restart("slurmctld")
    goes_on(fragile, job, steps=6)


# -- the script itself -------------------------------------------------------------------------------


def script_of(cluster, job: str) -> int:
    """Pid of the batch script of a job; other clusters on this machine have jobs of the same number."""
    home, name = str(cluster.folder), f"job{int(job):05d}/slurm_script"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            script = path.read_bytes().split(b"\0")[1].decode()
            if script.startswith(home) and script.endswith(name):
                return int(path.parent.name)
        except (OSError, IndexError):
            continue
    raise AssertionError(f"no process runs {name}")


def test_a_job_that_was_killed_is_lost_and_submitting_again_goes_on(cluster):
    cluster.submit(behaviour={"base": {"steps": 6, "faults": [WAIT]}})
    job = trained_to(cluster, 3)
    os.kill(script_of(cluster, job), signal.SIGKILL)
    row = cluster.wait("base", "lost")
    assert row["job"] == job and "Slurm says FAILED" in row["why"] and "exit 0:9" in row["why"]
    go(cluster)
    cluster.submit(behaviour={"base": {"steps": 6}})
    cluster.wait("base", "done")
    assert cluster.steps("base") == list(range(6)) and cluster.starts("world") == 1


def test_a_stage_whose_input_has_gone_does_not_start(cluster):
    cluster.submit(until="sft", behaviour={"base": {"faults": [{**WAIT, "step": 1}]}})
    trained_to(cluster, 1)
    cluster.run("scontrol", "hold", cluster.queue("sft")[0])
    go(cluster)
    cluster.wait("base", "done")
    (cluster.run_dir / "base/outputs/model/weights").unlink()
    cluster.run("scontrol", "release", cluster.queue("sft")[0])
    row = cluster.wait("sft", "blocked")
    assert "stage base, which makes input `init`, is not done" in row["why"] and not cluster.starts("sft")


def test_a_script_submitted_by_hand_starts_only_when_its_parents_are_done(cluster):
    cluster.submit("--dry-run")

    def by_hand(stage: str) -> None:
        cluster.run("sbatch", cluster.run_dir / "slurm" / f"{stage}.sbatch")
        cluster.wait_for(lambda: not cluster.queue(stage), f"the end of {stage}")

    by_hand("base")
    assert cluster.ends("base") == ["blocked"] and "stage world" in cluster.status()["base"]["why"]
    by_hand("world")
    by_hand("base")
    assert cluster.status()["base"]["state"] == "done"
    by_hand("base")
    assert cluster.ends("base") == ["blocked", "done", "done"] and cluster.starts("base") == 1
