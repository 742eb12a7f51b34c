"""What goes wrong while a run is submitted, cancelled or asked about, provoked on a real Slurm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.errors import StageFailed
from recipes.pipeline import config
from recipes.slurm.queue import Slurm
from recipes.slurm.submit import submit
from tests.slurm.cluster import CHAIN, ROOT, Cluster

SLOW = {"steps": 1000, "seconds": 0.1}
FAILS = {"faults": [{"do": "fail"}]}
# A site that forbids requeues, and refuses jobs whose names fit a pattern.
SITE = """
function slurm_job_submit(job, parts, uid)
  job.requeue = 0
  if job.dependency and string.find(job.name, "%s") then  -- not in a try-out, which has none
    slurm.log_user("the limit of this site is reached")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, parts, uid) return slurm.SUCCESS end
return slurm.SUCCESS
"""
REFUSES_NOTHING = "^$"


@pytest.fixture(scope="module")
def fragile_cluster(make_cluster) -> Cluster:
    """A cluster of this file, whose controller the tests stop and kill."""
    return make_cluster(nodes=1, more="MessageTimeout=3")


@pytest.fixture
def fragile(fragile_cluster, tmp_path) -> Cluster:
    fragile_cluster.begin(tmp_path)
    yield fragile_cluster
    fragile_cluster.clear()


@pytest.fixture(scope="module")
def site_cluster(make_cluster) -> Cluster:
    """A cluster with rules of its own, see `rule`."""
    return make_cluster(nodes=2, more="JobSubmitPlugins=lua", files={"job_submit.lua": SITE % REFUSES_NOTHING})


@pytest.fixture
def site(site_cluster, tmp_path) -> Cluster:
    site_cluster.begin(tmp_path)
    yield site_cluster
    site_cluster.clear()
    rule(site_cluster, REFUSES_NOTHING)


def rule(cluster: Cluster, refused: str) -> None:
    """From now on the site refuses jobs whose names fit the pattern."""
    script = cluster.folder / "job_submit.lua"
    newer = max(time.time(), script.stat().st_mtime) + 60  # than what the controller has read: it reads it again
    script.write_text(SITE % refused)
    os.utime(script, (newer, newer))


def in_front_of_sbatch(cluster: Cluster, lines: str) -> dict:
    """An environment in which these lines of sh run before the real sbatch; $1... are its words."""
    folder = cluster.home / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/sh\nreal() {{ {shutil.which("sbatch")} "$@"; }}\n{lines}\nreal "$@"\n')
    (folder / "sbatch").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def start_align(cluster: Cluster, *words, env: dict | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "recipes.cli", *map(str, words)], cwd=cluster.home, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**cluster.env, "PYTHONPATH": str(ROOT), **(env or {})},
    )  # fmt: skip


def submit_words(cluster: Cluster, until: str) -> list:
    return ["submit", CHAIN, "--cluster", cluster.profile(), "--until", until]


def impatient_submit(cluster: Cluster, until: list[str], monkeypatch) -> list:
    """Submit in this process, with a Slurm that waits for one second only."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    monkeypatch.chdir(cluster.home)
    pipeline = config.compose(CHAIN, [f"cluster={cluster.profile()}"])
    return submit(pipeline, cluster.run_dir, selection=until, slurm=Slurm(patience=1), echo=lambda text: None)


def one_job_each(cluster: Cluster, *stages: str) -> None:
    assert {stage: len(cluster.queue(stage)) for stage in stages} == dict.fromkeys(stages, 1)


def all_files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


# -- two at once, killed, and a controller that is away -----------------------------------------------


