"""Real training on two nodes of a real Slurm: job script, srun, NeMo-Aligner over gloo; and a restart in the middle."""

from __future__ import annotations

import sys

import pytest
import yaml

from tests.e2e.stages import derive, facts, log
from tests.e2e.test_parity import LAYOUTS, SECTION, five_steps
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import interpreter, make_cluster  # noqa: F401 (fixtures)

# The real interpreter instead of the stand-in, and the whole health check.
REAL = {"python": sys.executable, "health": {"enabled": True, "all_reduce_mb": 1}, "time": "00:30:00"}


@pytest.fixture(scope="module")
def two_nodes(make_cluster) -> Cluster:  # noqa: F811
    return make_cluster(nodes=2)


def submit(cluster: Cluster, source, home, *overrides: str, nodes: int = 2) -> None:
    """Submit a pipeline of one stage: `source`'s config with these overrides, on nodes of one rank each."""
    stage = derive(source, home / "derived", *overrides, f"resources.nodes={nodes}", f"trainer.num_nodes={nodes}")
    cfg = yaml.safe_load((stage / "config.yaml").read_text())
    pipeline = {"name": "two", "stages": {cfg.pop("stage"): cfg}}
    (home / "two.yaml").write_text("# A stage of a test.\n" + yaml.safe_dump(pipeline))
    cluster.begin(home, run="two")
    cluster.align("submit", home / "two.yaml", "--cluster", cluster.profile(**REAL))


@pytest.mark.parametrize(("stage", "layout"), [("reward", "DP2"), ("dpo", "TP2"), ("rpo1", "PP2")])
def test_two_nodes_train_what_one_machine_trains(stage, layout, tiny_run, engine, two_nodes, tmp_path):
    few = [*five_steps(stage), "model.optim.sched.warmup_steps=1"]
    here = derive(tiny_run / stage, tmp_path / "here", *few, *LAYOUTS[layout])
    assert engine.run(here) == 0, log(here)[-3000:]
    on_two = [setting for setting in LAYOUTS[layout] if "devices" not in setting]
    submit(two_nodes, tiny_run / stage, tmp_path, *few, *on_two)
    two_nodes.wait(stage, "done", timeout=300)
    assert facts(two_nodes.run_dir / stage)["model_sha256"] == facts(here)["model_sha256"]
    assert "all-reduce over 2 ranks" in two_nodes.log(stage)
    assert (two_nodes.run_dir / stage / "logs" / "ranks" / "1.log").is_file()


def test_training_that_its_time_limit_interrupts_ends_with_the_same_weights(tiny_run, engine, two_nodes, tmp_path):
    """NeMo-Aligner's own timer saves, the job is requeued under its id, and the weights are those of a calm run."""
    stage, trainer = "general_sft", f"trainer.{SECTION['general_sft']}"
    many = [f"{trainer}.{key}=40" for key in ("max_steps", "val_check_interval", "save_interval")]
    calm = derive(tiny_run / stage, tmp_path / "calm", *five_steps(stage), *many, *LAYOUTS["DP2"])
    assert engine.run(calm) == 0, log(calm)[-3000:]
    submit(two_nodes, tiny_run / stage, tmp_path, *five_steps(stage), *many)
    (job,) = two_nodes.queue(stage)
    two_nodes.wait_for(lambda: two_nodes.trained(stage) >= 3, "three steps", timeout=200)
    two_nodes.run("scancel", "-b", "--signal=USR1", job)
    two_nodes.wait_for(lambda: not two_nodes.queue(stage), "the end of the job", timeout=300)
    assert two_nodes.ends(stage) == ["again", "done"]
    assert {event["job"] for event in two_nodes.events(stage) if event["event"] == "began"} == {job}
    assert facts(two_nodes.run_dir / stage)["model_sha256"] == facts(calm)["model_sha256"]


def test_an_array_of_jobs_writes_what_one_process_writes(tiny_run, two_nodes, tmp_path):
    submit(two_nodes, tiny_run / "generate1", tmp_path, "array_tasks=2", nodes=1)
    two_nodes.wait("generate1", "done", timeout=300)
    responses = "generate1/outputs/responses.jsonl"
    assert (two_nodes.run_dir / responses).read_bytes() == (tiny_run / responses).read_bytes()
    assert {event["task"] for event in two_nodes.events("generate1") if event["event"] == "began"} == {"0", "1"}
