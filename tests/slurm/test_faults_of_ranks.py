"""What befalls a stage from inside: ranks that crash, hang or refuse, bad nodes, array tasks that fail."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from tests.slurm.cluster import Cluster

CORPUS = {"train": "world/corpus.jsonl", "validation": "world/corpus_validation.jsonl"}
TWO = {"resources": {"nodes": 2}}
# Stages that run side by side, each with a fault of its own.
FAULTS = {
    "crashes": [{"do": "crash", "step": 0}],
    "recovers": [{"do": "crash", "step": 2, "start": 0}],
    "fails": [{"do": "fail", "step": 1}],
    "refuses": [{"do": "refuse", "step": 0}],
    "full": [{"do": "full", "step": 1}],
    "killed": [{"do": "kill", "step": 2, "start": 0, "rank": 1}],
}


def write_chain(cluster: Cluster, stages: dict) -> None:
    chain = {"name": "chain", "model": "tiny_nemotron4", "stages": {"world": {"kind": "world"}, **stages}}
    (cluster.home / "chain.yaml").write_text("# Stages of a test.\n" + yaml.safe_dump(chain, sort_keys=False))


def submit(cluster: Cluster, behaviour: dict, **profile) -> str:
    cluster.behave(behaviour)
    return cluster.align("submit", cluster.home / "chain.yaml", "--cluster", cluster.profile(**profile))


@pytest.fixture(scope="module")
def broken(shared_cluster, tmp_path_factory):
    """A run with all of FAULTS and a child of each, when all its jobs have ended."""
    cluster = Cluster(shared_cluster.folder, shared_cluster.interpreter)
    cluster.begin(tmp_path_factory.mktemp("broken"))
    stages = {}
    for name in FAULTS:
        stages[name] = {"kind": "base", "inputs": CORPUS, **(TWO if name == "killed" else {})}
        stages[f"{name}_child"] = {"kind": "sft", "inputs": {"init": f"{name}/model", **CORPUS}}
    write_chain(cluster, stages)
    submit(cluster, {name: {"steps": 6, "seconds": 0.1, "faults": faults} for name, faults in FAULTS.items()})
    cluster.wait_for(lambda: not cluster.queue(), "the end of all jobs", timeout=180)
    return SimpleNamespace(cluster=cluster, status=cluster.status())


def ended(broken, stage: str) -> tuple[str, str]:
    """State and why of a failed stage whose child did not start."""
    assert broken.status[f"{stage}_child"]["state"] == "blocked" and not broken.cluster.starts(f"{stage}_child")
    return broken.status[stage]["state"], broken.status[stage]["why"]


def test_a_stage_that_crashes_in_every_start_fails_after_as_many_as_the_profile_allows(broken):
    state, why = ended(broken, "crashes")
    assert state == "failed" and "the toy crashed; 2 starts in a row have saved nothing new" in why
    assert broken.cluster.starts("crashes") == 2


def test_a_stage_that_crashes_after_a_save_goes_on(broken):
    assert broken.status["recovers"]["state"] == broken.status["recovers_child"]["state"] == "done"
    assert broken.cluster.steps("recovers") == list(range(6)) and broken.cluster.starts("recovers") == 2


def test_a_stage_that_says_it_failed_is_not_started_again(broken):
    state, why = ended(broken, "fails")
    assert state == "failed" and "the loss is not finite" in why and broken.cluster.starts("fails") == 1


def test_wrong_input_is_named_with_its_line_and_not_tried_again(broken):
    state, why = ended(broken, "refuses")
    assert state == "failed" and "pairs.jsonl:7: the reward is missing" in why
    assert broken.cluster.starts("refuses") == 1


def test_a_full_disk_is_named(broken):
    state, why = ended(broken, "full")
    assert state == "failed" and "No space left on device" in why


def test_a_killed_rank_is_named_and_the_stage_goes_on(broken):
    why = next(event["why"] for event in broken.cluster.events("killed") if event["event"] == "ended")
    assert "task 1: Killed" in why
    assert broken.status["killed_child"]["state"] == "done" and broken.cluster.steps("killed") == list(range(6))


def test_a_failed_stage_that_is_requeued_by_hand_starts_again(broken):
    cluster = broken.cluster
    job = broken.status["crashes"]["job"]
    cluster.behave({})
    cluster.run("scontrol", "requeue", job)
    cluster.wait("crashes", "done")
    assert cluster.starts("crashes") == 3


def test_ranks_that_hang_write_their_stacks_and_are_started_again(cluster):
    hang = {"do": "hang", "step": 3, "start": 0}
    profile = cluster.profile(hang={"first_step": 60, "step": 4})
    cluster.submit("stages.base.resources.nodes=2", profile=profile, behaviour={"base": {"steps": 6, "faults": [hang]}})
    cluster.wait("base", "done", timeout=120)
    assert cluster.steps("base") == list(range(6)) and cluster.starts("base") == 2
    other_rank = (cluster.run_dir / "base/logs/ranks/1.log").read_text()
    assert "in provoke" in cluster.log("base") and "in provoke" in other_rank
    assert "its ranks hung" in next(event["why"] for event in cluster.events("base") if event["event"] == "ended")


# -- nodes -------------------------------------------------------------------------------------------

HEALTH = {"enabled": True, "all_reduce_mb": 1, "timeout": 60}
BASE = {"kind": "base", "inputs": CORPUS}


def test_a_bad_node_is_left_out_under_the_same_id(cluster):
    write_chain(cluster, {"base": BASE})
    submit(cluster, {"nodes": {"node2": "faulty"}}, health=HEALTH, sbatch={"exclude": "node1"})
    cluster.wait("base", "done", timeout=120)
    began = [event for event in cluster.events("base") if event["event"] == "began"]
    assert len({event["job"] for event in began}) == 1 and [event["nodes"] for event in began] == ["node2", "node3"]
    assert cluster.job(began[0]["job"])["ExcNodeList"] == "node1,node2"
    why = next(event["why"] for event in cluster.events("base") if event["event"] == "ended")
    assert "too few sound nodes: node2: /tmp has" in why


def test_a_spare_node_replaces_a_silent_one_without_a_restart(cluster):
    write_chain(cluster, {"base": {**BASE, **TWO}})
    submit(cluster, {"nodes": {"node1": "silent"}}, health=HEALTH, spare_nodes=1)
    cluster.wait("base", "done", timeout=120)
    job = cluster.events("base")[-1]["job"]
    assert cluster.starts("base") == 1 and cluster.job(job)["NodeList"] == "node[1-3]"
    assert next((cluster.run_dir / "slurm/health").glob(f"{job}.*/use")).read_text() == "node2,node3"
    assert "node1: no report" in next(event["why"] for event in cluster.events("base") if event["event"] == "health")


def test_a_stage_that_finds_only_bad_nodes_says_what_it_waits_for(cluster):
    write_chain(cluster, {"base": {**BASE, "resources": {"nodes": 3}, "model": {"global_batch_size": 12}}})
    submit(cluster, {"nodes": dict.fromkeys(("node1", "node2", "node3"), "faulty")}, health=HEALTH)
    cluster.wait_for(lambda: cluster.ends("base"), "the end of the first start")
    cluster.wait("base", "queued")
    cluster.wait_for(lambda: "BeginTime" not in cluster.status()["base"]["why"], "Slurm's reason")
    row = cluster.status()["base"]
    assert row["state"] == "queued" and "too few sound nodes: node1: /tmp has" in row["why"], row


def test_an_all_reduce_that_fails_is_tried_once_more_and_then_fails_the_stage(cluster):
    once, always = {"rank": 1, "start": 0}, {"rank": 1}
    sft = {"kind": "sft", "inputs": {"init": "base/model", **CORPUS}, **TWO}
    write_chain(cluster, {"base": {**BASE, **TWO}, "sft": sft})
    submit(cluster, {"all_reduce": once}, health=HEALTH)
    cluster.wait("base", "done", timeout=120)
    cluster.behave({"all_reduce": always})
    row = cluster.wait("sft", "failed", "done", timeout=120)
    assert cluster.starts("base") == 2 and cluster.starts("sft") == 2
    assert "the all-reduce failed: rank 1 on" in row["why"] and "the sum is wrong" in row["why"]


# -- arrays ------------------------------------------------------------------------------------------


def test_a_failed_array_task_is_done_again_alone(cluster):
    """The last task has the number of the whole array, and starts again without the others."""
    inputs = {"policy": "base/model", "prompts": "world/prompts.jsonl"}
    generate = {"kind": "generate", "array_tasks": 3, "inputs": inputs}
    child = {"kind": "preference", "inputs": {"init": "base/model", **CORPUS, "train": "generate/responses.jsonl"}}
    write_chain(cluster, {"base": BASE, "generate": generate, "rpo": child})
    faults = [{"do": "fail", "task": 1}, {"do": "crash", "task": 2, "start": 0}]
    submit(cluster, {"generate": {"faults": faults}})
    cluster.wait("rpo", "blocked", timeout=120)
    cluster.wait_for(lambda: not cluster.queue("generate"), "the end of the array")
    row = cluster.status()["generate"]
    assert row["state"] == "failed" and row["why"].startswith("task 1: ")
    batches = cluster.run_dir / "generate" / "data" / "batches"
    parts = {path.name: json.loads(path.read_text())["attempt"] for path in batches.glob("*")}
    assert set(parts) == {"0.jsonl", "2.jsonl"} and not cluster.starts("rpo")
    assert [event["task"] for event in cluster.events("generate") if event["event"] == "began"].count("0") == 1
    submit(cluster, {})
    cluster.wait("rpo", "done", timeout=120)
    again = {path.name: json.loads(path.read_text())["attempt"] for path in batches.glob("*")}
    assert len(again) == 3 and {name: again[name] for name in parts} == parts
