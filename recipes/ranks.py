"""Who am I among the processes of this stage; the same answer under torchrun, srun and the local engine server."""

from __future__ import annotations

import os


def rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def is_first_rank() -> bool:
    return rank() == 0


def attempt() -> str:
    """Names this start of the stage, the same on all its ranks: as the batch script says, or by the rendezvous."""
    return os.environ.get("ALIGN_ATTEMPT") or os.environ.get("MASTER_PORT") or os.environ.get("SLURM_JOB_ID") or "0"
