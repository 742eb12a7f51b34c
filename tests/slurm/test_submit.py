"""Submitting a chain to a real Slurm: order, idempotence, artifacts."""

from __future__ import annotations


def test_a_chain_runs_to_its_report(cluster):
    said = cluster.submit(until="rpo1")
    assert said.count(": job ") == 7
    cluster.wait("rpo1", "done")
    assert cluster.steps("rpo1") == [0, 1, 2]
    cluster.wait_for(lambda: (cluster.run_dir / "report" / "index.html").exists(), "the report")
    assert {row["state"] for name, row in cluster.status().items() if name != "rpo2"} == {"done"}
    again = cluster.submit(until="rpo1")
    assert again.count("done, skipped") == 6 and "job" not in again


def test_logs_are_followed_until_the_jobs_are_gone(cluster):
    cluster.submit(behaviour={"world": {"steps": 20, "seconds": 0.1}})
    said = cluster.align("logs", "chain", "base", "-f").splitlines()
    assert said[0] == "== began: starts" and said[-1] == "== ended: the artifact is complete"
    both = cluster.align("logs", "chain").splitlines()
    assert {line.split(" | ")[0] for line in both} == {"world", "base"}
