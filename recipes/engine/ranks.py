"""Who am I among the processes of this stage; the same answer under torchrun, srun and the local engine server."""

from __future__ import annotations

import os


def rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def barrier() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