def test_two_shells_that_submit_at_once_submit_every_stage_once(cluster):
    cluster.behave({"world": SLOW})
    both = [start_align(cluster, *submit_words(cluster, "sft")) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert sorted(process.returncode for process in both) in ([0, 0], [0, 2]), said
    other = next((text for text, process in zip(said, both) if process.returncode), "is in the queue already")
    assert "is submitting or running this run" in other or "is in the queue already" in other
    one_job_each(cluster, "world", "base", "sft", "report")


def test_an_sbatch_that_timed_out_but_submitted_is_not_repeated(fragile):
    controller = json.loads((fragile.folder / "pids.json").read_text())["slurmctld"]
    fragile.behave({"world": SLOW})
    stop = f'case "$*" in *--parsable*sft.sbatch) kill -STOP {controller};; esac'
    shell = start_align(fragile, *submit_words(fragile, "dpo"), env=in_front_of_sbatch(fragile, stop))
    try:
        said = ""
        while "does not answer" not in said:  # sbatch has given up by now
            line = shell.stdout.readline()
            assert line, said
            said += line
    finally:
        fragile.daemon("slurmctld", signal.SIGCONT)
    said += shell.communicate(timeout=120)[0]
    assert shell.returncode == 0, said
    assert "sbatch said" in said and "is in the queue" in said
    one_job_each(fragile, "world", "base", "sft", "dpo", "report")


def test_without_a_controller_nothing_is_half_written_and_later_the_same_command_completes(fragile, monkeypatch):
    fragile.daemon("slurmctld")
    try:
        with pytest.raises(StageFailed, match="did not answer .*\n.*the same command goes on"):
            impatient_submit(fragile, ["world"], monkeypatch)
        assert [path.name for path in fragile.run_dir.iterdir()] == [".lock"]
    finally:
        fragile.restart("slurmctld")
    fragile.submit(until="world")
    fragile.wait("world", "done")


def test_without_a_controller_status_shows_what_the_files_say(fragile):
    fragile.submit(until="base", behaviour={"world": {"seconds": 0}, "base": SLOW})
    fragile.wait_for(lambda: fragile.trained("base"), "the first step")
    fragile.daemon("slurmctld")
    try:
        said = fragile.align("status", "chain")
    finally:
        fragile.restart("slurmctld")
    assert "the queue cannot be asked" in said and "Shown is what the jobs last wrote" in said
    states = {
        line.split()[0]: line.split()[2] for line in said.splitlines() if line.startswith(("world", "base", "sft"))
    }
    assert states == {"world": "done", "base": "running", "sft": "pending"}


def test_a_submission_that_was_killed_is_completed_by_the_next_one(cluster):
    cluster.behave({"world": SLOW})
    kill = 'case "$*" in *--parsable*base.sbatch) real "$@" > /dev/null; kill -KILL $PPID; exit;; esac'
    shell = start_align(cluster, *submit_words(cluster, "dpo"), env=in_front_of_sbatch(cluster, kill))
    said = shell.communicate(timeout=120)[0]
    assert shell.returncode == -signal.SIGKILL, said
    before = cluster.queue()
    assert len(before) == 2
    cluster.submit(until="dpo", behaviour={"world": SLOW})
    one_job_each(cluster, "world", "base", "sft", "dpo", "report")
    assert cluster.queue()[:2] == before
    assert [event["jobs"] for event in cluster.events("base") if event["event"] == "submitted"] == [[before[1]]]


# -- failed parents, done stages ---------------------------------------------------------------------


def test_dependants_of_a_failed_stage_are_blocked_until_it_is_submitted_again(cluster):
    cluster.submit(until="dpo", behaviour={"base": FAILS})
    row = cluster.wait("base", "failed")
    assert "the loss is not finite" in row["why"]
    row = cluster.wait("dpo", "blocked")
    assert "stage sft" in row["why"] and "is not done" in row["why"]
    assert cluster.starts("sft") == cluster.starts("dpo") == 0
    said = cluster.submit(until="dpo")
    assert "world: done, skipped" in said and said.count("done, skipped") == 1
    cluster.wait("dpo", "done")
    assert cluster.starts("world") == 1 and cluster.starts("base") == 2


def test_what_slurm_has_forgotten_does_not_count_as_done(make_cluster, tmp_path):
    cluster = make_cluster(nodes=1, min_job_age=2)
    cluster.begin(tmp_path)
    cluster.submit(until="sft", behaviour={"base": FAILS})
    cluster.wait("base", "failed")
    old = cluster.events("base")[-1]["job"]
    cluster.wait_for(lambda: "JobId" not in cluster.run("scontrol", "show", "job", check=False), "an empty memory", 120)
    assert cluster.status()["sft"]["state"] == "blocked"
    # By hand, after the forgotten job: Slurm 22.05 takes that as fulfilled, later ones refuse it.
    script = cluster.run_dir / "slurm" / "sft.sbatch"
    cluster.run("sbatch", f"--dependency=afterok:{old}", script, check=False)
    cluster.wait_for(lambda: not cluster.queue("sft"), "the end of the job")
    assert cluster.starts("sft") == 0 and cluster.status()["sft"]["state"] == "blocked"
    cluster.submit(until="sft", behaviour={"base": SLOW})
    assert cluster.job(cluster.queue("sft")[0])["Dependency"].startswith(f"afterok:{cluster.queue('base')[0]}")
    assert cluster.job(cluster.queue("base")[0])["Dependency"] == "(null)"
    cluster.clear()


def test_a_stage_whose_output_is_gone_is_done_again(cluster):
    cluster.submit()
    cluster.wait("base", "done")
    shutil.rmtree(cluster.run_dir / "base" / "outputs" / "model")
    said = cluster.submit(until="sft")
    assert "world: done, skipped" in said and "base: job" in said
    cluster.wait("sft", "done")
    assert cluster.starts("base") == 2 and cluster.steps("base") == [0, 1, 2]


def test_a_child_that_still_waits_waits_for_the_new_job_of_its_parent(cluster):
    cluster.submit(until="base", behaviour={"world": SLOW})
    (old,), (child,) = cluster.queue("world"), cluster.queue("base")
    cluster.run("scontrol", "update", f"JobId={child}", "Dependency=")
    cluster.run("scontrol", "hold", child)
    cluster.align("cancel", "chain", "world")
    assert cluster.queue("base") == [child]
    said = cluster.submit(until="base", behaviour={"world": {"seconds": 1}})
    (new,) = cluster.queue("world")
    assert f"job {child} now waits for {new}" in said and new != old
    assert cluster.job(child)["Dependency"].startswith(f"afterok:{new}")
    cluster.run("scontrol", "release", child)
    cluster.wait("base", "done")
    assert cluster.starts("base") == 1 and cluster.ends("world")[-1] == "done"


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, override, said",
    [
        ({"partition": "nowhere"}, [], "Invalid partition"),
        (
            {},
            ["stages.base.resources.nodes=16", "stages.base.model.global_batch_size=64"],
            "node configuration is not available",
        ),
        ({"sbatch": {"no-such-option": 1}}, [], "no-such-option"),
    ],
    ids=["partition", "nodes", "option"],
)
def test_a_request_that_slurm_would_never_fulfil_is_refused_at_once(cluster, settings, override, said):
    told = cluster.submit(*override, profile=cluster.profile(**settings), code=2)
    assert said in told and "nothing was submitted" in told
    assert cluster.queue() == [] and not (cluster.run_dir / "pipeline.yaml").exists()
    cluster.submit(until="world")


