"""What a submission asks of the cluster: nodes, GPUs, time limits."""

from __future__ import annotations

from recipes.slurm import profile
from recipes.slurm.profile import Profile

COLUMNS = ("stage", "kind", "action", "nodes", "gpus", "array", "limit", "node_hours", "gpu_hours", "after", "note")


def rows(steps, cluster: Profile) -> list[dict]:
    """One row a step, with the keys of COLUMNS. Hours are those of one job at its time limit, spare nodes included."""
    found = []
    for step in steps:
        wants = profile.resources(cluster, step.cfg)
        nodes = wants.nodes + wants.spare_nodes
        found.append(
            {
                "stage": step.name,
                "kind": step.cfg["kind"],
                "action": f"job {step.jobs[-1]}" if step.jobs else step.action,
                "nodes": nodes,
                "gpus": nodes * wants.gpus_per_node,
                "array": wants.array,
                "limit": wants.time_limit,
                "node_hours": round(wants.node_hours, 2),
                "gpu_hours": round(wants.node_hours * wants.gpus_per_node, 2),
                "after": step.parents,
                "note": step.note,
            }
        )
    return found


def summary(found: list[dict]) -> str:
    """One line on all rows."""
    most = max((row["nodes"] for row in found), default=0)
    hours, gpu_hours = (sum(row[key] for row in found) for key in ("node_hours", "gpu_hours"))
    return (
        f"{len(found)} stages, at most {most} nodes a job, {hours:.1f} node hours and {gpu_hours:.1f} GPU hours "
        "if every job used its whole time limit once"
    )
