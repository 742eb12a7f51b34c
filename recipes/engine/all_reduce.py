"""Do all ranks reach each other? One all-reduce over NCCL, or gloo without GPUs, checked and timed.

`python -m recipes.engine.all_reduce FOLDER --mb N`, as one rank of a job step; writes FOLDER/rank<N>.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from recipes.pipeline.files import atomic_write_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--timeout", type=float, default=600)
    args = parser.parse_args()
    env = os.environ
    rank, ranks, local = int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_LOCALID"])
    report = {"rank": rank, "node": env.get("SLURMD_NODENAME", ""), "ok": False, "seconds": None, "why": ""}
    try:
        report["seconds"] = all_reduce(rank, ranks, local, int(args.mb * 2**20 // 4), args.timeout)
        report["ok"] = True
    except Exception as error:  # whatever it is, the job's log should say which rank saw it
        report["why"] = f"rank {rank} on {report['node']}: {type(error).__name__}: {str(error).splitlines()[0]}"
        print(report["why"], file=sys.stderr)
    atomic_write_json(args.folder / f"rank{rank}.json", report)
    return 0 if report["ok"] else 1


def all_reduce(rank: int, ranks: int, local: int, size: int, timeout: float) -> float:
    """Seconds of the second of two all-reduces of `size` float32; RuntimeError if a sum is wrong."""
    import torch
    import torch.distributed as dist

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local)
    limit = timedelta(seconds=timeout)
    dist.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=ranks, init_method="env://", timeout=limit)
    seconds = 0.0
    for _ in range(2):  # the first one sets up connections
        values = torch.full((size,), rank + 1.0, device="cuda" if gpu else "cpu")
        started = time.perf_counter()
        dist.all_reduce(values)
        total = values.sum().item()  # waits for the device
        seconds = time.perf_counter() - started
        expected = ranks * (ranks + 1) / 2
        if not torch.all(values == expected):
            raise RuntimeError(f"the sum over {ranks} ranks is {total / size}, not {expected}")
    dist.destroy_process_group()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