def test_nodes_that_are_down_for_now_do_not_prevent_a_submission(cluster):
    cluster.node("node1", "drain")
    said = cluster.submit("stages.base.resources.nodes=3", "stages.base.model.global_batch_size=12")
    assert "while node1 cannot be used" in said
    cluster.node("node1", "resume")
    cluster.wait("base", "done")


def test_a_config_that_changed_while_its_job_waits_is_refused(cluster):
    cluster.submit(behaviour={"world": SLOW})
    said = cluster.submit("stages.base.model.seed=7", behaviour={"world": SLOW}, code=2)
    assert "model.seed (1234 -> 7)" in said and "align cancel" in said
    one_job_each(cluster, "world", "base", "report")
    cluster.align("cancel", "chain")
    cluster.submit("stages.base.model.seed=7", behaviour={})
    cluster.wait("base", "done")
    assert "seed: 7" in (cluster.run_dir / "base" / "config.yaml").read_text()


def test_a_site_that_refuses_a_job_in_the_middle_leaves_what_was_submitted(site):
    rule(site, "dpo")
    site.behave({"world": SLOW})
    said = site.align(*submit_words(site, "rpo1"), code=1)
    assert "dpo: sbatch refused: " in said and "3 stages were submitted before it and stay" in said
    assert "the limit of this site is reached" in said
    rule(site, REFUSES_NOTHING)
    said = site.submit(until="rpo1", behaviour={"world": SLOW})
    assert said.count("is in the queue already") == 3
    one_job_each(site, "world", "base", "sft", "dpo", "generate", "rpo1", "report")


def test_a_queue_that_is_full_is_said_to_be_full(make_cluster, tmp_path, monkeypatch):
    cluster = make_cluster(nodes=1, min_job_age=2, more="MaxJobCount=4")
    cluster.begin(tmp_path)
    cluster.behave({"world": {"steps": 20, "seconds": 0.1}})
    with pytest.raises(StageFailed, match="(?s)took no more jobs.*3 stages were submitted before it and stay"):
        impatient_submit(cluster, ["world", "base", "sft", "dpo"], monkeypatch)
    cluster.wait("sft", "done")
    cluster.submit(until="dpo")
    cluster.wait("dpo", "done")
    assert [cluster.starts(stage) for stage in ("world", "base", "sft", "dpo")] == [1, 1, 1, 1]


def test_an_input_that_is_not_there_is_refused_before_anything_is_written(cluster):
    said = cluster.submit("stages.base.inputs.train=gone.jsonl", code=2)
    assert "gone.jsonl" in said
    assert cluster.queue() == [] and not (cluster.run_dir / "pipeline.yaml").exists()


@pytest.fixture
def bare(tmp_path) -> Cluster:
    """A machine without Slurm: the commands that the launcher needs, and no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "git", "sh"):
        (folder / name).symlink_to(shutil.which(name))
    cluster = Cluster(tmp_path, Path(sys.executable))
    cluster.env = {**os.environ, "PATH": str(folder)}
    return cluster


def test_a_dry_run_needs_no_slurm(bare):
    said = bare.submit("--dry-run", until="sft")
    assert "nothing was submitted" in said and "3 stages" in said
    scripts = sorted(path.name for path in (bare.run_dir / "slurm").glob("*.sbatch"))
    assert scripts == ["base.sbatch", "report.sbatch", "sft.sbatch", "world.sbatch"]


def test_where_slurm_is_not_installed_submit_and_cancel_say_so(bare):
    assert "Slurm's commands are not installed" in bare.submit(code=2)
    assert not (bare.run_dir / "pipeline.yaml").exists()
    bare.submit("--dry-run")
    assert "Slurm's commands are not installed" in bare.align("cancel", "chain", code=2)


# -- cancelling --------------------------------------------------------------------------------------


def test_a_cancelled_chain_is_gone_and_resume_completes_it_as_it_was(cluster):
    profile = cluster.profile()
    cluster.submit("stages.base.model.seed=7", profile=profile, until="rpo2", behaviour={"base": SLOW})
    cluster.wait_for(lambda: cluster.trained("base") > 2, "some steps")
    cluster.align("cancel", "chain")
    assert cluster.queue() == []
    states = {name: row["state"] for name, row in cluster.status().items()}
    assert states.pop("world") == "done" and set(states.values()) == {"cancelled"}
    assert cluster.starts("base") == 1 and cluster.run("squeue", "-h") == ""
    profile.write_text("slurm: {partition: nowhere}\n")  # resume has its own
    cluster.behave({"base": {"steps": 60, "seconds": 0.01}})
    cluster.align("resume", "chain")
    cluster.wait("rpo2", "done")
    assert cluster.steps("base") == list(range(60)) and cluster.starts("base") == 2
    assert "seed: 7" in (cluster.run_dir / "base" / "config.yaml").read_text()


def test_cancel_wins_over_a_job_that_waits_for_its_restart(cluster):
    cluster.submit(until="base", behaviour={"world": SLOW})
    (job,) = cluster.queue("world")
    cluster.wait_for(lambda: cluster.trained("world"), "the first step")
    cluster.run("scontrol", "requeue", job)
    cluster.wait_for(lambda: cluster.job(job)["JobState"] == "PENDING", "the requeue")
    cluster.align("cancel", "chain")
    assert cluster.job(job)["JobState"] == "CANCELLED" and cluster.queue() == []
    assert cluster.starts("world") == 1 and cluster.status()["world"]["state"] == "cancelled"


@pytest.mark.parametrize("stages", [[], ["base"]], ids=["run", "stage"])
def test_cancel_wins_over_a_requeue_of_the_same_moment(cluster, stages):
    cluster.submit(behaviour={"base": {**SLOW, "save_seconds": 0.5}})
    cluster.wait_for(lambda: cluster.trained("base") > 1, "some steps")
    (job,) = cluster.queue("base")
    cancel = start_align(cluster, "cancel", "chain", *stages)
    cluster.run("scancel", "-b", "--signal=USR1", job)  # its script asks the ranks to save, then requeues
    said = cancel.communicate(timeout=120)[0]
    assert cancel.returncode == 0 and f"base: job {job} cancelled" in said
    assert cluster.queue("base") == [] and cluster.job(job)["JobState"] == "CANCELLED"
    assert cluster.starts("base") == 1 and cluster.status()["base"]["state"] == "cancelled"


def test_a_cancelled_stage_takes_its_dependants_along_and_no_others(cluster):
    cluster.submit(until="rpo2", behaviour={"base": SLOW})
    cluster.wait_for(lambda: cluster.trained("base"), "the first step")
    cluster.align("cancel", "chain", "dpo")
    cluster.wait_for(lambda: not cluster.queue("rpo2"), "the end of its dependants")
    one_job_each(cluster, "base", "sft", "report")
    states = {name: row["state"] for name, row in cluster.status().items()}
    assert states == {
        "world": "done", "base": "running", "sft": "queued", "dpo": "cancelled",
        "generate": "blocked", "rpo1": "blocked", "rpo2": "blocked",
    }  # fmt: skip


# -- a site that forbids requeues --------------------------------------------------------------------


def test_where_requeues_are_forbidden_the_next_clone_goes_on(site):
    profile = site.profile(requeue=False, clones=3)
    site.submit(until="sft", profile=profile, behaviour={"base": {"steps": 40, "seconds": 0.1}})
    clones = site.queue("base")
    assert len(clones) == 3
    site.wait_for(lambda: site.trained("base") > 2, "some steps")
    site.run("scancel", "-b", "--signal=USR1", clones[0])
    site.wait("sft", "done")
    assert site.steps("base") == list(range(40))
    assert site.ends("base") == ["again", "done", "done"] and site.starts("base") == 2
    last, first = site.job(clones[-1]), site.job(min(site.events("sft")[0]["jobs"], key=int))
    assert last["EndTime"] <= first["StartTime"]


def test_a_stage_that_fails_for_good_is_not_repeated_by_its_clones(site):
    site.submit(until="sft", profile=site.profile(requeue=False, clones=3), behaviour={"base": FAILS})
    site.wait_for(lambda: not site.queue("base") and not site.queue("sft"), "the end of the clones")
    assert site.starts("base") == 1 and site.ends("base") == ["failed"] * 3
    rows = site.status()
    assert rows["base"]["state"] == "failed" and "the loss is not finite" in rows["base"]["why"]
    assert rows["sft"]["state"] == "blocked" and site.starts("sft") == 0


def test_a_profile_that_counts_on_forbidden_requeues_says_what_to_change(site):
    site.submit(until="base", behaviour={"base": SLOW})
    site.wait_for(lambda: site.trained("base") > 2, "some steps")
    site.run("scancel", "-b", "--signal=USR1", *site.queue("base"))
    row = site.wait("base", "unfinished", timeout=120)
    assert "no job is left to start again: see its log" in row["why"]
    assert "set slurm.requeue=false in the profile" in site.log("base")


# -- secrets and quoting -----------------------------------------------------------------------------


def test_a_secret_reaches_the_stage_and_stands_in_no_file(cluster):
    secret, shells = "sk-test 5'\"$(id)`id`/+x", "sk-of-the-submitting-shell"
    file = cluster.home / "wandb.secrets"
    file.write_text(f"# for the tests\nWANDB_API_KEY={secret}\n")
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    cluster.submit(
        profile=cluster.profile(secrets=[str(file)]), env={"WANDB_API_KEY": shells},
        behaviour={"base": {"hash_of": "WANDB_API_KEY", "steps": 20, "seconds": 0.1}},
    )  # fmt: skip
    (job,) = cluster.queue("base")
    cluster.wait_for(lambda: cluster.trained("base"), "the first step")
    shown = cluster.run("scontrol", "show", "job", job) + cluster.run("scontrol", "write", "batch_script", job, "-")
    cluster.wait("base", "done")
    first = json.loads((cluster.run_dir / "base" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["hash"] == hashlib.sha256(secret.encode()).hexdigest()
    for value in (secret, shells):
        assert value not in shown
        found = [path for path in all_files(cluster.run_dir, cluster.folder) if value.encode() in path.read_bytes()]
        assert found == []


def test_paths_and_values_with_characters_of_the_shell_are_taken_literally(cluster):
    value = "a b'c\"d$HOME`id`%j\\e"
    profile = cluster.profile(environment={"ODD": value})
    home = cluster.home / 'it\'s a "$HOME" of 100% `id` (x)'
    home.mkdir()
    cluster.begin(home, run="run $USER's 5%j `id`")
    cluster.submit("--run", cluster.run_name, profile=profile, until="generate", behaviour={"base": {"hash_of": "ODD"}})
    cluster.wait("generate", "done")
    first = json.loads((cluster.run_dir / "base" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["hash"] == hashlib.sha256(value.encode()).hexdigest()
    assert len(list((cluster.run_dir / "slurm").glob("generate.[0-2].log"))) == 3
    said = cluster.align("cancel", cluster.run_name)
    assert "report" in said or "no job of this run" in said
